//! TLS: which certificate a node presents, and which it requires of others: of nodes, on both sides
//! (`peer`), and of clients (`listener`).
//!
//! Everything here is TLS 1.3. Sessions are never resumed: a connection is meant to last, and the
//! certificate of a resumed one would not be checked.

mod bounded;
mod client_names;
mod files;
mod followed;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod keys;
mod listener;
mod names;
mod paced;
mod peer;
pub(crate) mod pem;
mod pem_file;
mod plaintext;
mod signatures;
mod stream;
#[cfg(feature = "etcd")]
pub(crate) mod to_nodes;
mod trust;

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};

pub use client_names::ClientNames;
pub use files::PeerFiles;
#[cfg(feature = "cli")]
pub(crate) use files::is_signed;
#[cfg(feature = "cli")]
pub(crate) use followed::Followed;
pub use followed::{Observed, Observer};
pub use listener::{Asked, ListenerFiles, Refused, ServerTls};
#[cfg(feature = "cli")]
pub(crate) use names::AllowedPeers;
pub use peer::{PeerTls, Way};
#[cfg(feature = "cli")]
pub(crate) use plaintext::SPEAKS_TLS;
pub use plaintext::Speaks;
pub use stream::Stream;
#[cfg(feature = "etcd")]
pub use to_nodes::ClientTls;
pub use trust::Trust;

use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::KeyFingerprint,
};

/// HTTP/2, which is all that nodes speak with each other.
const PROTOCOL: &[u8] = b"h2";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The fingerprint of a certificate.
fn fingerprint(certificate: &[u8]) -> KeyFingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    KeyFingerprint(bytes)
}

/// For connections that are accepted: HTTP/2 where nothing else is said, and no session to resume.
fn server_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    shown: Arc<SingleCertAndKey>,
) -> Result<ServerConfig> {
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

/// The same for connections that are made to other nodes. No name is sent either.
fn client_config(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    shown: Arc<SingleCertAndKey>,
) -> Result<ClientConfig> {
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(shown);
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    Ok(client)
}

/// TLS can't be set up.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, format!("TLS: {error}")).with_source(error)
}
