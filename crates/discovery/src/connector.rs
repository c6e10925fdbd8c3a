//! Connections to etcd: one endpoint at a time, the next one after a failure.
//!
//! etcd-client can balance over all endpoints at once, but then a dead one delays every so many
//! calls, and nobody can tell which member a stream hangs on. Here a session stands on one member
//! and moves on when that fails. Files with secrets are read at every connect, so that rotated ones
//! count without a restart.

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

/// How often a connection is tested. Not more often than etcd allows: it hangs up on who pings it
/// within less than five seconds (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// User and the file with the password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name of the user.
    pub username: String,
    /// The password, with or without a line end behind it.
    pub password_file: PathBuf,
}

/// Files for TLS, PEM each.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities that sign etcd's certificate.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// URLs of its members; some may be dead.
    pub endpoints: Vec<String>,
    /// Who we are to it.
    pub credentials: Option<Credentials>,
    /// TLS, for `https` endpoints.
    pub tls: Option<TlsFiles>,
    /// Time to live of leases.
    pub lease_ttl: Duration,
    /// Bound on one request, connecting included.
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
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Connector {
    config: EtcdConfig,
    next: AtomicUsize,
}

impl Connector {
    pub(super) fn new(config: EtcdConfig) -> Arc<Self> {
        // Nodes that start together begin at different members.
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
        let endpoints = &self.config.endpoints;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(endpoint) = endpoints.get(turn % endpoints.len().max(1)) else {
            let message = "no endpoints are configured";
            return Err(Error::new(ErrorKind::Configuration, message));
        };
        let options = self.options(endpoint)?;
        let connected = self
            .bounded(Client::connect([endpoint], Some(options)))
            .await;
        connected.map_err(|error| error.at(endpoint))
    }

    /// A call to etcd, with a bound: etcd-client has none of its own on the way through its
    /// balancer, so that a member that refuses connections would be waited for without an end.
    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.config.request_timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error.into()),
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
            // A member cut off from its cluster must refuse a watch rather than stay silent.
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
        let away = Connector::new(EtcdConfig::new(["http://127.0.0.1:1"]));
        let mut client = away.connect().await.expect("nothing is asked yet");
        let unheard = away.bounded(client.get("x", None)).await;
        let error = unheard.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
