//! The settings of TLS at the listeners for clients.

use std::path::PathBuf;

use serde::Deserialize;

/// `[grpc.tls]`, `[http.tls]`, `[redis.tls]` and `[admin.tls]`
#[derive(Clone, Debug, Deserialize)]
pub struct ListenerTlsSettings {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
    pub client_auth: ClientAuth,
}

impl ListenerTlsSettings {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for any.
    None,
    /// They may.
    Optional,
    /// They have to.
    Required,
}
