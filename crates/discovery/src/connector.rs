//! Connections to etcd: one endpoint at a time, and the next one after a failure.
//!
//! etcd-client can balance over all endpoints, but then a dead endpoint delays some of the calls,
//! and it is unknown which member a stream is connected to. Here, a session uses one member and
//! moves to the next if that one fails. Files with secrets are read on every connect, so that
//! rotated secrets take effect without a restart.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use crate::error::{Error, ErrorKind, Result};

/// Interval of pings. etcd closes the connection of a client that pings more often than every five
/// seconds (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A user name, and the file that contains the password.
///
/// ```
/// use gaocache_discovery::{Credentials, EtcdConfig};
///
/// let etcd = EtcdConfig::new(["http://127.0.0.1:2379"])
///     .with_credentials(Credentials::new("greeter", "/run/secrets/etcd-password"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// File with the password; a trailing line break is ignored.
    pub password_file: PathBuf,
}

impl Credentials {
    /// This user, and the file with the password.
    pub fn new(username: impl Into<String>, password_file: impl Into<PathBuf>) -> Self {
        Self {
            username: username.into(),
            password_file: password_file.into(),
        }
    }
}

/// PEM files for TLS.
///
/// ```
/// use gaocache_discovery::{EtcdConfig, TlsFiles};
///
/// let files = TlsFiles::default()
///     .with_ca("/tls/etcd-ca.crt")
///     .with_identity("/tls/client.crt", "/tls/client.key");
/// let etcd = EtcdConfig::new(["https://etcd.example:2379"]).with_tls(files);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsFiles {
    /// Authorities that sign etcd's certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The client certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Trusts these authorities.
    #[must_use]
    pub fn with_ca(mut self, ca: impl Into<PathBuf>) -> Self {
        self.ca = Some(ca.into());
        self
    }

    /// Shows this certificate, whose key is in the other file.
    #[must_use]
    pub fn with_identity(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }
}

/// How to connect to etcd.
///
/// ```
/// use std::time::Duration;
/// use gaocache_discovery::{Credentials, EtcdConfig, TlsFiles};
///
/// let etcd = EtcdConfig::new(["https://etcd-0:2379", "https://etcd-1:2379"])
///     .with_credentials(Credentials::new("cache", "/run/secrets/etcd-password"))
///     .with_tls(TlsFiles::default().with_ca("/etc/etcd/ca.pem"))
///     .with_lease_ttl(Duration::from_secs(5))
///     .with_request_timeout(Duration::from_secs(1));
/// assert_eq!(etcd.endpoints.len(), 2);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// URLs of the etcd members. Some of them may be down.
    pub endpoints: Vec<String>,
    /// User and password, if etcd requires authentication.
    pub credentials: Option<Credentials>,
    /// TLS, for `https` endpoints.
    pub tls: Option<TlsFiles>,
    /// Time to live of leases.
    pub lease_ttl: Duration,
    /// Time limit for one request, including connecting.
    pub request_timeout: Duration,
}

impl EtcdConfig {
    /// Plain HTTP, no user, leases of ten seconds.
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            credentials: None,
            tls: None,
            lease_ttl: Duration::from_secs(10),
            request_timeout: Duration::from_secs(2),
        }
    }

    /// As this user.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Over TLS with these files.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsFiles) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With leases of this length.
    #[must_use]
    pub fn with_lease_ttl(mut self, lease_ttl: Duration) -> Self {
        self.lease_ttl = lease_ttl;
        self
    }

    /// With this bound on one request, connecting included.
    #[must_use]
    pub fn with_request_timeout(mut self, request_timeout: Duration) -> Self {
        self.request_timeout = request_timeout;
        self
    }
}

/// Opens connections.
#[derive(Debug)]
pub(super) struct Connector {
    config: EtcdConfig,
    next: AtomicUsize,
}

