//! Conditions of a request (RFC 9110, 13), as a cache evaluates them.
//!
//! `If-Match` and `If-Unmodified-Since` are not looked at, which is a cache's right: they guard
//! changes at the origin.

use axum::http::{
    HeaderMap, HeaderValue,
    header::{IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE},
};

/// What identifies the value that there is.
pub(super) struct Validators<'a> {
    pub(super) tag: &'a str,
    pub(super) modified: Option<&'a str>,
}

/// Whether the client has this value.
pub(super) fn is_unchanged(request: &HeaderMap, there: &Validators<'_>) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        return matches_any(request, there.tag);
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let since = only(request.get_all(IF_MODIFIED_SINCE).iter()).and_then(date);
    let modified = there.modified.and_then(date);
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// Whether a part of the value may be sent: if the client has other parts, they must be of the very
/// same value (RFC 9110, 13.1.5).
///
/// A date is never good enough: whether the value changed twice within its second is not known. And
/// each value has a tag.
pub(super) fn may_be_part(request: &HeaderMap, there: &Validators<'_>) -> bool {
    let mut given = request.get_all(IF_RANGE).iter().peekable();
    if given.peek().is_none() {
        return true;
    }
    only(given).is_some_and(|tag| tag == there.tag && !is_weak(tag))
}

fn is_weak(tag: &str) -> bool {
    tag.starts_with("W/")
}

fn only<'a>(mut values: impl Iterator<Item = &'a HeaderValue>) -> Option<&'a str> {
    let first = values.next()?;
    let text = first.to_str().ok()?;
    values.next().is_none().then(|| text.trim())
}

/// Compares `If-None-Match` with the tag, by weak comparison (RFC 9110, 13.1.2).
fn matches_any(request: &HeaderMap, tag: &str) -> bool {
    let opaque = tag.trim_start_matches("W/");
    request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|list| list.trim() == "*" || tags(list).any(|it| it == opaque))
}

/// The tags of a list, without what makes them weak. A tag may have commas in it.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let start = rest.find('"')?;
        let length = rest[start + 1..].find('"')? + 2;
        let tag = &rest[start..start + length];
        rest = &rest[start + length..];
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn there(tag: &str) -> Validators<'_> {
        Validators {
            tag,
            modified: Some(NOW),
        }
    }

    #[test]
    fn a_validator_is_compared_as_the_standard_says() {
        let matches = |value, tag| is_unchanged(&headers(&[("if-none-match", value)]), &there(tag));
        for yes in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*", "\"0\",W/\"1\""] {
            assert!(matches(yes, "\"1\""), "{yes}");
            assert!(matches(yes, "W/\"1\""), "{yes}");
        }
        for no in ["\"2\"", "1", "", "\"1", "\"1, 2\"", "w"] {
            assert!(!matches(no, "\"1\""), "{no}");
        }
        assert!(matches("\"0\", \"a, b\"", "\"a, b\""), "a comma in a tag");
        assert!(!is_unchanged(&HeaderMap::new(), &there("\"1\"")));
    }

    #[test]
    fn a_date_counts_only_without_a_tag_and_where_the_origin_gave_one() {
        let since = |value| [("if-modified-since", value)];
        let is = |given: &[_]| is_unchanged(&headers(given), &there("\"1\""));
        assert!(is(&since(NOW)) && is(&since(AFTER)));
        assert!(!is(&since(BEFORE)));
        for odd in ["now", "", "1994"] {
            assert!(!is(&since(odd)), "{odd}");
        }
        assert!(!is(&[since(AFTER)[0], since(AFTER)[0]]), "twice");
        assert!(!is(&[since(AFTER)[0], ("if-none-match", "\"2\"")]));
        let undated = Validators {
            tag: "\"1\"",
            modified: None,
        };
        assert!(!is_unchanged(&headers(&since(AFTER)), &undated));
    }

    #[test]
    fn a_part_is_sent_only_to_who_has_parts_of_the_same_value() {
        let may = |given: &[_], tag| may_be_part(&headers(given), &there(tag));
        assert!(may(&[], "\"1\""));
        assert!(may(&[("if-range", "\"1\"")], "\"1\""));
        assert!(!may(&[("if-range", "\"2\"")], "\"1\""));
        assert!(!may(&[("if-range", "W/\"1\"")], "W/\"1\""), "weak");
        assert!(!may(&[("if-range", "W/\"1\"")], "\"1\""));
        assert!(!may(&[("if-range", NOW)], "\"1\""), "a date");
        let twice = [("if-range", "\"1\""), ("if-range", "\"1\"")];
        assert!(!may(&twice, "\"1\""));
    }
}
