//! TLS of a client of nodes: whom it trusts, and what it shows of itself.

use std::{error::Error as StdError, io, path::PathBuf, sync::Arc};

use rustls::{
    AlertDescription, ClientConfig, RootCertStore,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{io::AsyncBufReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::{
    PROTOCOL, bounded::Bounded, failed, pem, provider, signatures::signatures_of_tls13,
    stream::Stream,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// TLS 1.3 of a client of nodes. The files are read with each new connection, so that new ones
/// count from then on.
///
/// ```
/// use gaocache::{ClientOptions, ClientTls};
///
/// let tls = ClientTls::new()
///     .with_ca("/tls/ca.crt")
///     .with_identity("/tls/tls.crt", "/tls/tls.key")
///     .with_server_name("gaocache.cache.svc");
/// let options = ClientOptions::default().with_tls(tls);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<Arc<str>>,
    accepts_any_certificate: bool,
}

/// Accepts any certificate whose holder proves that it has the key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_of_tls13!();
}

impl ClientTls {
    /// Trusts the authorities of the system, and shows no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this PEM file instead.
    #[must_use]
    pub fn with_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Shows the certificate in the first of these PEM files, whose key is in the second.
    #[must_use]
    pub fn with_identity(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((cert.into(), key.into()));
        self
    }

    /// Wants certificates with this name, whatever the address that is connected to: nodes register
    /// addresses of pods, which certificates seldom name.
    #[must_use]
    pub fn with_server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Accepts the certificate of any server, and shows none: to find out whether a server answers.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) fn accepting_any_certificate() -> Self {
        Self {
            accepts_any_certificate: true,
            ..Self::default()
        }
    }

    /// The name that certificates have to have instead of the address.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// As the files have it now.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if they can't be used.
    pub(crate) fn config(&self) -> Result<ClientConfig> {
        let wrong = |path: &PathBuf, what: String| {
            let what = format!("{}: {what}", path.display());
            Error::new(ErrorKind::Configuration, what)
        };
        let read = |path: &PathBuf| {
            let read = std::fs::read(path);
            read.map_err(|error| wrong(path, error.to_string()).with_source(error))
        };
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?;
        if self.accepts_any_certificate {
            let verifier = Arc::new(AnyCertificate { provider });
            let builder = builder.dangerous();
            let builder = builder.with_custom_certificate_verifier(verifier);
            return Ok(builder.with_no_client_auth());
        }
        let roots = match &self.ca {
            None => system_roots(),
            Some(ca) => pem::authorities(&read(ca)?).map_err(|what| wrong(ca, what))?,
        };
        let builder = builder.with_root_certificates(roots);
        let Some((cert, key)) = &self.identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = pem::certificates(&read(cert)?).map_err(|what| wrong(cert, what))?;
        let own = pem::private_key(&read(key)?).map_err(|what| wrong(key, what))?;
        let certified = pem::together(chain, own, &provider).map_err(|what| wrong(key, what))?;
        let shown = rustls::sign::SingleCertAndKey::from(certified);
        Ok(builder.with_client_cert_resolver(Arc::new(shown)))
    }

    /// A new connection for gRPC to `host:port`.
    ///
    /// # Errors
    /// It can't be made, or the server is not who it should be.
    pub(crate) async fn connect(self, address: Arc<str>) -> io::Result<Stream> {
        let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(self.server_name().unwrap_or(host).to_owned());
        let name = name.map_err(io::Error::other)?;
        let config = tokio::task::spawn_blocking(move || self.config()).await?;
        let mut config = config.map_err(io::Error::other)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let stream = TcpStream::connect(&*address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config));
        let connected = async {
            let mut stream = connector.connect(name, Bounded::handshake(stream)).await?;
            stream.get_mut().0.open();
            // In TLS 1.3, a server looks at the client's certificate when the handshake is over
            // for the client. A server of HTTP/2 speaks first; hyper would lose an alert.
            stream.fill_buf().await?;
            Ok(stream)
        };
        let stream = connected
            .await
            .map_err(|error: io::Error| match meaning(&error) {
                Some(meaning) => io::Error::new(error.kind(), meaning),
                None => error,
            })?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// The authorities that the system trusts. One invalid certificate among them is not a reason to
/// reject them all.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// The error of TLS among the causes of another.
fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // `source()` of an IO error that wraps another error returns the source of that error, not
        // the error itself.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Whether one end refused the other's certificate, or found none.
pub(crate) fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    matches!(
        tls_error(error),
        Some(InvalidCertificate(_) | AlertReceived(_))
    )
}

/// What a failed handshake means, where the error itself speaks of the protocol's innards.
pub(crate) fn meaning(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    match tls_error(error)? {
        rustls::Error::InvalidMessage(_) => Some("the server doesn't speak TLS; use http://"),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Some("the server requires a client certificate")
        }
        _ => None,
    }
}
