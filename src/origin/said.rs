//! What an HTTP origin says of a value, as far as it is kept. `docs/http.md` lists the cases.
//!
//! What contradicts itself or can't be read is worth nothing, and must not reach a client. Only
//! what would change the meaning of the value fails the load.

use gaocache_core::{
    error::{Error, Result},
    metadata::{Metadata, is_entity_tag},
};
use reqwest::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};

use super::cache_control;

/// Of a whole response; `keep` are the group's own.
///
/// # Errors
/// As [`Metadata::new`], and [`OriginFailed`](gaocache_core::ErrorKind::OriginFailed) for a
/// `Content-Encoding` that can't be read.
pub(super) fn of_value(headers: &HeaderMap, keep: &[HeaderName]) -> Result<Metadata> {
    let mut said = Vec::new();
    let mut single = |name: &'static str, is_valid: fn(&str) -> bool| {
        let valid = only(headers, name).filter(|it| is_valid(it));
        said.extend(valid.map(|it| (name, it)));
    };
    single("content-type", |_| true);
    single("etag", is_entity_tag);
    single("last-modified", is_date);
    said.extend(encodings(headers)?);
    said.extend(lines(headers, "content-language"));
    said.extend(kept(headers, keep));
    whole(said, headers)
}

/// Of a 404: what its body is.
///
/// # Errors
/// As [`of_value`].
pub(super) fn of_absence(headers: &HeaderMap) -> Result<Metadata> {
    let mut said = Vec::new();
    said.extend(only(headers, "content-type").map(|it| ("content-type", it)));
    said.extend(encodings(headers)?);
    said.extend(lines(headers, "content-language"));
    Metadata::new(said)
}

/// Of a 304: what may have changed of a value that has not. Its type and encoding have not, nor has
/// the tag that it was asked for by.
///
/// # Errors
/// As [`Metadata::new`].
pub(super) fn of_unchanged(headers: &HeaderMap, keep: &[HeaderName]) -> Result<Metadata> {
    let modified = only(headers, "last-modified").filter(|it| is_date(it));
    let modified = modified.map(|it| ("last-modified", it));
    whole(modified.into_iter().chain(kept(headers, keep)), headers)
}

/// Without one of them, the bytes would mean something else.
fn encodings(headers: &HeaderMap) -> Result<Vec<(&'static str, &str)>> {
    let read = headers.get_all("content-encoding").iter().map(|value| {
        let read = text(value).map(|it| ("content-encoding", it));
        read.ok_or_else(|| {
            Error::origin_failed("the origin's Content-Encoding is not a valid header")
        })
    });
    read.collect()
}

/// The tags of a value: `Cache-Tag`, divided by commas, and `Surrogate-Key`, divided by spaces.
/// `None` if they can't all be kept: then the value can't be either, since a purge would miss it.
pub(super) fn tagged(said: &Metadata, headers: &HeaderMap) -> Option<Metadata> {
    let all = |name: &str| -> Option<Vec<&str>> {
        let values = headers.get_all(name).iter();
        values.map(text).collect()
    };
    let (by_comma, by_space) = (all("cache-tag")?, all("surrogate-key")?);
    let by_comma = by_comma.iter().flat_map(|it| it.split(','));
    let by_space = by_space.iter().flat_map(|it| it.split([' ', '\t']));
    let tags = by_comma
        .chain(by_space)
        .map(|it| it.trim_matches([' ', '\t']));
    said.with_tags(tags.filter(|it| !it.is_empty())).ok()
}

/// Whether a 304 is about another value than the one that was named.
pub(super) fn is_of_another(headers: &HeaderMap, named: &Metadata) -> bool {
    let opaque = |tag: &str| tag.trim_start_matches("W/").to_owned();
    match (only(headers, "etag"), named.get("etag")) {
        (Some(said), Some(named)) => opaque(said) != opaque(named),
        _ => false,
    }
}

fn whole<'a>(
    said: impl IntoIterator<Item = (&'a str, &'a str)>,
    headers: &HeaderMap,
) -> Result<Metadata> {
    Ok(Metadata::new(said)?.with_age(cache_control::age(headers)))
}

/// A header that may be there only once. If it is there with several values, none counts.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.all(|it| it == first).then(|| text(first)).flatten()
}

fn kept<'a>(
    headers: &'a HeaderMap,
    keep: &'a [HeaderName],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    // The origin may say that a header concerns the connection alone (RFC 9110, 7.6.1).
    let is_for_connection = |name: &HeaderName| {
        let named = headers.get_all(CONNECTION).iter().filter_map(text);
        let mut named = named.flat_map(|it| it.split(','));
        named.any(|it| it.trim().eq_ignore_ascii_case(name.as_str()))
    };
    keep.iter()
        .filter(move |name| !is_for_connection(name))
        .flat_map(|name| lines(headers, name.as_str()))
}

fn lines<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let values = headers.get_all(name).iter().filter_map(text);
    values.map(move |value| (name, value))
}

fn text(value: &HeaderValue) -> Option<&str> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    let is_clean = |it: char| !it.is_control() || it == '\t';
    text.chars().all(is_clean).then_some(text)
}

