//! The settings of the listeners for clients and of who may do what there, section by section.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::listener_tls::ListenerTlsSettings;

/// `[grpc]`
#[derive(Clone, Debug, Deserialize)]
pub struct GrpcSettings {
    /// Address and port; port 0 means any free port.
    pub listen: SocketAddr,
    /// Its TLS.
    pub tls: ListenerTlsSettings,
    /// Whether it tells what services it has.
    pub reflection: bool,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
pub struct HttpSettings {
    /// Whether there is this listener.
    pub enabled: bool,
    /// Address and port; port 0 means any free port.
    pub listen: SocketAddr,
    /// Its TLS.
    pub tls: ListenerTlsSettings,
    /// Host names that it answers for, beside its own.
    pub allowed_hosts: Vec<String>,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
pub struct AdminSettings {
    /// Address and port; port 0 means any free port.
    pub listen: SocketAddr,
    /// Its TLS.
    pub tls: ListenerTlsSettings,
    /// Host names that it answers for, beside its own.
    pub allowed_hosts: Vec<String>,
    /// Whether everybody may administrate over the network.
    pub insecure: bool,
    /// Unix socket; empty: none.
    pub socket: PathBuf,
}

/// `[auth]`
#[derive(Clone, Debug, Deserialize)]
pub struct AuthSettings {
    /// Roles that everybody has.
    pub anonymous: Vec<String>,
    /// Roles of names in certificates and subjects of JWTs.
    pub grants: Vec<String>,
    /// File with bearer tokens.
    pub token_file: PathBuf,
    /// `[auth.jwt]`
    pub jwt: JwtSettings,
}

/// `[auth.jwt]`
#[derive(Clone, Debug, Deserialize)]
pub struct JwtSettings {
    /// File with the issuer's keys.
    pub jwks_file: PathBuf,
    /// URL of the issuer's keys.
    pub jwks_url: String,
    /// The issuer.
    pub issuer: String,
    /// For whom tokens must be made out.
    pub audience: String,
    /// File with the authorities for the URL.
    pub ca: PathBuf,
    /// File with a token for the URL.
    pub bearer_file: PathBuf,
}
