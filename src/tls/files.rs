//! Certificates from files, of authorities that the settings name, for connections between nodes.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error as TlsError, RootCertStore, ServerConfig,
    client::{
        danger::{ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio::sync::watch;

use super::{
    client_config, failed,
    followed::{Followed, Observer},
    names::{AllowedPeers, Members},
    pem::Life,
    pem_file::{self, Content, Has, PemFile},
    provider, server_config,
    signatures::signatures_of_tls13,
    trust::{Trust, verifies},
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Whose files they are.
const LISTENER: &str = "peer";

/// Where a node's certificate and its authorities are, and who may be a peer.
#[derive(Clone, Debug)]
pub struct PeerFiles {
    /// The authorities.
    pub ca: PathBuf,
    /// This node's certificate, with those between it and the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Names that peers may have; see [`AllowedPeers::parse`].
    pub allowed: Vec<String>,
}

/// What the files say now.
pub(super) struct Certificates {
    allowed: AllowedPeers,
    provider: Arc<CryptoProvider>,
    files: Arc<Followed<Loaded>>,
}

/// What the files said.
struct Loaded {
    roots: Arc<RootCertStore>,
    shown: Arc<SingleCertAndKey>,
    server: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Certificates {
    /// As the files have them. They are followed on the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if they can't be used.
    pub(super) fn start(files: PeerFiles, observer: Observer) -> Result<Self> {
        let wrong = |what: String| Error::new(ErrorKind::Configuration, what);
        let allowed = AllowedPeers::parse(&files.allowed);
        let allowed = allowed.map_err(|what| wrong(format!("the names of peers: {what}")))?;
        let provider = provider();
        let made_with = provider.clone();
        let make = move |contents: &[Content]| Loaded::new(contents, &made_with);
        let PeerFiles { ca, cert, key, .. } = files;
        let files = [
            (Has::Authorities, ca),
            (Has::Certificate, cert),
            (Has::Key, key),
        ];
        let files =
            files.map(|(has, path)| PemFile::new(format!("the {LISTENER} listener"), has, path));
        Ok(Self {
            allowed,
            provider,
            files: Followed::start(LISTENER, files.into(), make, observer)?,
        })
    }

    /// For a connection that was accepted now.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.files.now().server.clone()
    }

    /// Whether a chain that such a connection has shown still counts; `changes` was subscribed to
    /// before.
    pub(super) fn trust(
        &self,
        chain: &[CertificateDer<'_>],
        changes: watch::Receiver<()>,
    ) -> Trust {
        let files = self.files.clone();
        Trust::in_chain(chain, changes, move |chain| {
            verifies(&*files.now().verifier, chain)
        })
    }

    /// Tells of what changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.files.changes()
    }

    /// For which members the holder of a certificate may speak.
    pub(super) fn members(&self, certificate: &[u8]) -> Result<Members, TlsError> {
        self.allowed.of(certificate)
    }

    /// For a connection to that member that is made now.
    pub(super) fn client(&self, member: &str) -> Result<ClientConfig> {
        let current = self.files.now();
        let verifier = Arc::new(Trusted {
            roots: current.roots.clone(),
            allowed: self.allowed.clone(),
            member: member.into(),
            provider: self.provider.clone(),
        });
        client_config(&self.provider, verifier, current.shown.clone())
    }
}

impl Loaded {
    fn new(contents: &[Content], provider: &Arc<CryptoProvider>) -> Result<(Self, Life)> {
        let [ca, cert, key] = contents else {
            return Err(Error::new(ErrorKind::Internal, "a peer has three files"));
        };
        let roots = ca.authorities()?;
        let (shown, life) = pem_file::identity(cert, key, provider)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let verifier = verifier.build().map_err(failed)?;
        let server = server_config(provider, verifier.clone(), shown.clone())?;
        let loaded = Self {
            roots,
            shown,
            server: Arc::new(server),
            verifier,
        };
        Ok((loaded, life))
    }
}

/// Whether these authorities vouch for this certificate, as one of a server and of a client.
///
/// # Errors
/// Why not.
#[cfg(feature = "cli")]
pub(crate) fn is_signed(ca: &[u8], cert: &[u8]) -> std::result::Result<(), String> {
    let (roots, chain) = (
        Arc::new(super::pem::authorities(ca)?),
        super::pem::certificates(cert)?,
    );
    let (provider, now) = (provider(), UnixTime::now());
    let refused = |error: TlsError| {
        format!(
            "other nodes would refuse the certificate: it does not verify against peer.tls.ca: {error}"
        )
    };
    let (own, between) = (&chain[0], &chain[1..]);
    let parsed = ParsedCertificate::try_from(own).map_err(refused)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, between, now, algorithms)
        .map_err(refused)?;
    let clients = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
    let clients = clients.map_err(|error| error.to_string())?;
    let verified = clients.verify_client_cert(own, between, now);
    verified.map(drop).map_err(refused)
}

/// Accepts the holder of a certificate of the authorities with a name of the member. The address is
/// not checked: it comes from the registry, where the member itself wrote it.
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
