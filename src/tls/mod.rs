//! TLS between nodes: what a node shows of itself, and what it wants to see of others.
//!
//! Everything here is TLS 1.3 with certificates on both sides. Sessions are never resumed: a
//! connection is meant to last, and a resumed one would be one whose certificate nobody looked at.

mod files;
mod keys;
mod names;
mod peer;
mod stream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use files::PeerFiles;
#[cfg(feature = "cli")]
pub(crate) use names::AllowedPeers;
pub use peer::{PeerTls, Way};
pub use stream::Stream;

use gaocache_core::{
    error::{Error, ErrorKind},
    membership::KeyFingerprint,
};

/// HTTP/2, which is all that nodes speak with each other.
const PROTOCOL: &[u8] = b"h2";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The fingerprint of a certificate.
fn fingerprint(certificate: &[u8]) -> KeyFingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    KeyFingerprint(bytes)
}

/// What a verifier says of signatures of TLS 1.2.
fn tls12<T>() -> Result<T, rustls::Error> {
    Err(rustls::Error::General("TLS 1.3 is required".into()))
}

/// TLS can't be set up.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, format!("TLS: {error}")).with_source(error)
}
