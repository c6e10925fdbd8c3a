//! Why a call is not allowed.

use gaocache_core::error::{Error, ErrorKind};

/// Why a call is not allowed, and what its caller can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The caller has proven nothing that counts.
    Unauthenticated(String),
    /// It is known who calls, and that it has no such role.
    Denied(String),
}

impl Refusal {
    /// For labels and the audit.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Denied(_) => "denied",
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated(what) => Self::new(ErrorKind::Unauthenticated, what),
            Refusal::Denied(what) => Self::new(ErrorKind::PermissionDenied, what),
        }
    }
}
