//! The one error that leaves gaocache: what went wrong, whose fault it was, and whether asking again can help.
//!
//! It must never carry a value or a secret. How a kind maps to a gRPC code and an HTTP status is told once, in
//! [`crate::rpc::status`].

use std::{fmt, sync::Arc};

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: an empty or oversized key. Asking again can't help.
    InvalidRequest,
    /// No group of that name is configured here.
    UnknownGroup,
    /// The origin says that there is no such key.
    NotFound,
    /// The value is larger than the group's `max_value`.
    ValueTooLarge,
    /// The origin did not answer within its time.
    OriginTimeout,
    /// The origin could not be reached, failed, or answered something that is no answer.
    OriginFailed,
    /// Too many loads wait for the origin already.
    Overloaded,
    /// A member that had to answer could not be reached.
    PeerUnreachable,
    /// This node does not serve yet, or no longer.
    NotReady,
    /// A defect in gaocache.
    Internal,
}

/// Whose side an error comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The one who asked.
    Caller,
    /// The origin behind the group.
    Origin,
    /// Another member.
    Peer,
    /// This node.
    Node,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::InvalidRequest,
        Self::UnknownGroup,
        Self::NotFound,
        Self::ValueTooLarge,
        Self::OriginTimeout,
        Self::OriginFailed,
        Self::Overloaded,
        Self::PeerUnreachable,
        Self::NotReady,
        Self::Internal,
    ];

    /// The stable name of the kind, as it goes over the wire and into metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnknownGroup => "unknown_group",
            Self::NotFound => "not_found",
            Self::ValueTooLarge => "value_too_large",
            Self::OriginTimeout => "origin_timeout",
            Self::OriginFailed => "origin_failed",
            Self::Overloaded => "overloaded",
            Self::PeerUnreachable => "peer_unreachable",
            Self::NotReady => "not_ready",
            Self::Internal => "internal",
        }
    }

    /// The kind of that name, as [`ErrorKind::name`] writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whose side it is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::InvalidRequest | Self::UnknownGroup => Fault::Caller,
            Self::NotFound | Self::ValueTooLarge | Self::OriginTimeout | Self::OriginFailed => {
                Fault::Origin
            }
            Self::PeerUnreachable => Fault::Peer,
            Self::Overloaded | Self::NotReady | Self::Internal => Fault::Node,
        }
    }

    /// Whether the same request may succeed a little later.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::OriginTimeout
                | Self::OriginFailed
                | Self::Overloaded
                | Self::PeerUnreachable
                | Self::NotReady
        )
    }
}

/// An error with its kind and a sentence for people. Cheap to clone: everyone who waits for one load gets the same.
#[derive(Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: Arc<str>,
}

/// What gaocache's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` says what happened and names what it happened to.
    pub fn new(kind: ErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// [`ErrorKind::NotFound`], for loaders.
    pub fn not_found(message: impl Into<Arc<str>>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::OriginFailed`], for loaders.
    pub fn origin_failed(message: impl Into<Arc<str>>) -> Self {
        Self::new(ErrorKind::OriginFailed, message)
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

/// What an error of a library says, with all of its causes. `text` stands for the error itself.
pub(crate) fn with_causes(text: String, error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(text, |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_reads_back() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(ErrorKind::from_name("no such kind"), None);
    }
}