fn is_date(text: &str) -> bool {
    httpdate::parse_http_date(text).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gaocache_core::{error::ErrorKind, ports::Timestamp};
    use reqwest::header::CACHE_CONTROL;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(
                *name,
                HeaderValue::from_bytes(value.as_bytes()).expect("valid"),
            );
        }
        headers
    }

    fn of(given: &[(&'static str, &'static str)], keep: &[HeaderName]) -> Vec<(String, String)> {
        let said = of_value(&headers(given), keep).expect("fits");
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        said.iter().map(owned).collect()
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        wanted.iter().map(owned).collect()
    }

    #[test]
    fn what_is_kept_is_what_says_what_the_value_is_and_what_the_group_names() {
        let said = [
            ("content-type", "text/html"),
            ("etag", "W/\"1\""),
            ("last-modified", DATE),
            ("content-encoding", "x-unheard-of"),
            ("content-language", "de, en"),
        ];
        let other = [
            ("x-kept", "a"),
            ("cache-control", "max-age=5"),
            ("x-other", "b"),
        ];
        let all = [&said[..], &other].concat();
        assert_eq!(of(&all, &[]), pairs(&said));
        let keep = [HeaderName::from_static("x-kept"), CACHE_CONTROL];
        assert_eq!(of(&all, &keep)[5..], pairs(&other[..2]));
    }

    #[test]
    fn what_contradicts_itself_or_is_not_valid_is_not_kept() {
        for (given, wanted) in [
            (
                vec![
                    ("content-type", "text/html"),
                    ("content-type", "text/plain"),
                ],
                vec![],
            ),
            (vec![("etag", "\"1\""), ("etag", "\"2\"")], vec![]),
            (
                vec![("etag", "\"1\""), ("etag", "\"1\"")],
                vec![("etag", "\"1\"")],
            ),
            (vec![("etag", "no-quotes")], vec![]),
            (vec![("etag", "w/\"1\"")], vec![]),
            (vec![("last-modified", "yesterday")], vec![]),
            (
                vec![("last-modified", DATE), ("last-modified", "never")],
                vec![],
            ),
        ] {
            assert_eq!(of(&given, &[]), pairs(&wanted), "{given:?}");
        }
        let x = HeaderName::from_static("x-kept");
        let hop = [("x-kept", "a"), ("connection", "close, X-Kept")];
        assert_eq!(of(&hop, std::slice::from_ref(&x)), []);
        let mut odd = headers(&[]);
        odd.append("x-kept", HeaderValue::from_bytes(b"\xff").expect("a value"));
        assert!(of_value(&odd, &[x]).expect("left out").is_empty());
        odd.append(
            "content-encoding",
            HeaderValue::from_bytes(b"\xff").expect("a value"),
        );
        let error = of_value(&odd, &[]).expect_err("what is it?");
        assert_eq!(error.kind(), ErrorKind::OriginFailed);
    }

    #[test]
    fn tags_are_read_from_either_header_and_all_of_them_or_none() {
        let tags = |given: &[(&'static str, &'static str)]| {
            let said = tagged(&Metadata::NONE, &headers(given))?;
            Some(said.tags().count())
        };
        assert_eq!(tags(&[]), Some(0));
        let both = [
            ("cache-tag", "a, b,,"),
            ("cache-tag", "c"),
            ("surrogate-key", " d  a "),
        ];
        assert_eq!(tags(&both), Some(4));
        let said = tagged(&Metadata::NONE, &headers(&both)).expect("good");
        assert!(["a", "b", "c", "d"].iter().all(|it| said.has_tag(it)));
        assert_eq!(tags(&[("cache-tag", "two words")]), None);
        assert_eq!(tags(&[("cache-tag", "\u{e4}")]), Some(1));
        let numbers = |count: usize| (0..count).map(|it| format!("{it} ")).collect::<String>();
        for (count, read) in [(64, Some(64)), (65, None), (10_000, None)] {
            let mut many = HeaderMap::new();
            let value = HeaderValue::from_str(&numbers(count)).expect("valid");
            many.insert("surrogate-key", value);
            let tags = tagged(&Metadata::NONE, &many).map(|it| it.tags().count());
            assert_eq!(tags, read, "{count}");
        }
        let mut odd = HeaderMap::new();
        odd.insert(
            "cache-tag",
            HeaderValue::from_bytes(b"a,\xff").expect("a value"),
        );
        assert_eq!(tagged(&Metadata::NONE, &odd), None);
    }

    #[test]
    fn more_than_may_be_kept_fails_the_load() {
        let mut long = HeaderMap::new();
        let value = HeaderValue::from_str(&"v".repeat(3000)).expect("valid");
        long.insert("x-kept", value);
        assert!(of_value(&long, &[]).expect("not kept").is_empty());
        let error = of_value(&long, &[HeaderName::from_static("x-kept")]);
        assert_eq!(
            error.expect_err("too much").kind(),
            ErrorKind::ValueTooLarge
        );
    }

    #[test]
    fn an_unchanged_value_keeps_its_type_and_its_tag() {
        let given = [("content-type", "x/y"), ("etag", "W/\"1\""), ("age", "7")];
        let given = [
            &given[..],
            &[("last-modified", DATE), ("cache-control", "a")],
        ]
        .concat();
        let said = of_unchanged(&headers(&given), &[CACHE_CONTROL]).expect("fits");
        let names: Vec<&str> = said.iter().map(|it| it.0).collect();
        assert_eq!(names, ["last-modified", "cache-control"]);
        assert_eq!(said.age(Timestamp(0)), Some(Duration::from_secs(7)));
        let named = |tag| Metadata::new([("etag", tag)]).expect("a tag");
        assert!(!is_of_another(&headers(&given), &named("\"1\"")));
        assert!(is_of_another(&headers(&given), &named("\"2\"")));
        assert!(!is_of_another(&headers(&[]), &named("\"2\"")));
    }
}
