//! TLS: what a node shows of itself, and what it wants to see of others: nodes, with certificates
//! on both sides (`peer`), and clients (`listener`).
//!
//! Everything here is TLS 1.3. Sessions are never resumed: a connection is meant to last, and a
//! resumed one would be one whose certificate nobody looked at.

mod bounded;
mod client_names;
mod files;
mod followed;
mod keys;
mod listener;
mod names;
mod peer;
pub(crate) mod pem;
mod plaintext;
mod signatures;
mod stream;
#[cfg(feature = "etcd")]
pub(crate) mod to_nodes;

use std::sync::Arc;

use rustls::{
    ClientConfig, ServerConfig, client::Resumption, crypto::CryptoProvider,
    server::NoServerSessionStorage,
};

pub use client_names::ClientNames;
pub use files::PeerFiles;
#[cfg(feature = "cli")]
pub(crate) use files::is_signed;
pub use followed::{Observed, Observer};
pub use listener::{Asked, ListenerFiles, ListenerTls, Refused};
#[cfg(feature = "cli")]
pub(crate) use names::AllowedPeers;
pub use peer::{PeerTls, Way};
#[cfg(feature = "cli")]
pub(crate) use plaintext::TOLD;
pub use stream::Stream;
#[cfg(feature = "etcd")]
pub use to_nodes::ClientTls;

use gaocache_core::{
    error::{Error, ErrorKind},
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

/// What the accepting end has of all connections: HTTP/2 where nothing else is said, and no session
/// to resume.
fn set_up_server(server: &mut ServerConfig) {
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
}

/// The same for the connecting end, which sends no name either.
fn set_up_client(client: &mut ClientConfig) {
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
}

/// TLS can't be set up.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, format!("TLS: {error}")).with_source(error)
}
