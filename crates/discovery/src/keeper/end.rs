//! How a session with etcd ends.

use crate::error::Error;

/// Why a session ended.
pub(super) enum End {
    Stop,
    /// Something must be repaired immediately, in a new session.
    Again,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
