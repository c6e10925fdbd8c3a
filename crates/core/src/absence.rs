//! What an origin says in place of a value that does not exist.
//!
//! It travels as the cause of an error, and is kept like a value; it must never be served as one.

use std::{error::Error as StdError, fmt};

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind},
    metadata::Metadata,
};

/// The largest body that is kept for a key that does not exist, in bytes.
pub const MAX_NOT_FOUND_BODY: usize = 64 * 1024;

/// The body of an origin's 404: a loader adds it to its error, and it goes with the knowledge that
/// the key does not exist to whoever asks, for the group's `negative_ttl`. Over HTTP it is the body
/// of the 404. One of more than 64 KiB, or larger than the group's values may be, is left out.
///
/// ```
/// # mod gaocache {
/// #     pub use gaocache_core::{absence::NotFoundBody, metadata::Metadata};
/// #     pub use gaocache_core::error::{BoxError, Error, Result};
/// #     pub use gaocache_core::ports::loader;
/// # }
/// use gaocache::{BoxError, Error, Metadata, NotFoundBody, loader};
///
/// let users = loader(async |id: String| {
///     let html = Metadata::new([("content-type", "text/html")])?;
///     let body = NotFoundBody::new(format!("<p>Nobody is called {id}"), html);
///     let error = Error::not_found("no such user").with_source(body);
///     Err::<String, BoxError>(error.into())
/// });
/// # drop(users);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFoundBody {
    bytes: Bytes,
    metadata: Metadata,
}

impl NotFoundBody {
    /// These bytes, of which this is said.
    pub fn new(bytes: impl Into<Bytes>, metadata: Metadata) -> Self {
        Self {
            bytes: bytes.into(),
            metadata,
        }
    }

    /// What an error says of a key that does not exist, if it says anything.
    pub fn of(error: &Error) -> Option<&Self> {
        if error.kind() != ErrorKind::NotFound {
            return None;
        }
        error.source()?.downcast_ref()
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What they are.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl fmt::Display for NotFoundBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered with {} bytes", self.bytes.len())
    }
}

impl StdError for NotFoundBody {}
