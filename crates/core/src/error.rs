//! The one error that leaves gaocache: what went wrong, whose fault it was, and whether asking
//! again can help.
//!
//! It must never carry a value or a secret. How a kind maps to a gRPC code and an HTTP status
//! is told once, in `status` of the `gaocache` crate.

use std::{error::Error as StdError, fmt, sync::Arc};

/// Any error, as loaders return it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// The registry (etcd) could not be reached or refused, or another node holds this node's id.
    Registry,
    /// The configuration is wrong: a port in use, a URL or a file that can't be used.
    Configuration,
    /// A defect in gaocache.
    Internal,
}

/// Whose side an error comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The one who asked.
    Caller,
    /// The origin behind the group.
    Origin,
    /// Another member.
    Peer,
    /// The registry through which the nodes find each other.
    Registry,
    /// This node.
    Node,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: &'static [Self] = &[
        Self::InvalidRequest,
        Self::UnknownGroup,
        Self::NotFound,
        Self::ValueTooLarge,
        Self::OriginTimeout,
        Self::OriginFailed,
        Self::Overloaded,
        Self::PeerUnreachable,
        Self::NotReady,
        Self::Registry,
        Self::Configuration,
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
            Self::Registry => "registry",
            Self::Configuration => "configuration",
            Self::Internal => "internal",
        }
    }

    /// The kind of that name, as [`ErrorKind::name`] writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Whose side it is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::InvalidRequest | Self::UnknownGroup => Fault::Caller,
            Self::NotFound | Self::ValueTooLarge | Self::OriginTimeout | Self::OriginFailed => {
                Fault::Origin
            }
            Self::PeerUnreachable => Fault::Peer,
            Self::Registry => Fault::Registry,
            Self::Overloaded | Self::NotReady | Self::Configuration | Self::Internal => Fault::Node,
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
                | Self::Registry
        )
    }
}

/// An error with its kind, a sentence for people and its cause. Cheap to clone: everyone who waits
/// for one load gets the same.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What gaocache's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` says what happened and names what it happened to.
    pub fn new(kind: ErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same error with its cause, which [`source`](StdError::source) returns.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// What a loader's error means: a gaocache error as it is, anything else as
    /// [`ErrorKind::OriginFailed`] with that error as its cause.
    pub fn from_loader(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => *own,
            Err(error) => Self::origin_failed(with_causes(error.to_string(), error.as_ref()))
                .with_source(error),
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_deref();
        source.map(|it| it as &(dyn StdError + 'static))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

/// What an error of a library says, with all of its causes. `text` stands for the error itself.
pub fn with_causes(text: String, error: &(dyn StdError + 'static)) -> String {
    let mut text = text;
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_reads_back() {
        for &kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(ErrorKind::from_name("no such kind"), None);
    }

    #[test]
    fn a_cause_is_kept_also_by_clones() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Internal, "reading").with_source(cause);
        let kept = error.clone();
        let source = kept.source().expect("a cause");
        assert_eq!(source.to_string(), "disk on fire");
        assert!(source.is::<std::io::Error>());
        let own = Error::new(ErrorKind::NotReady, "soon");
        assert!(own.source().is_none());
    }

    #[test]
    fn a_loader_s_error_keeps_its_kind_if_it_is_ours_and_its_cause_if_it_is_not() {
        let ours = Error::from_loader(Error::not_found("no such user").into());
        assert_eq!(ours.kind(), ErrorKind::NotFound);
        let theirs = Error::from_loader(std::io::Error::other("timed out").into());
        assert_eq!(theirs.kind(), ErrorKind::OriginFailed);
        assert!(theirs.source().is_some_and(|it| it.is::<std::io::Error>()));
    }
}
