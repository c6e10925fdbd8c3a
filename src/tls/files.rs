//! Certificates from files, of authorities that the settings name. The files are read again and
//! again: what has changed in them counts from the next connection on.
//!
//! A file that can't be used must not end what works: the certificates from before stay in use.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, Error as TlsError, RootCertStore, ServerConfig,
    client::{
        danger::{ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};

use super::{
    failed,
    names::{AllowedPeers, Members},
    provider, set_up_client, set_up_server,
    signatures::signatures_of_tls13,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// How often the files are read.
const PAUSE: Duration = Duration::from_secs(1);

/// Where a node's certificate and its authorities are, and who may be a peer.
#[derive(Clone, Debug)]
pub struct PeerFiles {
    /// The authorities.
    pub ca: PathBuf,
    /// This node's certificate, with those between it and the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Names that peers may have; see `peer.allowed_peers`.
    pub allowed: Vec<String>,
}

/// What the files say now.
pub(super) struct Certificates {
    files: PeerFiles,
    allowed: AllowedPeers,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Loaded>,
}

/// What the files said.
struct Loaded {
    contents: Contents,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    server: Arc<ServerConfig>,
}

#[derive(PartialEq, Eq)]
struct Contents {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Certificates {
    /// As the files have them.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if they can't be used.
    pub(super) fn load(files: PeerFiles) -> Result<Self> {
        let wrong = |what: String| Error::new(ErrorKind::Configuration, what);
        let allowed = AllowedPeers::parse(&files.allowed);
        let allowed = allowed.map_err(|what| wrong(format!("peer.allowed_peers: {what}")))?;
        let provider = provider();
        let loaded = Loaded::new(files.read()?, provider.clone())?;
        Ok(Self {
            files,
            allowed,
            provider,
            current: ArcSwap::from_pointee(loaded),
        })
    }

    /// Follows the files for as long as somebody needs them.
    pub(super) async fn follow(this: Weak<Self>) {
        let mut told = None;
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(this) = this.upgrade() else { return };
            let looked = tokio::task::spawn_blocking(move || this.look()).await;
            let looked = looked.unwrap_or_else(|error| {
                let what = format!("reading them failed, a bug in gaocache: {error}");
                Err(Error::new(ErrorKind::Internal, what).with_source(error))
            });
            match looked {
                Ok(false) => told = None,
                Ok(true) => {
                    told = None;
                    tracing::info!("loaded new certificates for connections between nodes");
                }
                Err(error) => {
                    let what = error.to_string();
                    if told.as_ref() != Some(&what) {
                        tracing::warn!(
                            error = what,
                            "the files of peer.tls can't be used; what they had before stays in use"
                        );
                        told = Some(what);
                    }
                }
            }
        }
    }

    /// Applies what has changed. Returns whether something has.
    fn look(&self) -> Result<bool> {
        let contents = self.files.read()?;
        if contents == self.current.load().contents {
            return Ok(false);
        }
        let loaded = Loaded::new(contents, self.provider.clone())?;
        self.current.store(Arc::new(loaded));
        Ok(true)
    }

    /// For a connection that was accepted now.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// For which members the holder of a certificate may speak.
    pub(super) fn members(&self, certificate: &[u8]) -> Result<Members, TlsError> {
        self.allowed.of(certificate)
    }

    /// For a connection to that member that is made now.
    pub(super) fn client(&self, member: &str) -> Result<ClientConfig> {
        let current = self.current.load();
        let verifier = Arc::new(Trusted {
            roots: current.roots.clone(),
            allowed: self.allowed.clone(),
            member: member.into(),
            provider: self.provider.clone(),
        });
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(current.chain.clone(), current.key.clone_key())
            .map_err(failed)?;
        set_up_client(&mut client);
        Ok(client)
    }
}

impl PeerFiles {
    fn read(&self) -> Result<Contents> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                let what = format!("{}: {error}", path.display());
                Error::new(ErrorKind::Configuration, what).with_source(error)
            })
        };
        Ok(Contents {
            ca: read(&self.ca)?,
            cert: read(&self.cert)?,
            key: read(&self.key)?,
        })
    }
}

impl Loaded {
    fn new(contents: Contents, provider: Arc<CryptoProvider>) -> Result<Self> {
        // The errors of the PEM parser may quote a line of the file, which may be one of a key. So
        // they are not passed on, not even as a source.
        let wrong = |name: &str, what: &str| {
            let what = format!("peer.tls.{name}: {what}");
            Error::new(ErrorKind::Configuration, what)
        };
        let certificates = |pem: &[u8], name: &str| {
            let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            let found = found.ok().filter(|found| !found.is_empty());
            found.ok_or_else(|| wrong(name, "the file contains no certificates in PEM format"))
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(&contents.ca, "ca")? {
            let added = roots.add(root);
            added.map_err(|error| {
                let what = format!("a certificate can't be used as an authority: {error}");
                wrong("ca", &what).with_source(error)
            })?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&contents.cert, "cert")?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key);
        let key =
            key.map_err(|_| wrong("key", "the file contains no private key in PEM format"))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(failed)?
            .with_client_cert_verifier(verifier.build().map_err(failed)?)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| wrong("key", &error.to_string()).with_source(error))?;
        set_up_server(&mut server);
        Ok(Self {
            contents,
            roots,
            chain,
            key,
            server: Arc::new(server),
        })
    }
}

/// Takes who has a certificate of the authorities with a name of the member. The address counts for
/// nothing: it comes from the registry, where the member itself wrote it.
#[derive(Debug)]
struct Trusted {
    roots: Arc<RootCertStore>,
    allowed: AllowedPeers,
    member: Arc<str>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        match self.allowed.of(certificate)? {
            Some(ids) if !ids.contains(&self.member) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    signatures_of_tls13!();
}
