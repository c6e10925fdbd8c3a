//! An error as a gRPC status, and back.

use tonic::{Status, metadata::MetadataValue};

use super::{KIND_HEADER, MAX_VALUE_HEADER, codes};
use gaocache_core::error::{Error, ErrorKind};

/// The gRPC status of an error, with its exact kind in the metadata, and the limit that a value was
/// over.
pub fn to_status(error: &Error) -> Status {
    let mut status = Status::new(codes(error.kind()).0, error.message());
    let kind = MetadataValue::from_static(error.kind().name());
    status.metadata_mut().insert(KIND_HEADER, kind);
    if let Some(max_value) = error.max_value() {
        let max_value = MetadataValue::from(max_value);
        status.metadata_mut().insert(MAX_VALUE_HEADER, max_value);
    }
    status
}

/// The error that a gaocache node sent. `None` for a status from something else (the transport, a
/// proxy, an old release).
pub fn from_status(status: &Status) -> Option<Error> {
    let kind = status.metadata().get(KIND_HEADER)?.to_str().ok()?;
    // A kind from a newer release is still an answer.
    let kind = ErrorKind::from_name(kind).unwrap_or(ErrorKind::Internal);
    let max_value = status.metadata().get(MAX_VALUE_HEADER);
    let max_value = max_value.and_then(|it| it.to_str().ok()?.parse().ok());
    Some(match max_value {
        Some(max_value) if kind == ErrorKind::ValueTooLarge => {
            Error::value_too_large(status.message(), max_value)
        }
        _ => Error::new(kind, status.message()),
    })
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
        assert!(from_status(&Status::unavailable("transport")).is_none());
    }
}
