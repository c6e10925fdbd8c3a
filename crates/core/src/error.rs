//! The only error type that gaocache returns: what went wrong, who is at fault, and whether a retry
//! can help.
//!
//! It must never carry a secret, and of values only what an origin said in place of one
//! (`absence`). How a kind maps to a gRPC code and an HTTP status
//! is defined once, in `status` of the `gaocache` crate.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

/// Any error, as returned by loaders.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong, classified by what a caller can do about it.
///
/// ```
/// # mod gaocache { pub use gaocache_core::error::{Error, ErrorKind, Fault}; }
/// use gaocache::{Error, ErrorKind, Fault};
///
/// let error = Error::origin_failed("the database is down");
/// match error.kind() {
///     ErrorKind::NotFound => unreachable!(),
///     // Somebody else's fault, and it may pass.
///     kind => assert!(kind.fault() == Fault::Origin && kind.retryable()),
/// }
/// // As in answers over HTTP and gRPC.
/// assert_eq!(error.kind().name(), "origin_failed");
/// assert_eq!(ErrorKind::from_name("origin_failed"), Some(error.kind()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is invalid: an empty or oversized key. A retry can't help.
    InvalidRequest,
    /// The caller has not shown who it is.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// No group with that name is configured on this node.
    UnknownGroup,
    /// The origin has no such key.
    NotFound,
    /// The value is larger than the group's `max_value`.
    ValueTooLarge,
    /// The origin did not answer in time.
    OriginTimeout,
    /// The origin could not be reached, failed, or sent an invalid response.
    OriginFailed,
    /// The origin has failed or been slow recently, so its group's circuit breaker is open: it is
    /// not asked for a while.
    BreakerOpen,
    /// Too much is in flight already: loads that wait for the origin, or bytes.
    Overloaded,
    /// This caller asks for more than one caller may at the same time.
    TooManyRequests,
    /// A required member could not be reached.
    PeerUnreachable,
    /// This node does not serve yet, or is leaving.
    NotReady,
    /// The registry (etcd) could not be reached or refused the request, another node holds this
    /// node's id, or without the registry this node is not sure who its members are.
    Registry,
    /// The configuration is invalid: a port in use, or an unusable URL or file.
    Configuration,
    /// A bug in gaocache.
    Internal,
}

/// Who is at fault for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The caller.
    Caller,
    /// The group's origin.
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
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::UnknownGroup,
        Self::NotFound,
        Self::ValueTooLarge,
        Self::OriginTimeout,
        Self::OriginFailed,
        Self::BreakerOpen,
        Self::Overloaded,
        Self::TooManyRequests,
        Self::PeerUnreachable,
        Self::NotReady,
        Self::Registry,
        Self::Configuration,
        Self::Internal,
    ];

    /// The stable name of the kind, used on the wire and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::UnknownGroup => "unknown_group",
            Self::NotFound => "not_found",
            Self::ValueTooLarge => "value_too_large",
            Self::OriginTimeout => "origin_timeout",
            Self::OriginFailed => "origin_failed",
            Self::BreakerOpen => "breaker_open",
            Self::Overloaded => "overloaded",
            Self::TooManyRequests => "too_many_requests",
            Self::PeerUnreachable => "peer_unreachable",
            Self::NotReady => "not_ready",
            Self::Registry => "registry",
            Self::Configuration => "configuration",
            Self::Internal => "internal",
        }
    }

    /// The kind with that name, as returned by [`ErrorKind::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Who is at fault.
    pub const fn fault(self) -> Fault {
        match self {
            Self::InvalidRequest
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::UnknownGroup
            | Self::TooManyRequests => Fault::Caller,
            Self::NotFound
            | Self::ValueTooLarge
            | Self::OriginTimeout
            | Self::OriginFailed
            | Self::BreakerOpen => Fault::Origin,
            Self::PeerUnreachable => Fault::Peer,
            Self::Registry => Fault::Registry,
            Self::Overloaded | Self::NotReady | Self::Configuration | Self::Internal => Fault::Node,
        }
    }

    /// Whether the same request may succeed if it is retried later.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::OriginTimeout
                | Self::OriginFailed
                | Self::BreakerOpen
                | Self::Overloaded
                | Self::TooManyRequests
                | Self::PeerUnreachable
                | Self::NotReady
                | Self::Registry
        )
    }
}

/// An error with its kind, a human-readable message and its cause. Cheap to clone: all callers that
/// wait for one load get the same error.
///
/// ```
/// # mod gaocache { pub use gaocache_core::error::{Error, ErrorKind, Fault}; }
/// use std::{error::Error as _, io, time::Duration};
///
/// use gaocache::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::OriginFailed, "no row could be read")
///     .with_source(io::Error::other("disk on fire"))
///     .with_retry_after(Duration::from_secs(1));
/// assert_eq!(error.to_string(), "no row could be read");
/// assert_eq!(error.source().expect("a cause").to_string(), "disk on fire");
/// assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
/// ```
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// The `max_value` that a value was larger than, in bytes.
    max_value: Option<u64>,
    /// When a retry may help, if that is known.
    retry_after: Option<Duration>,
}

/// The result type of gaocache's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`. `message` says what happened, and to what.
    pub fn new(kind: ErrorKind, message: impl Into<Arc<str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            max_value: None,
            retry_after: None,
        }
    }

    /// [`ErrorKind::ValueTooLarge`]: a value is larger than this `max_value`, in bytes.
    pub fn value_too_large(message: impl Into<Arc<str>>, max_value: u64) -> Self {
        Self {
            max_value: Some(max_value),
            ..Self::new(ErrorKind::ValueTooLarge, message)
        }
    }

    /// Adds the cause, which [`source`](StdError::source) returns.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// Says how long it takes until a retry may help. For loaders: the origin said so.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Converts a loader's error. A gaocache error stays as it is; any other error becomes
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

    /// The human-readable message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// For [`ErrorKind::ValueTooLarge`]: the `max_value` of the node that refused the value, if it
    /// is known. A node that takes larger ones may still get it.
    pub fn max_value(&self) -> Option<u64> {
        self.max_value
    }

    /// How long it takes until a retry may help, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
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

/// The message of a library's error with all of its causes, each of them once: the messages of many
/// errors name their causes already. `text` is the message of the error itself.
pub fn with_causes(text: String, error: &(dyn StdError + 'static)) -> String {
    let mut text = text;
    let mut cause = error.source();
    while let Some(error) = cause {
        let named = format!(": {text}: ").contains(&format!(": {error}: "));
        if !named {
            text = format!("{text}: {error}");
        }
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
    fn each_cause_is_told_once_whether_the_messages_name_their_causes_or_not() {
        let disk = || std::io::Error::other("disk on fire");
        let reading = |what: &'static str| Error::new(ErrorKind::Internal, what);
        for (message, told) in [
            ("reading", "loading: reading: disk on fire"),
            ("reading: disk on fire", "loading: reading: disk on fire"),
            // The same word is not the same cause.
            (
                "disk on fireplace",
                "loading: disk on fireplace: disk on fire",
            ),
        ] {
            let cause = reading(message).with_source(disk());
            let error = reading("loading").with_source(cause.clone());
            assert_eq!(with_causes("loading".into(), &error), told);
            // Nor if the error names all of them.
            let error = reading("loading").with_source(cause);
            assert_eq!(with_causes(told.into(), &error), told);
        }
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