impl Connector {
    pub(super) fn new(config: EtcdConfig) -> Arc<Self> {
        // Nodes that start together connect to different members.
        let first = fastrand::usize(..config.endpoints.len().max(1));
        Arc::new(Self {
            config,
            next: AtomicUsize::new(first),
        })
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// A connection to the next member in turn.
    pub(super) async fn connect(&self) -> Result<Client> {
        self.connect_in(self.next.fetch_add(1, Ordering::Relaxed))
            .await
    }

    /// A connection to the member that answered last, for single calls: one that can't be reached
    /// would cost every few of them their whole time.
    pub(super) async fn reconnect(&self) -> Result<Client> {
        self.connect_in(self.next.load(Ordering::Relaxed)).await
    }

    /// The member that [`Connector::reconnect`] uses didn't answer: another is next.
    pub(super) fn move_on(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect_in(&self, turn: usize) -> Result<Client> {
        let endpoints = &self.config.endpoints;
        let Some(endpoint) = endpoints.get(turn % endpoints.len().max(1)) else {
            let message = "no endpoints configured";
            return Err(Error::new(ErrorKind::Configuration, message));
        };
        let options = self.options(endpoint)?;
        let connected = self
            .bounded(Client::connect([endpoint], Some(options)))
            .await;
        connected.map_err(|error| error.at(endpoint))
    }

    /// The member that [`Connector::connect`] chose last; empty before. Useful for one session at a
    /// time.
    pub(super) fn chosen(&self) -> &str {
        let endpoints = &self.config.endpoints;
        let turn = self.next.load(Ordering::Relaxed).wrapping_sub(1);
        let chosen = endpoints.get(turn % endpoints.len().max(1));
        chosen.map_or("", String::as_str)
    }

    /// Applies the request timeout to a call to etcd. etcd-client has no timeout while its balancer
    /// connects, so it would wait forever for a member that refuses connections.
    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.config.request_timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::of_etcd(error)),
            Err(_) => Err(Error::unavailable(format!(
                "no answer within {} s",
                self.config.request_timeout.as_secs_f64()
            ))),
        }
    }

    fn options(&self, endpoint: &str) -> Result<ConnectOptions> {
        let timeout = self.config.request_timeout;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(timeout)
            .with_keep_alive(PING_INTERVAL, timeout)
            .with_keep_alive_while_idle(true)
            // A member that is cut off from its cluster must reject a watch instead of staying
            // silent.
            .with_require_leader(true);
        if let Some(credentials) = &self.config.credentials {
            let password = read(&credentials.password_file)?;
            let password = String::from_utf8_lossy(&password).trim_end().to_owned();
            options = options.with_user(credentials.username.clone(), password);
        }
        if endpoint.starts_with("https://") {
            let files = self.config.tls.clone().unwrap_or_default();
            let mut tls = TlsOptions::new();
            tls = match &files.ca {
                Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
                None => tls,
            };
            if let Some((certificate, key)) = &files.identity {
                tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
            }
            options = options.with_tls(tls);
        }
        Ok(options)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Error::new(ErrorKind::Configuration, message).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    async fn refused(config: EtcdConfig) -> Error {
        let connected = Connector::new(config).connect().await;
        connected.err().expect("no connection")
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_configuration_is_told_apart_from_an_etcd_that_is_away() {
        let nowhere = EtcdConfig::new(Vec::<String>::new());
        assert_eq!(refused(nowhere).await.kind(), ErrorKind::Configuration);
        let mut unreadable = EtcdConfig::new(["http://127.0.0.1:1"]);
        unreadable.credentials = Some(Credentials {
            username: "u".into(),
            password_file: "/no/such/file".into(),
        });
        let error = refused(unreadable).await;
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let cause = error.source().expect("a cause");
        assert!(cause.is::<std::io::Error>(), "{cause}");
        // etcd-client connects with the first call.
        let away = Connector::new(EtcdConfig::new(["http://127.0.0.1:1"]));
        let mut client = away.connect().await.expect("nothing is sent yet");
        let asked = away.bounded(client.get("key", None)).await;
        assert_eq!(asked.expect_err("away").kind(), ErrorKind::Unavailable);
    }
}
