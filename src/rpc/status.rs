//! One mapping from an error's kind to a gRPC code and an HTTP status, and the way back between
//! nodes.

use http::StatusCode;
use tonic::{Code, Status, metadata::MetadataValue};

use gaocache_core::error::{Error, ErrorKind};

/// The metadata entry and HTTP header that carries the exact kind.
pub const KIND_HEADER: &str = "gaocache-error";

/// How a kind looks to gRPC and to HTTP.
pub const fn codes(kind: ErrorKind) -> (Code, StatusCode) {
    match kind {
        ErrorKind::InvalidRequest => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        ErrorKind::UnknownGroup | ErrorKind::NotFound => (Code::NotFound, StatusCode::NOT_FOUND),
        // The upstream's answer is unusable, and asking again won't help.
        ErrorKind::ValueTooLarge => (Code::ResourceExhausted, StatusCode::BAD_GATEWAY),
        ErrorKind::OriginTimeout => (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        ErrorKind::OriginFailed => (Code::Unavailable, StatusCode::BAD_GATEWAY),
        ErrorKind::Overloaded => (Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE),
        ErrorKind::PeerUnreachable | ErrorKind::NotReady | ErrorKind::Registry => {
            (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
        }
        ErrorKind::Configuration => (Code::FailedPrecondition, StatusCode::INTERNAL_SERVER_ERROR),
        // Also what is not mapped yet; a test looks for such.
        _ => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// The gRPC status of an error, with its exact kind in the metadata.
pub fn to_status(error: &Error) -> Status {
    let mut status = Status::new(codes(error.kind()).0, error.message());
    let kind = MetadataValue::from_static(error.kind().name());
    status.metadata_mut().insert(KIND_HEADER, kind);
    status
}

/// The error that a gaocache node sent; `None` for a status that something else made (the
/// transport, a proxy, an old release).
pub fn from_status(status: &Status) -> Option<Error> {
    let kind = status.metadata().get(KIND_HEADER)?.to_str().ok()?;
    // A kind that a newer release invented is still an answer; its code tells enough.
    let kind = ErrorKind::from_name(kind).unwrap_or(ErrorKind::Internal);
    Some(Error::new(kind, status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_the_wire_and_comes_out_the_same() {
        for &kind in ErrorKind::ALL {
            let error = Error::new(kind, "what happened");
            let back = from_status(&to_status(&error)).expect("ours");
            assert_eq!((back.kind(), back.message()), (kind, "what happened"));
        }
        assert!(from_status(&Status::unavailable("transport")).is_none());
    }

    #[test]
    fn every_kind_but_internal_has_a_code_of_its_own() {
        for &kind in ErrorKind::ALL {
            assert_eq!(codes(kind).0 == Code::Internal, kind == ErrorKind::Internal);
        }
    }

    #[test]
    fn what_may_pass_is_never_told_as_final_and_the_other_way_round() {
        for &kind in ErrorKind::ALL {
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
