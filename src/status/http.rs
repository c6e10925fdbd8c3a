//! An error as an HTTP response.

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
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

/// The reason that an answer of [`no_such_path`] has in its body. It tells a client that it
/// may have the wrong listener.
pub const NO_SUCH_PATH: &str = "no_such_path";

/// A path that exists but has no data in this process.
pub fn not_here(what: &str) -> Response {
    let mut response = failed(&Error::new(ErrorKind::InvalidRequest, what));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A path that isn't there.
pub fn no_such_path(what: &str) -> Response {
    let error = Error::new(ErrorKind::InvalidRequest, what);
    let mut response = respond(&error, Some(NO_SUCH_PATH));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A request that is for another host, as far as its `Host` tells.
pub fn other_host() -> Response {
    let what = "this listener does not answer for the host of the request; see http.allowed_hosts \
                and admin.allowed_hosts";
    let error = Error::new(ErrorKind::InvalidRequest, what);
    let mut response = respond(&error, Some("other_host"));
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response
}

/// A request that the page of another site sends, by the browser's word.
pub fn another_site() -> Response {
    let what = "a page of another site can't change anything here";
    respond(
        &Error::new(ErrorKind::PermissionDenied, what),
        Some("another_site"),
    )
}

/// An error as JSON, with its kind in a header as well.
pub fn failed(error: &Error) -> Response {
    respond(error, None)
}

fn respond(error: &Error, reason: Option<&str>) -> Response {
    let kind = error.kind();
    let mut body = serde_json::json!({ "error": kind.name(), "message": error.message() });
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    let mut response = (codes(kind).1, format!("{body}\n")).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(KIND_HEADER, HeaderValue::from_static(kind.name()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if kind == ErrorKind::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
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
