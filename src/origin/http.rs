//! An HTTP service as an origin. The body is bounded while it is read, because `Content-Length` may
//! be wrong; what is kept of the headers, before the body is read.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH},
};

use super::{
    attempt::{Again, FIRST_PAUSE, Failed, LAST_PAUSE, failed, unexpected},
    cache_control,
    pause::pause,
    said,
};
use crate::{
    http_client::{
        self, Proxies,
        template::{self, UrlTemplate},
    },
    telemetry::trace,
    tls::Followed,
    traffic::{Budget, Charge},
};
use gaocache_core::{
    absence::{MAX_NOT_FOUND_BODY, NotFoundBody},
    error::{BoxError, Error, Result},
    metadata::Metadata,
    ports::{Freshness, Loaded, Origin, Reloaded},
};

/// Connections that stay open for the next loads. Each one that has carried a large value holds a
/// read buffer of up to 400 KiB (hyper), so as many as there may be loads would be too many. This
/// is what the number of loads under way varies by, where some dozens are the average.
const MAX_IDLE_CONNECTIONS: usize = 8;
/// And for how long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The parameters of an HTTP origin.
#[derive(Clone, Debug)]
pub struct HttpRules {
    /// URL with `{key}`; see [`UrlTemplate`].
    pub template: String,
    /// Time limit for one attempt, including the body.
    pub timeout: Duration,
    /// Further attempts after a transient failure; see [`Again`].
    pub retries: usize,
    /// Maximum size of a body, in bytes.
    pub max_value: u64,
    /// Whether to honour `Cache-Control`.
    pub honour_cache_control: bool,
    /// Whether the body of a 404 is passed on.
    pub keep_not_found_body: bool,
    /// What is kept of a response in addition to what describes its body.
    pub keep_headers: Vec<HeaderName>,
    /// Sent with every request; see [`template::headers`].
    pub headers: BTreeMap<String, String>,
    /// Whether a proxy may be in between.
    pub proxies: Proxies,
    /// PEM file with the authorities that are trusted instead of the system's. A new content counts
    /// from the next load on; one that can't be used changes nothing.
    pub ca: Option<PathBuf>,
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
            // Jitter makes it up to twice as long, and `Retry-After` as long as the last.
            (pause.min(LAST_PAUSE) * 2).max(LAST_PAUSE)
        });
        let attempts = self.timeout.saturating_mul(attempts);
        attempts.saturating_add(pauses.sum())
    }
}

/// Has a connection pool of its own. One whose authorities were replaced ends with its last load.
enum Clients {
    /// Trusts the system's authorities.
    OfSystem(Client),
    /// Trusts those of a file.
    OfFile(Arc<Followed<Client, ()>>),
}

impl Clients {
    /// For a load that begins now.
    fn now(&self) -> Client {
        match self {
            Self::OfSystem(client) => client.clone(),
            Self::OfFile(followed) => Client::clone(&followed.now()),
        }
    }
}

