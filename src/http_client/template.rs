//! What an HTTP origin's URL and headers may be. The settings are checked with it, and the origin
//! asks by it.
//!
//! The key goes into the URL percent-encoded down to letters, digits and `-_~`, and `.` too where
//! it could make a `..`: whatever the key, the URL's path is what the template's author meant.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use gaocache_core::error::{BoxError, Error, ErrorKind, Result};

const PLACEHOLDER: &str = "{key}";

/// Everything except the unreserved characters of RFC 3986. `.` is escaped too, so that a key `..`
/// does not lead to the parent path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, what.into())
}

fn wrong_because(what: &str, cause: impl Into<BoxError>) -> Error {
    let cause = cause.into();
    wrong(format!("{what}: {cause}")).with_source(cause)
}

/// An HTTP or HTTPS URL with `{key}` in its path or query.
#[derive(Clone, Debug)]
pub struct UrlTemplate(String);

impl UrlTemplate {
    /// Checks that it can work.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]; the message says what is wrong.
    pub fn new(template: impl Into<String>) -> Result<Self> {
        let template = Self(template.into());
        if !template.0.contains(PLACEHOLDER) {
            return Err(wrong(format!("must contain {PLACEHOLDER}")));
        }
        let url = template.expand("key")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must start with http:// or https://"));
        }
        let other = template.expand("other")?;
        if url.origin() != other.origin() || url.username() != other.username() {
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
        // The URL standard treats `%2e%2e` like `..`, so escaping the dots is not enough. A segment
        // that consists only of dots can't be sent at all.
        if key == "." || key == ".." {
            return Err(Error::not_found("no URL has such a key"));
        }
        Url::parse(&self.0.replace(PLACEHOLDER, &escaped))
            .map_err(|error| wrong_because("the origin's URL", error))
    }
}

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
    fn templates_that_can_t_work_are_told() {
        assert!(UrlTemplate::new("https://o/{key}").is_ok());
        assert!(UrlTemplate::new("http://o/find?k={key}").is_ok());
        for wrong in [
            "http://o/",
            "ftp://o/{key}",
            "http://{key}/",
            "{key}",
            "http://o/#{key}",
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
