//! The only mapping from an error's kind to a gRPC code and an HTTP status, and back between nodes.

use http::StatusCode;
use tonic::{Code, Status, metadata::MetadataValue};

use gaocache_core::error::{Error, ErrorKind};

/// The metadata entry or HTTP header that carries the exact kind.
pub const KIND_HEADER: &str = "gaocache-error";

/// The gRPC code and HTTP status of a kind.
pub const fn codes(kind: ErrorKind) -> (Code, StatusCode) {
    match kind {
        ErrorKind::InvalidRequest => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        ErrorKind::UnknownGroup | ErrorKind::NotFound => (Code::NotFound, StatusCode::NOT_FOUND),
        // The origin's answer is unusable, and a retry won't help.
        ErrorKind::ValueTooLarge => (Code::ResourceExhausted, StatusCode::BAD_GATEWAY),
        ErrorKind::OriginTimeout => (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        ErrorKind::OriginFailed => (Code::Unavailable, StatusCode::BAD_GATEWAY),
        ErrorKind::Overloaded => (Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE),
        ErrorKind::PeerUnreachable | ErrorKind::NotReady | ErrorKind::Registry => {
            (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
        }
        ErrorKind::Configuration => (Code::FailedPrecondition, StatusCode::INTERNAL_SERVER_ERROR),
        ErrorKind::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The gRPC status of an error, with its exact kind in the metadata.
pub fn to_status(error: &Error) -> Status {
    let mut status = Status::new(codes(error.kind()).0, error.message());
    let kind = MetadataValue::from_static(error.kind().name());
    status.metadata_mut().insert(KIND_HEADER, kind);
    status
}

/// The error that a gaocache node sent. `None` for a status from something else (the transport, a
/// proxy, an old release).
pub fn from_status(status: &Status) -> Option<Error> {
    let kind = status.metadata().get(KIND_HEADER)?.to_str().ok()?;
    // A kind from a newer release is still an answer.
    let kind = ErrorKind::from_name(kind).unwrap_or(ErrorKind::Internal);
    Some(Error::new(kind, status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_the_wire_and_comes_out_the_same() {
        for kind in ErrorKind::ALL {
            let error = Error::new(kind, "what happened");
            let back = from_status(&to_status(&error)).expect("ours");
            assert_eq!((back.kind(), back.message()), (kind, "what happened"));
        }
        assert!(from_status(&Status::unavailable("transport")).is_none());
    }

    #[test]
    fn what_may_pass_is_never_told_as_final_and_the_other_way_round() {
        for kind in ErrorKind::ALL {
            let (code, http) = codes(kind);
            let http_says_later = matches!(http.as_u16(), 502..=504);
            if kind.retryable() {
                assert!(http_says_later, "{kind:?}");
                assert!(
                    !matches!(code, Code::NotFound | Code::InvalidArgument),
                    "{kind:?}"
                );
            }
            assert_eq!(
                http.is_client_error(),
                matches!(code, Code::NotFound | Code::InvalidArgument),
                "{kind:?}"
            );
        }
    }
}