fn client(rules: &HttpRules, headers: HeaderMap, authorities: Option<&[u8]>) -> Result<Client> {
    let client = http_client::trusting(authorities, rules.proxies)?
        .default_headers(headers)
        .user_agent(concat!("gaocache/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(rules.timeout)
        .timeout(rules.timeout)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_TIMEOUT)
        // A redirect could send our headers to any host.
        .redirect(reqwest::redirect::Policy::none());
    http_client::build(client)
}

/// An HTTP service.
pub struct HttpOrigin {
    client: Clients,
    template: UrlTemplate,
    rules: HttpRules,
}

impl HttpOrigin {
    /// An origin with its own connection pool.
    ///
    /// # Errors
    /// [`Configuration`](gaocache_core::error::ErrorKind::Configuration) if the rules can't work,
    /// with the reason.
    pub fn new(rules: HttpRules) -> Result<Self> {
        let template = UrlTemplate::new(rules.template.as_str())?;
        let headers = template::headers(&rules.headers)?;
        let client = match rules.ca.clone() {
            None => Clients::OfSystem(client(&rules, headers, None)?),
            Some(ca) => {
                let rules = rules.clone();
                let make = move |pem: &[u8]| client(&rules, headers.clone(), Some(pem));
                Clients::OfFile(Followed::of_authorities(ca, make)?)
            }
        };
        Ok(Self {
            client,
            template,
            rules,
        })
    }

    async fn attempt(&self, url: &Url, kept: Option<&Metadata>) -> Result<Reloaded, Failed> {
        let mut headers = kept.map_or_else(HeaderMap::new, conditions);
        trace::hand_on(&mut headers);
        let request = self.client.now().get(url.clone()).headers(headers);
        let response = request.send().await.map_err(failed)?;
        match (response.status(), kept) {
            (StatusCode::OK, _) => self.changed(response).await.map(Reloaded::Changed),
            (StatusCode::NOT_MODIFIED, Some(kept)) => self.unchanged(response.headers(), kept),
            (StatusCode::NOT_FOUND | StatusCode::GONE, _) => {
                Err(self.absent(response).await.into())
            }
            (status, _) => Err(unexpected(status, response.headers())),
        }
    }

    /// There is no such key, and perhaps the origin says more. If that can't be read in full, the
    /// key is missing all the same.
    async fn absent(&self, response: Response) -> Error {
        let error = Error::not_found("the origin has no such key");
        if !self.rules.keep_not_found_body {
            return error;
        }
        let metadata = said::of_absence(response.headers());
        let most = self.rules.max_value.min(MAX_NOT_FOUND_BODY as u64);
        match (metadata, self.body(response, most).await) {
            (Ok(metadata), Ok(body)) if !body.is_empty() => {
                error.with_source(NotFoundBody::new(body, metadata))
            }
            _ => error,
        }
    }

    async fn changed(&self, response: Response) -> Result<Loaded, Failed> {
        let headers = response.headers();
        let metadata = said::of_value(headers, &self.rules.keep_headers)?;
        let (metadata, freshness) = self.tagged(metadata, headers);
        let value = self.body(response, self.rules.max_value).await?;
        let loaded = Loaded::from(value).with_freshness(freshness);
        Ok(loaded.with_metadata(metadata))
    }

    fn unchanged(&self, headers: &HeaderMap, kept: &Metadata) -> Result<Reloaded, Failed> {
        if said::is_of_another(headers, kept) {
            let what = "the origin answered 304 Not Modified with a different ETag from the one in the \
                 request";
            return Err(Error::origin_failed(what).into());
        }
        let metadata = said::of_unchanged(headers, &self.rules.keep_headers)?;
        let (metadata, freshness) = self.tagged(metadata, headers);
        Ok(Reloaded::Unchanged {
            freshness,
            metadata,
        })
    }

    /// With the tags of the value, and how long it lives.
    fn tagged(&self, said: Metadata, headers: &HeaderMap) -> (Metadata, Freshness) {
        match said::tagged(&said, headers) {
            Some(tagged) => (tagged, self.freshness(headers)),
            None => (said, Freshness::Uncacheable),
        }
    }

    fn freshness(&self, headers: &HeaderMap) -> Freshness {
        if self.rules.honour_cache_control {
            cache_control::freshness(headers)
        } else {
            Freshness::Unsaid
        }
    }

    async fn load_or_renew(
        &self,
        key: &str,
        kept: Option<&Metadata>,
    ) -> Result<Reloaded, BoxError> {
        let url = self.template.expand(key)?;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LAST_PAUSE)
            .with_max_times(self.rules.retries)
            .with_jitter()
            .build();
        let loaded = (|| self.attempt(&url, kept))
            .retry(pauses)
            .sleep(pause)
            .when(|failed: &Failed| failed.again != Again::Never)
            .adjust(|failed, pause| match failed.again {
                Again::After(asked) => pause.map(|pause| pause.max(asked)),
                Again::Never | Again::Soon => pause,
            })
            .await;
        Ok(loaded.map_err(|failed| failed.error)?)
    }

    /// The body, which has at most `max` bytes.
    async fn body(&self, mut response: Response, max: u64) -> Result<Bytes, Failed> {
        let too_large = || {
            let what = format!("the origin's value is larger than {max} bytes (max_value)");
            Error::value_too_large(what, max)
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > max {
            return Err(too_large().into());
        }
        let mut charge = Charge::in_turn(&self.rules.budget, announced).await?;
        let mut body = BytesMut::with_capacity(usize::try_from(announced).unwrap_or(0));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if (body.len() + chunk.len()) as u64 > max => {
                    return Err(too_large().into());
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
        match self.load_or_renew(key, None).await? {
            Reloaded::Changed(loaded) => Ok(loaded),
            _ => Err(Error::origin_failed("a 304 to a request without conditions").into()),
        }
    }

    async fn reload(&self, key: &str, kept: &Metadata) -> Result<Reloaded, BoxError> {
        self.load_or_renew(key, Some(kept)).await
    }
}

/// Asks for the value only if it is not the one that is kept (RFC 9111, 4.3.1).
fn conditions(kept: &Metadata) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (condition, name) in [
        (IF_NONE_MATCH, "etag"),
        (IF_MODIFIED_SINCE, "last-modified"),
    ] {
        let known = kept
            .get(name)
            .map(|it| HeaderValue::from_bytes(it.as_bytes()));
        if let Some(Ok(known)) = known {
            headers.insert(condition, known);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use gaocache_core::error::ErrorKind;

    use super::*;

    fn rules(template: &str) -> HttpRules {
        HttpRules {
            template: template.into(),
            timeout: Duration::from_secs(5),
            retries: 0,
            max_value: 1 << 20,
            honour_cache_control: false,
            keep_not_found_body: false,
            keep_headers: Vec::new(),
            headers: BTreeMap::new(),
            proxies: Proxies::None,
            ca: None,
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
        assert_eq!(rules.longest_load().as_secs(), 15 + 2 * 2, "Retry-After");
        rules.retries = 100;
        assert!(rules.longest_load().as_secs() < 101 * 5 + 100 * 4);
    }
}
