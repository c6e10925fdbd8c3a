//! An error as a gRPC status, and back.

use std::time::Duration;

use tonic::{Status, metadata::MetadataValue};

use super::{KIND_HEADER, MAX_VALUE_HEADER, RETRY_AFTER_HEADER, codes};
use gaocache_core::error::{Error, ErrorKind};

/// The gRPC status of an error, with its exact kind in the metadata, the limit that a value was
/// over, and when a retry may help.
pub fn to_status(error: &Error) -> Status {
    let mut status = Status::new(codes(error.kind()).0, error.message());
    let kind = MetadataValue::from_static(error.kind().name());
    status.metadata_mut().insert(KIND_HEADER, kind);
    if let Some(max_value) = error.max_value() {
        let max_value = MetadataValue::from(max_value);
        status.metadata_mut().insert(MAX_VALUE_HEADER, max_value);
    }
    if let Some(retry_after) = error.retry_after() {
        let millis = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        let millis = MetadataValue::from(millis);
        status.metadata_mut().insert(RETRY_AFTER_HEADER, millis);
    }
    status
}

/// The error that a gaocache node sent. `None` for a status from something else (the transport, a
/// proxy, an old release).
pub fn from_status(status: &Status) -> Option<Error> {
    let kind = status.metadata().get(KIND_HEADER)?.to_str().ok()?;
    // A kind from a newer release is still an answer.
    let kind = ErrorKind::from_name(kind).unwrap_or(ErrorKind::Internal);
    let error = match number(status, MAX_VALUE_HEADER) {
        Some(max_value) if kind == ErrorKind::ValueTooLarge => {
            Error::value_too_large(status.message(), max_value)
        }
        _ => Error::new(kind, status.message()),
    };
    Some(match number(status, RETRY_AFTER_HEADER) {
        Some(millis) => error.with_retry_after(Duration::from_millis(millis)),
        None => error,
    })
}

fn number(status: &Status, name: &str) -> Option<u64> {
    status.metadata().get(name)?.to_str().ok()?.parse().ok()
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
        let error = Error::value_too_large("what happened", 9);
        let back = from_status(&to_status(&error)).expect("ours");
        assert_eq!(back.max_value(), Some(9));
        let soon = Duration::from_millis(1500);
        let error = Error::origin_failed("busy").with_retry_after(soon);
        let back = from_status(&to_status(&error)).expect("ours");
        assert_eq!(back.retry_after(), Some(soon));
        assert!(from_status(&Status::unavailable("transport")).is_none());
    }
}
