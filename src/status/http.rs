//! An error as an HTTP response.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};

use super::{KIND_HEADER, codes};
use gaocache_core::error::{Error, ErrorKind};

/// A method that a path doesn't take; the router adds which it does.
pub fn not_allowed(what: &str) -> Response {
    let mut response = failed(&Error::new(ErrorKind::InvalidRequest, what));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// A path that isn't there.
pub fn no_such_path(what: &str) -> Response {
    let mut response = failed(&Error::new(ErrorKind::InvalidRequest, what));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// An error as JSON, with its kind in a header as well.
pub fn failed(error: &Error) -> Response {
    let kind = error.kind();
    let body = serde_json::json!({ "error": kind.name(), "message": error.message() });
    let mut response = (codes(kind).1, format!("{body}\n")).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(KIND_HEADER, HeaderValue::from_static(kind.name()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if kind.retryable() {
        // In whole seconds, rounded up: an earlier retry would fail.
        let seconds = error
            .retry_after()
            .map_or(1, |it| it.as_millis().div_ceil(1000));
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).max(1);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
