//! `Cache-Status` (RFC 9211): how the cache came to its answer. All nodes together are one cache.

use std::fmt::Write;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use gaocache_core::{
    error::ErrorKind,
    group::{Answer, Source},
    ports::Timestamp,
};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// As the cache calls itself.
const NAME: &str = "gaocache";

/// How it came to a value.
pub(super) fn tell(headers: &mut HeaderMap, answer: &Answer, now: Timestamp) {
    let mut status = NAME.to_owned();
    let asked = if answer.course.stale {
        "; fwd=stale"
    } else {
        "; fwd=miss"
    };
    status.push_str(match answer.source {
        Source::Origin => asked,
        Source::Stale if answer.course.stale => asked,
        _ => "; hit",
    });
    if answer.source == Source::Origin && answer.course.collapsed {
        status.push_str("; collapsed");
    }
    // Of a stale value it is not known everywhere for how long its life has been over.
    if answer.source != Source::Stale && answer.expires_at != Timestamp::NEVER {
        let left = answer.expires_at.since(now).as_secs();
        let _ = write!(status, "; ttl={left}");
    }
    match answer.source {
        Source::Stale => status.push_str("; detail=stale"),
        Source::Peer => status.push_str("; detail=peer"),
        _ => {}
    }
    insert(headers, status);
}

/// Why there is no value.
pub(super) fn tell_error(headers: &mut HeaderMap, kind: ErrorKind) {
    insert(headers, format!("{NAME}; detail={}", kind.name()));
}

fn insert(headers: &mut HeaderMap, status: String) {
    if let Ok(status) = HeaderValue::try_from(status) {
        headers.insert(CACHE_STATUS, status);
    }
}

#[cfg(test)]
mod tests {
    use gaocache_core::{group::Course, metadata::Metadata};

    use super::*;

    #[test]
    fn each_way_to_an_answer_is_told() {
        let of = |source, collapsed, stale, expires_at| {
            let answer = Answer {
                value: "v".into(),
                expires_at,
                entity_tag: 1,
                source,
                owner: "n".into(),
                metadata: Metadata::NONE,
                course: Course { collapsed, stale },
            };
            let mut headers = HeaderMap::new();
            tell(&mut headers, &answer, Timestamp(1_000));
            headers[CACHE_STATUS].to_str().expect("ASCII").to_owned()
        };
        let (end, never) = (Timestamp(31_999), Timestamp::NEVER);
        for (source, collapsed, stale, end, wanted) in [
            (Source::Hit, false, false, end, "hit; ttl=30"),
            (Source::Hit, false, false, never, "hit"),
            (Source::Peer, true, false, end, "hit; ttl=30; detail=peer"),
            (Source::Origin, false, false, end, "fwd=miss; ttl=30"),
            (
                Source::Origin,
                true,
                false,
                end,
                "fwd=miss; collapsed; ttl=30",
            ),
            (Source::Origin, false, true, end, "fwd=stale; ttl=30"),
            (
                Source::Stale,
                false,
                false,
                Timestamp(0),
                "hit; detail=stale",
            ),
            (
                Source::Stale,
                true,
                true,
                Timestamp(0),
                "fwd=stale; detail=stale",
            ),
        ] {
            let told = of(source, collapsed, stale, end);
            assert_eq!(told, format!("gaocache; {wanted}"), "{source:?}");
        }
    }
}
