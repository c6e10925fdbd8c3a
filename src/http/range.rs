//! `Range` (RFC 9110, 14.2): one part of a value, in bytes.
//!
//! An invalid range, or more than one, is answered with the whole value, as the standard
//! allows: many small ranges cost more than they are worth.

use std::ops::Range;

use axum::http::{HeaderMap, header::RANGE};
use bytes::Bytes;

/// What part of a value a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// All of it.
    Whole,
    /// These bytes of it; never none.
    Part(Range<usize>),
    /// Bytes that it doesn't have.
    Beyond,
}

/// The part that a request wants of a value of so many bytes.
pub(super) fn asked(request: &HeaderMap, length: usize) -> Asked {
    let mut given = request.get_all(RANGE).iter();
    let (Some(range), None) = (given.next(), given.next()) else {
        return Asked::Whole;
    };
    let range = range.to_str().ok().and_then(|it| it.split_once('='));
    match range {
        Some((unit, range)) if unit.trim().eq_ignore_ascii_case("bytes") => {
            one(range.trim(), length).unwrap_or(Asked::Whole)
        }
        _ => Asked::Whole,
    }
}

/// `None` if it is not exactly one range.
fn one(range: &str, length: usize) -> Option<Asked> {
    let (first, last) = range.split_once('-')?;
    if first.is_empty() {
        return Some(match (number(last)?, length) {
            (0, _) => Asked::Beyond,
            // The last bytes of nothing are all there is, and no range can say so.
            (_, 0) => Asked::Whole,
            (last, length) => Asked::Part(length.saturating_sub(last)..length),
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() {
        usize::MAX
    } else {
        number(last)?
    };
    if last < first {
        return None;
    }
    Some(if first < length {
        Asked::Part(first..last.saturating_add(1).min(length))
    } else {
        Asked::Beyond
    })
}

/// Digits alone; too many of them are more than any value has.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// That part of the value. A small part is copied: it would pin all of a value that the store has
/// long forgotten, for as long as the client takes to read it.
pub(super) fn cut(value: &Bytes, part: Range<usize>) -> Bytes {
    if part.len() < value.len() / 2 {
        Bytes::copy_from_slice(&value[part])
    } else {
        value.slice(part)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(range: &'static str, length: usize) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static(range));
        asked(&headers, length)
    }

    #[test]
    fn one_range_is_a_part_or_beyond_the_end() {
        for (range, wanted) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-4", Asked::Part(2..5)),
            ("Bytes = 2-4", Asked::Part(2..5)),
            ("bytes=8-", Asked::Part(8..10)),
            ("bytes=8-99", Asked::Part(8..10)),
            ("bytes=0-18446744073709551615", Asked::Part(0..10)),
            ("bytes=0-99999999999999999999999", Asked::Part(0..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=99999999999999999999999-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
        ] {
            assert_eq!(of(range, 10), wanted, "{range}");
        }
        assert_eq!(of("bytes=0-", 0), Asked::Beyond);
        assert_eq!(of("bytes=-1", 0), Asked::Whole);
    }

    #[test]
    fn what_is_not_one_range_is_answered_with_all() {
        for range in [
            "bytes=0-1,3-4",
            "bytes=0-1, 3-4",
            "bytes=4-2",
            "bytes=a-b",
            "bytes=1",
            "bytes=-",
            "bytes=+1-2",
            "bytes=--1",
            "bytes",
            "",
            "items=0-1",
        ] {
            assert_eq!(of(range, 10), Asked::Whole, "{range}");
        }
        let mut twice = HeaderMap::new();
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        twice.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(asked(&twice, 10), Asked::Whole);
        assert_eq!(asked(&HeaderMap::new(), 10), Asked::Whole);
    }

    #[test]
    fn a_small_part_does_not_pin_the_value() {
        let value = Bytes::from(vec![7; 1000]);
        let part = cut(&value, 10..20);
        assert_eq!(part, value[10..20]);
        assert!(value.is_unique(), "pinned");
        let large = cut(&value, 0..900);
        assert_eq!(large.as_ptr(), value.as_ptr(), "copied");
    }
}
