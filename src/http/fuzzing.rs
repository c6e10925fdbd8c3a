//! What fuzzing reaches of the HTTP listener: paths, queries, ranges and conditions.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, Uri},
    routing::get,
};
use parking_lot::Mutex;
use tower::ServiceExt;

pub use super::range::Asked;
use super::{
    conditional::{self, Validators},
    place::{GroupAndKey, group_and_key},
    range,
};
use gaocache_core::{error::Result, group::Query};

/// The group and the key of a request; `None` if its path is none of a value.
pub async fn place(uri: Uri, query: Query) -> Option<Result<(String, String)>> {
    let found = Arc::new(Mutex::new(None));
    let seen = found.clone();
    let handler = async move |path: GroupAndKey, uri: Uri| {
        *seen.lock() = Some(group_and_key(|_| Ok(query), path, &uri));
    };
    let router = Router::new().route("/v1/{group}/{*key}", get(handler));
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    let Ok(_) = router.oneshot(request).await;
    found.lock().take()
}

/// The part that a request wants of a value of so many bytes.
pub fn range(request: &HeaderMap, length: usize) -> Asked {
    range::asked(request, length)
}

/// Whether the client has the value with these validators, and whether it may be sent a part of it.
pub fn conditions(request: &HeaderMap, tag: &str, modified: Option<&str>) -> (bool, bool) {
    let there = Validators { tag, modified };
    (
        conditional::is_unchanged(request, &there),
        conditional::may_be_part(request, &there),
    )
}
