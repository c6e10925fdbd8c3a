//! What an HTTP origin's URL and headers may be. Used to validate the settings, and by the origin
//! for its requests.
//!
//! `{key}` is the key percent-encoded down to letters, digits and `-_~`. `{+key}` is its reserved
//! expansion (RFC 6570, 3.2.3), which leaves what divides URLs. Whatever the key, the URL must not
//! leave the place that the template's author gave it.

use std::collections::BTreeMap;

use gaocache_core::metadata;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use gaocache_core::error::{BoxError, Error, ErrorKind, Result};

const PLACEHOLDER: &str = "{key}";
const RESERVED_PLACEHOLDER: &str = "{+key}";

/// Everything except the unreserved characters of RFC 3986. `.` is escaped too, so that a key `..`
/// does not lead to the parent path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// The same without the reserved characters, except `#`: behind it, nothing would be sent.
const RESERVED_ESCAPED: &AsciiSet = &ESCAPED
    .remove(b'.')
    .remove(b':')
    .remove(b'/')
    .remove(b'?')
    .remove(b'[')
    .remove(b']')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, what.into())
}

fn wrong_because(what: &str, cause: impl Into<BoxError>) -> Error {
    let cause = cause.into();
    wrong(format!("{what}: {cause}")).with_source(cause)
}

/// An HTTP or HTTPS URL with `{key}` or `{+key}` in its path or query.
#[derive(Clone, Debug)]
pub struct UrlTemplate(String);

impl UrlTemplate {
    /// Checks that it can work.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]; the message says what is wrong.
    pub fn new(template: impl Into<String>) -> Result<Self> {
        let template = Self(template.into());
        if !template.0.contains(PLACEHOLDER) && !template.0.contains(RESERVED_PLACEHOLDER) {
            return Err(wrong(format!("must contain {PLACEHOLDER}")));
        }
        if has_dot_segment(&template.0) {
            return Err(wrong("must not contain the path segments . or .."));
        }
        let url = template.expand("key")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must start with http:// or https://"));
        }
        let other = template.expand("other")?;
        let moves = url.origin() != other.origin() || url.username() != other.username();
        if moves || divided(&template.0).0.contains('{') {
            return Err(wrong(format!(
                "{PLACEHOLDER} must be in the path or the query"
            )));
        }
        if url.fragment() != other.fragment() {
            return Err(wrong(format!(
                "{PLACEHOLDER} must not be in the fragment, which is never sent"
            )));
        }
        Ok(template)
    }

    /// The URL of a key.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a key that no URL can have.
    pub fn expand(&self, key: &str) -> Result<Url> {
        let escaped = utf8_percent_encode(key, ESCAPED).to_string();
        let url = self.0.replace(PLACEHOLDER, &escaped);
        let url = url.replace(RESERVED_PLACEHOLDER, &reserved(key));
        // They would be taken out together with the segment before them, escaped or not, and lead
        // elsewhere.
        if has_dot_segment(&url) {
            return Err(Error::not_found("no URL has such a key"));
        }
        Url::parse(&url).map_err(|error| wrong_because("the origin's URL", error))
    }
}

/// The reserved expansion of a key: what is percent-encoded in it already stays as it is.
fn reserved(key: &str) -> String {
    let mut expanded = String::with_capacity(key.len());
    let mut rest = key;
    while let Some((before, behind)) = rest.split_once('%') {
        expanded.extend(utf8_percent_encode(before, RESERVED_ESCAPED));
        let is_encoded = |it: &[u8]| it.iter().all(u8::is_ascii_hexdigit);
        let encoded = behind.as_bytes().get(..2).is_some_and(is_encoded);
        expanded.push_str(if encoded { "%" } else { "%25" });
        rest = behind;
    }
    expanded.extend(utf8_percent_encode(rest, RESERVED_ESCAPED));
    expanded
}

/// A URL up to its path, and its path.
fn divided(url: &str) -> (&str, &str) {
    let behind_scheme = url.find("://").map_or(0, |at| at + 3);
    let from = |at: usize, ends: &[char]| {
        let found = url[at..].find(ends);
        found.map_or(url.len(), |it| at + it)
    };
    let path = from(behind_scheme, &['/', '\\', '?', '#']);
    (&url[..path], &url[path..from(path, &['?', '#'])])
}

/// Whether its path has a segment `.` or `..`, also one that is percent-encoded (the URL standard
/// makes no difference).
fn has_dot_segment(url: &str) -> bool {
    let mut segments = divided(url).1.split(['/', '\\']);
    segments.any(|segment| {
        let segment: Vec<u8> = percent_decode_str(segment).collect();
        segment == b"." || segment == b".."
    })
}

/// Checks the names of headers that are to be kept.
///
/// # Errors
/// [`ErrorKind::Configuration`]; the message names the header that is wrong.
pub fn kept_headers(names: &[String]) -> Result<Vec<HeaderName>> {
    let checked = names.iter().map(|name| {
        if let Some(why) = metadata::why_not(&name.to_ascii_lowercase()) {
            return Err(wrong(format!("'{name}' {why}")));
        }
        let invalid = |error| wrong_because("not a header name", error);
        name.parse::<HeaderName>().map_err(invalid)
    });
    let mut checked = checked.collect::<Result<Vec<_>>>()?;
    // A second time, it would be kept twice.
    let mut seen = std::collections::HashSet::new();
    checked.retain(|name| !ALWAYS_KEPT.contains(&name.as_str()) && seen.insert(name.clone()));
    Ok(checked)
}

