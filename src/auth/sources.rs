//! Follows what the rules name: the file of tokens, and the keys of the issuer of JWTs. What can't
//! be used changes nothing, and is told once.

#[cfg(feature = "cli")]
use std::sync::Arc;
use std::{collections::HashMap, time::Duration};

#[cfg(feature = "cli")]
use reqwest::redirect::Policy;
#[cfg(feature = "cli")]
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "cli")]
use super::{
    jwt::{Jwt, KeysFrom, MAX_JWKS_BYTES},
    proof::InForce,
    tokens::bounded,
};
use super::{permissions::Permissions, tokens};
#[cfg(feature = "cli")]
use crate::http_client;

/// How often files are read.
const PAUSE: Duration = Duration::from_secs(1);
/// How often keys behind a URL are fetched.
#[cfg(feature = "cli")]
const REFRESH: Duration = Duration::from_secs(300);
/// After a failure: at first, and at most.
#[cfg(feature = "cli")]
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often they are fetched because a token named a key that is not there.
#[cfg(feature = "cli")]
const MISSED: Duration = Duration::from_secs(10);
/// Bound on fetching them.
#[cfg(feature = "cli")]
const TIMEOUT: Duration = Duration::from_secs(10);

impl Permissions {
    /// Follows files and URLs until `stop`.
    pub(crate) async fn follow(self, stop: CancellationToken) {
        let mut follower = Follower::new(self);
        let _ = stop.run_until_cancelled(follower.run()).await;
    }
}

struct Follower {
    permissions: Permissions,
    /// What was told of each source.
    told: HashMap<&'static str, String>,
    #[cfg(feature = "cli")]
    fetches: Fetches,
}

impl Follower {
    fn new(permissions: Permissions) -> Self {
        Self {
            permissions,
            told: HashMap::new(),
            #[cfg(feature = "cli")]
            fetches: Fetches::new(),
        }
    }

    async fn run(&mut self) -> std::convert::Infallible {
        loop {
            self.look_at_tokens().await;
            #[cfg(feature = "cli")]
            self.look_at_keys().await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look_at_tokens(&mut self) {
        let before = self.permissions.in_force();
        let Some(file) = before.rules.token_file.clone() else {
            return self.settle("tokens", Ok(()));
        };
        let read = read_aside(move || tokens::read(&file)).await;
        let done = read.and_then(|content| {
            if *content == *before.content {
                return Ok(());
            }
            let after = before.with_tokens(content)?;
            self.permissions.refresh(&before, after);
            tracing::info!("loaded new bearer tokens");
            Ok(())
        });
        self.settle("tokens", done);
    }

    #[cfg(feature = "cli")]
    async fn look_at_keys(&mut self) {
        let before = self.permissions.in_force();
        let (Some(rules), Some(jwt)) = (&before.rules.jwt, before.jwt.clone()) else {
            return self.settle("jwks", Ok(()));
        };
        let read = match rules.keys.clone() {
            KeysFrom::File(file) => read_aside(move || bounded(&file, MAX_JWKS_BYTES as u64)).await,
            KeysFrom::Url {
                url,
                ca,
                token_file,
                proxies,
            } => {
                if !self.fetches.is_due(&jwt) {
                    return;
                }
                let fetched = fetch(&url, ca, token_file, proxies).await;
                self.fetches.ended(fetched.is_ok());
                fetched
            }
        };
        let done = read.and_then(|content| self.take_keys(&before, &jwt, content));
        self.settle("jwks", done);
    }

    #[cfg(feature = "cli")]
    fn take_keys(&self, before: &Arc<InForce>, jwt: &Jwt, content: Vec<u8>) -> Result<(), String> {
        if content == jwt.content {
            return Ok(());
        }
        let mut after = InForce::clone(before);
        after.jwt = Some(Arc::new(jwt.with_keys(content)?));
        self.permissions.refresh(before, after);
        tracing::info!("loaded new keys for JWTs");
        Ok(())
    }

    /// Tells of a source what has changed since it was looked at last.
    fn settle(&mut self, source: &'static str, done: Result<(), String>) {
        let stale = &self.permissions.metrics().auth.stale;
        stale
            .with_label_values(&[source])
            .set(i64::from(done.is_err()));
        match done {
            Ok(()) => drop(self.told.remove(source)),
            Err(error) if self.told.get(source) == Some(&error) => {}
            Err(error) => {
                tracing::warn!(
                    source,
                    error,
                    "tokens or keys can't be read; those from before stay in force"
                );
                self.told.insert(source, error);
            }
        }
    }
}

/// When keys behind a URL are fetched.
#[cfg(feature = "cli")]
struct Fetches {
    last: Option<Instant>,
    /// Not before, after a failure.
    retry_at: Option<Instant>,
    patience: Duration,
}

#[cfg(feature = "cli")]
impl Fetches {
    fn new() -> Self {
        Self {
            last: None,
            retry_at: None,
            patience: RETRY.0,
        }
    }

    /// Whether they are to be fetched. New rules begin without any.
    fn is_due(&self, jwt: &Jwt) -> bool {
        let now = Instant::now();
        let over = |pause| self.last.is_none_or(|last| now >= last + pause);
        self.retry_at.is_none_or(|at| now >= at)
            && (jwt.content.is_empty() || over(REFRESH) || (over(MISSED) && jwt.missed_a_key()))
    }

    fn ended(&mut self, ok: bool) {
        let now = Instant::now();
        self.last = Some(now);
        self.retry_at = (!ok).then(|| now + self.patience);
        self.patience = if ok {
            RETRY.0
        } else {
            RETRY.1.min(self.patience * 2)
        };
    }
}

/// Reads a file where it holds up nobody.
async fn read_aside(
    read: impl FnOnce() -> Result<Vec<u8>, String> + Send + 'static,
) -> Result<Vec<u8>, String> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|_| Err("reading it failed, a bug in gaocache".into()))
}

/// What is behind a URL, if it is small enough.
#[cfg(feature = "cli")]
async fn fetch(
    url: &str,
    ca: Option<std::path::PathBuf>,
    token_file: Option<std::path::PathBuf>,
    proxies: http_client::Proxies,
) -> Result<Vec<u8>, String> {
    /// The largest file of authorities, or with a token.
    const MOST: u64 = 1 << 20;
    let files = tokio::task::spawn_blocking(move || {
        let read = |path: std::path::PathBuf| {
            bounded(&path, MOST).map_err(|why| format!("{}: {why}", path.display()))
        };
        Ok::<_, String>((ca.map(read).transpose()?, token_file.map(read).transpose()?))
    });
    let files = files.await;
    let (ca, token) = files.unwrap_or_else(|_| Err("a bug in gaocache".into()))?;
    let client = http_client::trusting(ca.as_deref(), proxies)
        .and_then(|builder| http_client::build(builder.timeout(TIMEOUT).redirect(Policy::none())))
        .map_err(|error| error.to_string())?;
    let mut request = client.get(url);
    if let Some(token) = token {
        let token = String::from_utf8(token).map_err(|_| "the token is not text".to_owned())?;
        request = request.bearer_auth(token.trim());
    }
    http_client::answer(request, MAX_JWKS_BYTES).await
}
