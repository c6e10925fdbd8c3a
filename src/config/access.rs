//! The settings of the listeners for clients and of who may do what there, section by section.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::listener_tls::ListenerTlsSettings;

/// `[grpc]`
#[derive(Clone, Debug, Deserialize)]
pub struct GrpcSettings {
    pub listen: SocketAddr,
    pub tls: ListenerTlsSettings,
    pub reflection: bool,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
pub struct HttpSettings {
    pub enabled: bool,
    pub listen: SocketAddr,
    pub tls: ListenerTlsSettings,
    pub allowed_hosts: Vec<String>,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    pub tls: ListenerTlsSettings,
    pub allowed_hosts: Vec<String>,
    pub insecure: bool,
    pub socket: PathBuf,
}

/// `[auth]`
#[derive(Clone, Debug, Deserialize)]
pub struct AuthSettings {
    pub anonymous: Vec<String>,
    pub grants: Vec<String>,
    pub token_file: PathBuf,
    pub jwt: JwtSettings,
}

/// `[auth.jwt]`
#[derive(Clone, Debug, Deserialize)]
pub struct JwtSettings {
    pub jwks_file: PathBuf,
    pub jwks_url: String,
    pub issuer: String,
    pub audience: String,
    pub ca: PathBuf,
    pub bearer_file: PathBuf,
}
