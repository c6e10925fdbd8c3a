//! Errors of etcd, classified by what a caller can do about them.

use std::{error::Error as StdError, fmt, sync::Arc};

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// etcd could not be reached, did not answer in time, or has no leader. A retry may help.
    Unavailable,
    /// etcd refused the request: wrong user or password, or no permission. A retry does not help.
    Refused,
    /// Another process holds the key.
    Conflict,
    /// The configuration is invalid: no endpoints, an invalid URL, or an unreadable file.
    Configuration,
}

/// An error of etcd. Cheap to clone. [`source`](StdError::source) returns the cause.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Arc<str>,
    /// Whether the message names the endpoint.
    is_located: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: format!("etcd: {}", message.into()).into(),
            is_located: false,
            source: None,
        }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Adds the endpoint to the message, unless it names it.
    pub(crate) fn at(mut self, endpoint: &str) -> Self {
        if endpoint.is_empty() || self.is_located {
            return self;
        }
        let message = self.message.trim_start_matches("etcd: ");
        self.message = format!("etcd: {endpoint}: {message}").into();
        self.is_located = true;
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message, including the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The next message of a stream that must not end; `what` names it.
    pub(crate) fn in_stream<T>(
        answer: Result<Option<T>, etcd_client::Error>,
        what: &str,
    ) -> Result<T> {
        let answer = answer.map_err(Self::of_etcd)?;
        answer.ok_or_else(|| Self::unavailable(format!("{what} ended")))
    }

    /// Whether etcd answered that it has no such lease (`rpctypes.ErrGRPCLeaseNotFound`).
    pub(crate) fn is_not_found(&self) -> bool {
        self.has_code(tonic::Code::NotFound)
    }

    /// Whether a revision was asked for that etcd has compacted, or has not reached.
    pub(crate) fn is_out_of_range(&self) -> bool {
        self.has_code(tonic::Code::OutOfRange)
    }

    fn has_code(&self, code: tonic::Code) -> bool {
        matches!(
            self.etcd_error(),
            Some(etcd_client::Error::GRpcStatus(status)) if status.code() == code
        )
    }

    /// Whether opening the stream of renewals failed. The lease may be gone, but etcd-client
    /// returns the same kind of error for a broken stream, so the caller must ask etcd.
    pub(crate) fn is_keep_alive(&self) -> bool {
        matches!(
            self.etcd_error(),
            Some(etcd_client::Error::LeaseKeepAliveError(_))
        )
    }

    fn etcd_error(&self) -> Option<&etcd_client::Error> {
        self.source.as_ref()?.downcast_ref()
    }
}

// No `From`: it would make etcd-client a part of this crate's public API.
impl Error {
    pub(crate) fn of_etcd(error: etcd_client::Error) -> Self {
        use tonic::Code;
        let (kind, message) = match &error {
            // Without the metadata that a tonic status prints.
            etcd_client::Error::GRpcStatus(status) => {
                let kind = match status.code() {
                    Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => {
                        ErrorKind::Refused
                    }
                    _ => ErrorKind::Unavailable,
                };
                let mut message = format!("{}: {}", status.code(), status.message());
                // Where no etcd answered, the reason is among the causes alone.
                let mut cause = status.source();
                while let Some(error) = cause {
                    let text = error.to_string();
                    if !message.contains(&text) {
                        message = format!("{message}: {text}");
                    }
                    cause = error.source();
                }
                (kind, message)
            }
            etcd_client::Error::InvalidUri(_) | etcd_client::Error::InvalidArgs(_) => {
                (ErrorKind::Configuration, error.to_string())
            }
            _ => (ErrorKind::Unavailable, error.to_string()),
        };
        Self::new(kind, message).with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|it| it as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_named_once_by_whoever_knows_it_first() {
        // This member tells of another one, whose address begins like its own.
        let error = Error::unavailable("http://etcd-11 is gone").at("http://etcd-1");
        assert_eq!(
            error.message(),
            "etcd: http://etcd-1: http://etcd-11 is gone"
        );
        let again = error.clone().at("http://etcd-2");
        assert_eq!(again.message(), error.message());
    }
}
