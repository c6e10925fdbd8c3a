//! An HTTP service as an origin.
//!
//! The key goes into the URL percent-encoded down to letters, digits and `-_~`, and `.` too where
//! it could make a `..`: whatever the key, the URL's path is what the template's author meant. The
//! body is bounded while it is read, since a length can lie.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue},
};

use crate::telemetry::trace;
use gaocache_core::{
    error::{BoxError, Error, ErrorKind, Result, with_causes},
    ports::{Freshness, Loaded, Origin},
};

const PLACEHOLDER: &str = "{key}";

/// All but the unreserved characters of RFC 3986 without `.`: a key of `..` must not become a step
/// up.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// First pause before a retry; it doubles, with jitter, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// How an HTTP origin is asked.
#[derive(Clone, Debug)]
pub struct HttpRules {
    /// URL with `{key}`; see [`check_template`].
    pub template: String,
    /// Bound on one attempt, body included.
    pub timeout: Duration,
    /// Further attempts after a failure that may pass.
    pub retries: usize,
    /// The largest body, in bytes.
    pub max_value: u64,
    /// Whether `Cache-Control` counts.
    pub honour_cache_control: bool,
    /// Sent with every request; see [`check_headers`].
    pub headers: BTreeMap<String, String>,
}

/// An HTTP service.
pub struct HttpOrigin {
    client: Client,
    rules: HttpRules,
}

impl HttpOrigin {
    /// An origin with a connection pool of its own.
    ///
    /// # Errors
    /// [`ErrorKind::OriginFailed`] if the rules can't work, with the reason.
    pub fn new(rules: HttpRules) -> Result<Self> {
        check_template(&rules.template).map_err(Error::origin_failed)?;
        let headers = check_headers(&rules.headers).map_err(Error::origin_failed)?;
        let client = Client::builder()
            .default_headers(headers)
            .tls_backend_preconfigured(tls_config()?)
            .user_agent(concat!("gaocache/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(rules.timeout)
            .timeout(rules.timeout)
            // A redirect could lead anywhere, with our headers; an origin answers itself.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::origin_failed(describe(&error)))?;
        Ok(Self { client, rules })
    }

    async fn attempt(&self, url: &Url) -> Result<Loaded> {
        let failed = |error: reqwest::Error| {
            let kind = if error.is_timeout() {
                ErrorKind::OriginTimeout
            } else {
                ErrorKind::OriginFailed
            };
            Error::new(kind, describe(&error))
        };
        let mut headers = HeaderMap::new();
        trace::hand_on(&mut headers);
        let request = self.client.get(url.clone()).headers(headers);
        let response = request.send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(Error::not_found("the origin has no such key"));
            }
            status => {
                return Err(Error::origin_failed(format!(
                    "the origin answered {status}"
                )));
            }
        }
        let freshness = if self.rules.honour_cache_control {
            freshness(response.headers())
        } else {
            Freshness::Unsaid
        };
        let value = self.body(response).await?;
        Ok(Loaded::from(value).with_freshness(freshness))
    }

    async fn body(&self, mut response: Response) -> Result<Bytes> {
        let max = self.rules.max_value;
        let too_large = || {
            Error::new(
                ErrorKind::ValueTooLarge,
                format!("the origin's value has more than {max} bytes (max_value)"),
            )
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > max {
            return Err(too_large());
        }
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > max => {
                    return Err(too_large());
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body.freeze()),
                Err(error) if error.is_timeout() => {
                    return Err(Error::new(ErrorKind::OriginTimeout, describe(&error)));
                }
                // Among them a body shorter than its announced length.
                Err(error) => return Err(Error::origin_failed(describe(&error))),
            }
        }
    }
}

#[async_trait]
impl Origin for HttpOrigin {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let url = expand(&self.rules.template, key)?;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LAST_PAUSE)
            .with_max_times(self.rules.retries)
            .with_jitter()
            .build();
        let loaded = (|| self.attempt(&url))
            .retry(pauses)
            // A time-out is not tried again: who waits has waited long enough, and the origin is
            // loaded enough.
            .when(|error| error.kind() == ErrorKind::OriginFailed)
            .await;
        Ok(loaded?)
    }
}

/// Checks that a URL template can work: HTTP or HTTPS, with `{key}` in its path or query.
///
/// # Errors
/// What is wrong, for people.
pub fn check_template(template: &str) -> Result<(), String> {
    if !template.contains(PLACEHOLDER) {
        return Err(format!("must contain {PLACEHOLDER}"));
    }
    let url = expand(template, "key").map_err(|error| error.message().to_owned())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with http:// or https://".into());
    }
    let other = expand(template, "other").map_err(|error| error.message().to_owned())?;
    if url.origin() != other.origin() || url.username() != other.username() {
        return Err(format!("{PLACEHOLDER} must stand in the path or the query"));
    }
    if url.fragment() != other.fragment() {
        return Err(format!("{PLACEHOLDER} in the fragment would never be sent"));
    }
    Ok(())
}

