//! The HTTP listener: paths and queries, ranges and conditions.

use gaocache::{
    ErrorKind, Query,
    fuzzing::http::{Asked, conditions as judged, place, range},
};
use http::{HeaderMap, Uri};
use percent_encoding::percent_decode;

use crate::text;

/// The group and key of a path are what its percent-encoding says, and nothing else; a query never
/// gets lost. The first byte says what the group makes of a query.
pub fn paths(input: &[u8]) {
    let Some((rule, uri)) = input.split_first() else {
        return;
    };
    let Ok(uri) = Uri::try_from(uri) else {
        return;
    };
    let rule = [Query::Append, Query::Ignore, Query::Refuse][usize::from(rule % 3)];
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().expect("a runtime");
    let found = runtime.block_on(place(uri.clone(), rule));
    let parts = uri.path().strip_prefix("/v1/");
    let parts = parts.and_then(|it| it.split_once('/'));
    // A group of no name is one that nobody has.
    let parts = parts.filter(|(_, key)| !key.is_empty());
    let Some((group, key)) = parts else {
        assert!(found.is_none(), "no path of a value");
        return;
    };
    let decoded = |part: &str| {
        percent_decode(part.as_bytes())
            .decode_utf8()
            .ok()
            .map(String::from)
    };
    let expected = decoded(group).zip(decoded(key));
    let expected = match (expected, uri.query(), rule) {
        (Some(both), None, _) | (Some(both), Some(_), Query::Ignore) => Some(both),
        (Some((group, key)), Some(query), Query::Append) => Some((group, format!("{key}?{query}"))),
        (None, ..) | (_, Some(_), _) => None,
    };
    match (found.expect("a path of a value"), expected) {
        (Ok(both), Some(expected)) => assert_eq!(both, expected),
        (Err(error), None) => assert_eq!(error.kind(), ErrorKind::InvalidRequest),
        (found, expected) => panic!("{found:?} instead of {expected:?}"),
    }
}

/// The first line is the length of the value and its tag; the others are headers of a request.
pub fn conditions(input: &[u8]) {
    let (first, rest) = text::line(input);
    let first = String::from_utf8_lossy(first);
    let (length, tag) = first.split_once(' ').unwrap_or((&first, ""));
    let (length, request) = (length.parse().unwrap_or(10), text::headers(rest));
    parts(&request, length);
    let tag = if gaocache_core::metadata::is_entity_tag(tag) {
        tag
    } else {
        "\"a\""
    };
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let (unchanged, may_be_part) = judged(&request, tag, Some(modified));
    if let Some(expected) = matches(&request, tag) {
        assert_eq!(unchanged, expected, "{request:?} {tag}");
    }
    if !request.contains_key("if-none-match") {
        let mut since = request.get_all("if-modified-since").iter();
        let since = match (since.next(), since.next()) {
            (Some(only), None) => only.to_str().ok(),
            _ => None,
        };
        let since = since.and_then(|it| httpdate::parse_http_date(it.trim()).ok());
        let modified = httpdate::parse_http_date(modified).expect("a date");
        assert_eq!(unchanged, since.is_some_and(|since| since >= modified));
    }
    let given: Vec<_> = request.get_all("if-range").iter().collect();
    let same = |it: &[u8]| it.trim_ascii() == tag.as_bytes() && !tag.starts_with("W/");
    let expected = match given[..] {
        [] => true,
        // Of other characters than ASCII, none is sure to be the same.
        [one] => same(one.as_bytes()) && one.to_str().is_ok(),
        _ => false,
    };
    assert_eq!(may_be_part, expected);
}

/// A part lies within the value, and is the one that was asked for.
fn parts(request: &HeaderMap, length: usize) {
    let asked = range(request, length);
    let given: Vec<_> = request.get_all("range").iter().collect();
    let expected = match given[..] {
        [one] => one.to_str().ok().and_then(|it| part(it, length as u128)),
        _ => None,
    };
    match (asked, expected) {
        (Asked::Whole, None) => {}
        (Asked::Beyond, Some(Err(()))) => {}
        (Asked::Part(part), Some(Ok((first, last)))) => {
            assert!(!part.is_empty() && part.end <= length);
            assert_eq!((part.start as u128, part.end as u128 - 1), (first, last));
        }
        (asked, expected) => panic!("{asked:?} instead of {expected:?}"),
    }
}

/// The first and the last byte of a range (RFC 9110, 14.1.2); `Err` if it is beyond the value.
fn part(header: &str, length: u128) -> Option<Result<(u128, u128), ()>> {
    // A number of so many digits is beyond any value.
    let number = |digits: &str| match digits.bytes().all(|it| it.is_ascii_digit()) {
        true if digits.trim_start_matches('0').len() > 18 => Some(u128::MAX),
        true => digits.parse::<u128>().ok(),
        false => None,
    };
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first, last) {
        ("", suffix) => match number(suffix)? {
            0 => Some(Err(())),
            _ if length == 0 => None,
            suffix => Some(Ok((length - suffix.min(length), length - 1))),
        },
        (first, last) => {
            let first = number(first)?;
            let last = match last {
                "" => u128::MAX,
                last => number(last)?,
            };
            match () {
                () if last < first => None,
                () if first >= length => Some(Err(())),
                () => Some(Ok((first, last.min(length - 1)))),
            }
        }
    }
}

/// Whether `If-None-Match` names the tag; `None` where it breaks the grammar (RFC 9110, 13.1.2), so
/// that nothing can be said.
fn matches(request: &HeaderMap, tag: &str) -> Option<bool> {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    let mut found = None;
    for value in request.get_all("if-none-match") {
        let list = value.to_str().ok()?.trim();
        let found = found.get_or_insert(false);
        if list == "*" {
            *found = true;
            continue;
        }
        let mut rest = list;
        while !rest.is_empty() {
            let weak = rest.strip_prefix("W/").unwrap_or(rest);
            let end = weak.strip_prefix('"')?.find('"')? + 2;
            *found |= weak[..end] == opaque(tag);
            rest = weak[end..].trim_start();
            rest = match rest.strip_prefix(',') {
                Some(next) => next.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
    }
    found
}
