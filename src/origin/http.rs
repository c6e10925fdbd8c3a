//! An HTTP service as an origin. Its body is bounded while it is read, since a length can lie.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CACHE_CONTROL, HeaderMap},
};

use crate::{
    http_client::{
        self,
        template::{self, UrlTemplate},
    },
    telemetry::trace,
    traffic::{Budget, Charge},
};
use gaocache_core::{
    error::{BoxError, Error, ErrorKind, Result, with_causes},
    ports::{Freshness, Loaded, Origin},
};

/// The first delay before a retry. Delays double, with jitter, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// The parameters of an HTTP origin.
#[derive(Clone, Debug)]
pub struct HttpRules {
    /// URL with `{key}`; see [`UrlTemplate`].
    pub template: String,
    /// Time limit for one attempt, including the body.
    pub timeout: Duration,
    /// Further attempts after a transient failure.
    pub retries: usize,
    /// Maximum size of a body, in bytes.
    pub max_value: u64,
    /// Whether to honour `Cache-Control`.
    pub honour_cache_control: bool,
    /// Sent with every request; see [`template::headers`].
    pub headers: BTreeMap<String, String>,
    /// Counts bodies while they arrive, and until they are kept.
    pub budget: Arc<Budget>,
}

impl HttpRules {
    /// How long a load can take with all its attempts and the pauses between them.
    pub fn longest_load(&self) -> Duration {
        let attempts = u32::try_from(self.retries)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let pauses = (0..self.retries).map(|retry| {
            let doubled = u32::try_from(retry)
                .ok()
                .and_then(|it| 2u32.checked_pow(it));
            let pause = FIRST_PAUSE.saturating_mul(doubled.unwrap_or(u32::MAX));
            // Jitter makes it up to twice as long.
            pause.min(LAST_PAUSE) * 2
        });
        let attempts = self.timeout.saturating_mul(attempts);
        attempts.saturating_add(pauses.sum())
    }
}

/// An HTTP service.
pub struct HttpOrigin {
    client: Client,
    template: UrlTemplate,
    rules: HttpRules,
}

impl HttpOrigin {
    /// An origin with its own connection pool.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the rules can't work, with the reason.
    pub fn new(rules: HttpRules) -> Result<Self> {
        let template = UrlTemplate::new(rules.template.as_str())?;
        let client = http_client::builder()?
            .default_headers(template::headers(&rules.headers)?)
            .user_agent(concat!("gaocache/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(rules.timeout)
            .timeout(rules.timeout)
            // A redirect could send our headers to any host.
            .redirect(reqwest::redirect::Policy::none());
        Ok(Self {
            client: http_client::build(client)?,
            template,
            rules,
        })
    }

    async fn attempt(&self, url: &Url) -> Result<Loaded> {
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
            let what = format!("the origin's value is larger than {max} bytes (max_value)");
            Error::value_too_large(what, max)
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > max {
            return Err(too_large());
        }
        let mut charge = Charge::in_turn(&self.rules.budget, announced).await?;
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > max => {
                    return Err(too_large());
                }
                Ok(Some(chunk)) => {
                    body.extend_from_slice(&chunk);
                    charge.grow((body.capacity() as u64).saturating_sub(charge.bytes()))?;
                }
                Ok(None) => return Ok(charge.hold(body)),
                // This includes a body that is shorter than its announced length.
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

#[async_trait]
impl Origin for HttpOrigin {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let url = self.template.expand(key)?;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LAST_PAUSE)
            .with_max_times(self.rules.retries)
            .with_jitter()
            .build();
        let loaded = (|| self.attempt(&url))
            .retry(pauses)
            // No retry after a timeout: the callers have waited long enough, and the origin is busy
            // enough.
            .when(|error| error.kind() == ErrorKind::OriginFailed)
            .await;
        Ok(loaded?)
    }
}

/// Reads `Cache-Control` as a shared cache does (RFC 9111): `s-maxage` overrides `max-age`, and
/// what must not be stored is not stored.
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

/// The whole chain of causes, without the URL, because it contains the key.
fn failed(error: reqwest::Error) -> Error {
    let (kind, text) = if error.is_timeout() {
        let text = "the origin did not answer in time";
        (ErrorKind::OriginTimeout, text)
    } else if error.is_connect() {
        (ErrorKind::OriginFailed, "the origin can't be reached")
    } else {
        (ErrorKind::OriginFailed, "the origin's response is invalid")
    };
    let error = error.without_url();
    Error::new(kind, with_causes(text.to_owned(), &error)).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use reqwest::header::HeaderValue;

    use super::*;

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

    fn rules(template: &str) -> HttpRules {
        HttpRules {
            template: template.into(),
            timeout: Duration::from_secs(5),
            retries: 0,
            max_value: 1 << 20,
            honour_cache_control: false,
            headers: BTreeMap::new(),
            budget: Budget::new(1 << 20),
        }
    }

    #[tokio::test]
    async fn an_origin_away_may_come_back_and_a_wrong_url_may_not() {
        let error = HttpOrigin::new(rules("http://o/")).err();
        let error = error.expect("no place for the key");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!error.kind().retryable());
        let origin = HttpOrigin::new(rules("http://127.0.0.1:1/{key}")).expect("good rules");
        let error = origin.load("a key").await.expect_err("nobody listens");
        let error = Error::from_loader(error);
        assert_eq!(error.kind(), ErrorKind::OriginFailed);
        let cause = error.source().expect("a cause");
        assert!(cause.is::<reqwest::Error>());
        assert!(!format!("{error} {cause:?}").contains("key"), "{cause:?}");
    }

    #[test]
    fn a_load_may_take_all_its_attempts_and_the_pauses_between_them() {
        let mut rules = rules("http://o/{key}");
        assert_eq!(rules.longest_load().as_secs_f64(), 5.0);
        rules.retries = 2;
        assert_eq!(rules.longest_load().as_millis(), 15_000 + 2 * (20 + 40));
        rules.retries = 100;
        assert!(rules.longest_load().as_secs() < 101 * 5 + 100 * 4);
    }
}
