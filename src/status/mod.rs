//! One mapping from an error's kind to a gRPC code and an HTTP status, for every listener and
//! client.

pub mod grpc;
pub mod http;
pub mod redis;

use ::http::StatusCode;
use tonic::Code;

use gaocache_core::error::ErrorKind;

/// The metadata entry or HTTP header that carries the exact kind.
pub const KIND_HEADER: &str = "gaocache-error";

/// The metadata entry that carries the limit which a value was over, in bytes.
pub const MAX_VALUE_HEADER: &str = "gaocache-max-value";

/// The metadata entry that says when a retry may help, in milliseconds from now.
pub const RETRY_AFTER_HEADER: &str = "gaocache-retry-after-ms";

/// The gRPC code and HTTP status of a kind.
pub const fn codes(kind: ErrorKind) -> (Code, StatusCode) {
    match kind {
        ErrorKind::InvalidRequest => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        ErrorKind::Unauthenticated => (Code::Unauthenticated, StatusCode::UNAUTHORIZED),
        ErrorKind::PermissionDenied => (Code::PermissionDenied, StatusCode::FORBIDDEN),
        ErrorKind::UnknownGroup | ErrorKind::NotFound => (Code::NotFound, StatusCode::NOT_FOUND),
        // The origin's answer is unusable, and a retry won't help.
        ErrorKind::ValueTooLarge => (Code::ResourceExhausted, StatusCode::BAD_GATEWAY),
        ErrorKind::OriginTimeout => (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        ErrorKind::OriginFailed => (Code::Unavailable, StatusCode::BAD_GATEWAY),
        ErrorKind::Overloaded => (Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE),
        ErrorKind::TooManyRequests => (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS),
        ErrorKind::BreakerOpen
        | ErrorKind::PeerUnreachable
        | ErrorKind::NotReady
        | ErrorKind::Registry => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        ErrorKind::Configuration => (Code::FailedPrecondition, StatusCode::INTERNAL_SERVER_ERROR),
        // Also what is not mapped yet; a test looks for such.
        _ => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_but_internal_has_a_code_of_its_own() {
        for &kind in ErrorKind::ALL {
            assert_eq!(codes(kind).0 == Code::Internal, kind == ErrorKind::Internal);
        }
    }

    #[test]
    fn what_may_pass_is_never_told_as_final_and_the_other_way_round() {
        const FINAL: [Code; 4] = [
            Code::NotFound,
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::PermissionDenied,
        ];
        for &kind in ErrorKind::ALL {
            let (code, http) = codes(kind);
            let http_says_later = matches!(http.as_u16(), 429 | 502..=504);
            if kind.retryable() {
                assert!(http_says_later, "{kind:?}");
                assert!(!FINAL.contains(&code), "{kind:?}");
            }
            let http_says_final = http.is_client_error() && !http_says_later;
            assert_eq!(http_says_final, FINAL.contains(&code), "{kind:?}");
        }
    }
}