/// Checks names and values of headers.
///
/// # Errors
/// The name of the header that is wrong.
pub fn check_headers(headers: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let mut checked = HeaderMap::new();
    for (name, value) in headers {
        let header: HeaderName = name
            .parse()
            .map_err(|_| format!("'{name}' is no name of a header"))?;
        let mut value: HeaderValue = value.parse().map_err(|_| {
            format!("the value of '{name}' has characters that a header can't have")
        })?;
        value.set_sensitive(true);
        checked.insert(header, value);
    }
    Ok(checked)
}

fn expand(template: &str, key: &str) -> Result<Url> {
    let escaped = utf8_percent_encode(key, ESCAPED).to_string();
    // The URL standard takes `%2e%2e` for `..`, so encoding a dot is not enough: a segment of dots
    // alone can't be sent at all.
    if key == "." || key == ".." {
        return Err(Error::not_found("no URL has such a key"));
    }
    Url::parse(&template.replace(PLACEHOLDER, &escaped))
        .map_err(|error| Error::origin_failed(format!("the origin's URL: {error}")))
}

/// `Cache-Control` as a shared cache reads it (RFC 9111): `s-maxage` before `max-age`; what may not
/// be kept is not kept.
fn freshness(headers: &HeaderMap) -> Freshness {
    let mut max_age = None;
    let mut shared_max_age = None;
    let values = headers.get_all(CACHE_CONTROL).iter();
    for directive in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let seconds = || value.trim().trim_matches('"').parse::<u64>().ok();
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" | "private" => return Freshness::Uncacheable,
            "max-age" => max_age = seconds().or(max_age),
            "s-maxage" => shared_max_age = seconds().or(shared_max_age),
            _ => {}
        }
    }
    match shared_max_age.or(max_age) {
        Some(seconds) => Freshness::For(Duration::from_secs(seconds)),
        None => Freshness::Unsaid,
    }
}

/// The whole chain of causes, without the URL: it holds the key.
fn describe(error: &reqwest::Error) -> String {
    let text = if error.is_timeout() {
        "the origin did not answer in time"
    } else if error.is_connect() {
        "the origin can't be reached"
    } else {
        "the origin's answer is broken"
    };
    with_causes(text.to_owned(), error)
}

/// A client without timeouts of its own, for the command line.
///
/// # Errors
/// What keeps it from being made, for people.
pub fn plain_client() -> Result<Client, String> {
    let tls = tls_config().map_err(|error| error.to_string())?;
    let client = Client::builder().tls_backend_preconfigured(tls).build();
    client.map_err(|error| describe(&error))
}

fn tls_config() -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = rustls_native_certs::load_native_certs();
    let mut store = rustls::RootCertStore::empty();
    // A broken certificate among the system's is not a reason to trust none.
    store.add_parsable_certificates(roots.certs);
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::origin_failed(format!("TLS: {error}")))?;
    Ok(config.with_root_certificates(store).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_t_escape_its_place_in_the_url() {
        let template = "http://origin:8000/users/{key}?full=1";
        for (key, path) in [
            ("42", "/users/42"),
            ("a/b", "/users/a%2Fb"),
            ("../admin", "/users/%2E%2E%2Fadmin"),
            ("..", ""),
            ("x?y=1#z", "/users/x%3Fy%3D1%23z"),
            ("a b%2F", "/users/a%20b%252F"),
            ("ü\r\n", "/users/%C3%BC%0D%0A"),
        ] {
            match expand(template, key) {
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
        assert!(check_template("https://o/{key}").is_ok());
        assert!(check_template("http://o/find?k={key}").is_ok());
        for wrong in [
            "http://o/",
            "ftp://o/{key}",
            "http://{key}/",
            "{key}",
            "http://o/#{key}",
        ] {
            assert!(check_template(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cache_control_is_read_as_by_a_shared_cache() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            freshness(&headers)
        };
        let seconds = |n| Freshness::For(Duration::from_secs(n));
        assert_eq!(of("max-age=60"), seconds(60));
        assert_eq!(of("public, Max-Age=60, s-maxage=\"5\""), seconds(5));
        assert_eq!(of("max-age=60, no-store"), Freshness::Uncacheable);
        assert_eq!(of("private"), Freshness::Uncacheable);
        assert_eq!(of("max-age=soon"), Freshness::Unsaid);
        assert_eq!(freshness(&HeaderMap::new()), Freshness::Unsaid);
    }
}