/// Kept whatever a group keeps beside them.
const ALWAYS_KEPT: [&str; 5] = [
    "content-type",
    "content-encoding",
    "content-language",
    "etag",
    "last-modified",
];

/// Checks the names and values of headers.
///
/// # Errors
/// [`ErrorKind::Configuration`]; the message names the header that is wrong.
pub fn headers(given: &BTreeMap<String, String>) -> Result<HeaderMap> {
    let mut checked = HeaderMap::new();
    for (name, value) in given {
        let header: HeaderName = name.parse().map_err(|error| {
            wrong(format!("'{name}' is not a valid header name")).with_source(error)
        })?;
        // A Secret that was made from a file ends with the file's last line break.
        let value = value.trim_end_matches(['\r', '\n']);
        let mut value: HeaderValue = value.parse().map_err(|error| {
            let what = match value.contains(['\r', '\n']) {
                true => "has a line break in it, which no header may have",
                false => "contains characters that are not allowed in a header",
            };
            wrong(format!("the value of '{name}' {what}")).with_source(error)
        })?;
        value.set_sensitive(true);
        checked.insert(header, value);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_key_can_t_escape_its_place_in_the_url() {
        let template = UrlTemplate::new("http://origin:8000/users/{key}?full=1").expect("good");
        for (key, path) in [
            ("42", "/users/42"),
            ("a/b", "/users/a%2Fb"),
            ("../admin", "/users/%2E%2E%2Fadmin"),
            ("..", ""),
            (".", ""),
            ("%2e.", "/users/%252e%2E"),
            ("x?y=1#z", "/users/x%3Fy%3D1%23z"),
            ("a b%2F", "/users/a%20b%252F"),
            ("ü\r\n", "/users/%C3%BC%0D%0A"),
        ] {
            match template.expand(key) {
                Ok(url) => {
                    assert_eq!(url.path(), path, "{key}");
                    assert_eq!(url.query(), Some("full=1"), "{key}");
                    assert_eq!(url.host_str(), Some("origin"), "{key}");
                }
                Err(_) => assert_eq!(path, "", "{key}"),
            }
        }
    }

    #[test]
    fn a_key_that_divides_its_url_stays_below_the_place_it_has() {
        let template = UrlTemplate::new("http://origin/files/{+key}").expect("good");
        for (key, url) in [
            ("a/b.txt", Some("/files/a/b.txt")),
            ("/etc//x", Some("/files//etc//x")),
            ("a?x=1&y=%2F", Some("/files/a?x=1&y=%2F")),
            ("a?x=../..", Some("/files/a?x=../..")),
            ("100%", Some("/files/100%25")),
            ("%zz%4", Some("/files/%25zz%254")),
            ("a#b", Some("/files/a%23b")),
            ("@evil/:80", Some("/files/@evil/:80")),
            ("a\\..\\b", Some("/files/a%5C..%5Cb")),
            ("ü \t\n", Some("/files/%C3%BC%20%09%0A")),
            ("..a/.b/c..", Some("/files/..a/.b/c..")),
            ("...", Some("/files/...")),
            ("..", None),
            ("../admin", None),
            ("a/../../admin", None),
            ("a/./b", None),
            ("a/..", None),
            ("%2e%2E/admin", None),
            ("a/.%2e", None),
            ("a/%2e/b", None),
            ("..?x", None),
        ] {
            let expanded = template.expand(key).ok();
            let expanded = expanded.map(|it| it.as_str()["http://origin".len()..].to_owned());
            assert_eq!(expanded.as_deref(), url, "{key}");
        }
        // Beside other text, one dot becomes two.
        for template in [
            "http://o/a/.{key}",
            "http://o/a/{key}./b",
            "http://o/a/.{+key}/b",
        ] {
            let template = UrlTemplate::new(template).expect("good");
            assert!(template.expand(".").is_err());
            assert!(template.expand("x").is_ok());
        }
    }

    #[test]
    fn only_what_belongs_to_a_value_can_be_kept_with_it() {
        let kept = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
            kept_headers(&names).map_err(|error| error.kind())
        };
        let names = ["Link", "link", "Cache-Control", "ETag"];
        assert_eq!(kept(&names).expect("good"), ["link", "cache-control"]);
        for name in [
            "Set-Cookie",
            "Connection",
            "content-length",
            "no name",
            "",
            "Age",
        ] {
            assert_eq!(kept(&[name]), Err(ErrorKind::Configuration), "{name}");
        }
    }

    #[test]
    fn templates_that_can_t_work_are_told() {
        assert!(UrlTemplate::new("https://o/{key}").is_ok());
        assert!(UrlTemplate::new("http://o/find?k={key}").is_ok());
        for wrong in [
            "http://o/",
            "ftp://o/{key}",
            "http://{key}/",
            "{key}",
            "http://o/#{key}",
            "http://u:{key}@o/",
            "http://u:{+key}@o/",
            "http://o{+key}",
            "http://o/a/../{key}",
            "http://o/%2E/{key}",
        ] {
            let error = UrlTemplate::new(wrong).expect_err(wrong);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_keeps_its_cause() {
        let error = UrlTemplate::new("http://[/{key}").expect_err("no URL");
        assert!(error.source().is_some(), "{error}");
        for (name, value) in [("no name", "v"), ("name", "a\nb")] {
            let error = headers(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
            let error = error.expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{name}");
            assert!(error.source().is_some(), "{name}");
        }
    }
}
