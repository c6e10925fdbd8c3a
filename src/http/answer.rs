//! A value as a response: with what its origin said of it, and what this node says of its life.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE,
            CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};

use super::{
    cache_status,
    conditional::{self, Validators},
    form::Form,
    range::{self, Asked},
};
use crate::status;
use gaocache_core::{
    absence::NotFoundBody,
    error::Error,
    group::{Answer, Source},
    ports::Timestamp,
};

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_CACHE_OWNER: HeaderName = HeaderName::from_static("x-cache-owner");

/// The response to a request that has these headers.
pub(super) fn found(
    answer: Answer,
    form: Form,
    method: &Method,
    request: &HeaderMap,
    now: Timestamp,
) -> Response {
    let own_tag;
    let tag = match answer.metadata.get("etag") {
        Some(tag) => tag,
        None => {
            own_tag = format!("\"{:016x}\"", answer.entity_tag);
            &own_tag
        }
    };
    let tag = form.tag(tag);
    let validators = Validators {
        tag: &tag,
        modified: answer.metadata.get("last-modified"),
    };
    let mut headers = HeaderMap::with_capacity(8);
    tell_life(&mut headers, &answer, now);
    set(&mut headers, ETAG, &tag);
    if form != Form::AsLoaded {
        set(&mut headers, VARY, "accept-encoding");
    }
    if let Some(modified) = validators.modified {
        set(&mut headers, LAST_MODIFIED, modified);
    }
    headers.insert(X_CACHE, HeaderValue::from_static(answer.source.name()));
    set(&mut headers, X_CACHE_OWNER, &answer.owner);
    cache_status::tell(&mut headers, &answer, now);
    let unchanged = conditional::is_unchanged(request, &validators);
    tell_metadata(&mut headers, &answer, unchanged);
    if form == Form::Compressed && !unchanged {
        set(&mut headers, CONTENT_ENCODING, "zstd");
    }
    if unchanged {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let asked = match *method {
        Method::GET if conditional::may_be_part(request, &validators) => {
            range::asked(request, answer.value.len())
        }
        _ => Asked::Whole,
    };
    match asked {
        Asked::Whole => (headers, Body::from(answer.value)).into_response(),
        Asked::Part(part) => {
            let whole = answer.value.len();
            let told = format!("bytes {}-{}/{whole}", part.start, part.end - 1);
            set(&mut headers, CONTENT_RANGE, &told);
            let body = Body::from(range::cut(&answer.value, part));
            (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
        }
        Asked::Beyond => {
            let told = format!("bytes */{}", answer.value.len());
            set(&mut headers, CONTENT_RANGE, &told);
            // They are about the value, which this is not.
            for about in ["content-type", "content-encoding", "content-language"] {
                headers.remove(about);
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response()
        }
    }
}

/// The response to a request that failed. If the origin said something in place of a value, that is
/// what the client gets.
pub(super) fn failed(error: &Error) -> Response {
    let mut response = status::http::failed(error);
    if let Some(body) = NotFoundBody::of(error) {
        let headers = response.headers_mut();
        headers.remove(CONTENT_TYPE);
        for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE] {
            let said = body.metadata().iter().filter(|it| it.0 == name.as_str());
            for value in said.filter_map(|it| HeaderValue::from_bytes(it.1.as_bytes()).ok()) {
                headers.append(&name, value);
            }
        }
        if !headers.contains_key(CONTENT_TYPE) {
            set(headers, CONTENT_TYPE, "application/octet-stream");
        }
        set(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
        *response.body_mut() = Body::from(body.bytes().clone());
    }
    response
}

/// Whatever a header can't hold is left out.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// How long the client may keep it: as the origin says, with the time that has passed since, where
/// the group passes that on; else what is left of its life here. A stale value has nothing left.
fn tell_life(headers: &mut HeaderMap, answer: &Answer, now: Timestamp) {
    let age = answer.metadata.age(now);
    match age.filter(|_| answer.source != Source::Stale) {
        Some(age) => set(headers, AGE, &age.as_secs().to_string()),
        None if answer.expires_at != Timestamp::NEVER => {
            // Rounded down, so that it never exceeds the remaining time.
            let left = answer.expires_at.since(now).as_secs();
            set(headers, CACHE_CONTROL, &format!("max-age={left}"));
        }
        None => {}
    }
}

/// The rest of what the origin said. Without the value, what says what its bytes are is left out.
fn tell_metadata(headers: &mut HeaderMap, answer: &Answer, unchanged: bool) {
    let is_told = |name: &str| match name {
        "etag" | "last-modified" => false,
        "cache-control" => headers.contains_key(AGE),
        "content-type" | "content-encoding" | "content-language" => !unchanged,
        _ => true,
    };
    let told: Vec<_> = answer.metadata.iter().filter(|it| is_told(it.0)).collect();
    for (name, value) in told {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if !unchanged && !headers.contains_key(CONTENT_TYPE) {
        let bytes = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::header::{CACHE_STATUS, IF_NONE_MATCH, RANGE};
    use bytes::Bytes;
    use gaocache_core::{group::Course, metadata::Metadata};

    use super::*;

    fn answer(said: &[(&str, &str)]) -> Answer {
        let metadata = Metadata::new(said.iter().copied()).expect("good");
        Answer {
            value: Bytes::from_static(b"0123456789"),
            expires_at: Timestamp(61_999),
            entity_tag: 0xab,
            source: Source::Hit,
            owner: "n0".into(),
            metadata: metadata.with_age(Duration::from_secs(5)),
            course: Course::default(),
        }
    }

    fn get(answer: Answer, request: &[(HeaderName, &'static str)]) -> Response {
        let mut headers = HeaderMap::new();
        for (name, value) in request {
            headers.append(name, HeaderValue::from_static(value));
        }
        found(
            answer,
            Form::AsLoaded,
            &Method::GET,
            &headers,
            Timestamp(2_000),
        )
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        let value = response.headers().get(name)?;
        Some(value.to_str().expect("ASCII"))
    }

    #[test]
    fn a_value_of_which_nothing_was_said_is_bytes_with_a_tag_of_our_own() {
        let response = get(answer(&[]), &[]);
        for (name, value) in [
            ("etag", Some("\"00000000000000ab\"")),
            ("content-type", Some("application/octet-stream")),
            ("cache-control", Some("max-age=59")),
            ("age", None),
            ("last-modified", None),
            ("accept-ranges", Some("bytes")),
            ("x-content-type-options", Some("nosniff")),
        ] {
            assert_eq!(header(&response, name), value, "{name}");
        }
    }

    #[test]
    fn the_origin_s_own_cache_control_goes_with_the_age_of_the_value() {
        let said = [
            ("cache-control", "max-age=600"),
            ("cache-control", "public"),
        ];
        let response = get(answer(&said), &[]);
        assert_eq!(header(&response, "age"), Some("7"));
        let told = response.headers().get_all(CACHE_CONTROL);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["max-age=600", "public"]);
        let mut stale = answer(&said);
        stale.source = Source::Stale;
        stale.expires_at = Timestamp(1_000);
        let response = get(stale, &[]);
        assert_eq!(header(&response, "cache-control"), Some("max-age=0"));
        assert_eq!(response.headers().get_all(CACHE_CONTROL).iter().count(), 1);
        assert_eq!(header(&response, "age"), None);
    }

    #[test]
    fn a_304_has_what_is_about_the_life_of_a_value_and_not_what_its_bytes_are() {
        let said = [("content-type", "a/b"), ("etag", "\"1\""), ("x-kept", "c")];
        let response = get(answer(&said), &[(IF_NONE_MATCH, "\"1\"")]);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        for (name, is_there) in [
            ("etag", true),
            ("cache-control", true),
            ("x-kept", true),
            ("content-type", false),
            ("accept-ranges", false),
        ] {
            assert_eq!(header(&response, name).is_some(), is_there, "{name}");
        }
        assert_eq!(response.headers()[CACHE_STATUS], "gaocache; hit; ttl=59");
    }

    #[test]
    fn what_is_beyond_the_end_is_told_without_the_type_of_the_value() {
        let response = get(answer(&[("content-type", "a/b")]), &[(RANGE, "bytes=10-")]);
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(header(&response, "content-range"), Some("bytes */10"));
        assert_eq!(header(&response, "content-type"), None);
    }

    #[test]
    fn a_head_has_no_part() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-1"));
        let response = found(
            answer(&[]),
            Form::AsLoaded,
            &Method::HEAD,
            &headers,
            Timestamp(0),
        );
        assert_eq!(response.status(), StatusCode::OK);
    }
}
