//! How the commands speak TLS with nodes: by flags, else by the context.

use std::path::PathBuf;

use clap::Args;

use super::{
    address::{NodeAddress, Scheme},
    cluster::usable,
    context::Context,
    failure::Failure,
};
use crate::{config::pem, tls::ClientTls};

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options for TLS with nodes")]
pub(super) struct TlsArgs {
    /// PEM file with the CA certificates that nodes' certificates are verified against; an address
    /// without a scheme is then one of TLS
    ///
    /// [default: GAOCACHE_CA, else that of the context, else the CA certificates of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file with a client certificate
    ///
    /// [default: GAOCACHE_CERT, else that of the context]
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    ///
    /// [default: GAOCACHE_CERT_KEY, else that of the context]
    #[arg(
        id = "key_file",
        long = "cert-key",
        value_name = "FILE",
        requires = "cert"
    )]
    key: Option<PathBuf>,
    /// The name that nodes' certificates must have, instead of the host in the address
    ///
    /// [default: GAOCACHE_SERVER_NAME, else that of the context]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
}

/// How nodes are spoken to; `None`: TLS was not spoken of.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls(Option<ClientTls>);

impl TlsArgs {
    /// The files, which can be used.
    pub(super) fn files(&self) -> Result<Tls, Failure> {
        let context = Context::in_force()?;
        let or = |flag: &Option<PathBuf>, other: &Option<PathBuf>| {
            flag.clone().or_else(|| other.clone())
        };
        let ca = or(&self.ca, &context.ca);
        let identity = or(&self.cert, &context.cert).zip(or(&self.key, &context.key));
        let server_name = self.server_name.as_ref().or(context.server_name.as_ref());
        if ca.is_none() && identity.is_none() && server_name.is_none() {
            return Ok(Tls(None));
        }
        let mut tls = ClientTls::new();
        if let Some(ca) = ca {
            usable("--ca", &ca, pem::authorities)?;
            tls = tls.with_ca(ca);
        }
        if let Some((cert, key)) = identity {
            usable("--cert", &cert, pem::valid_certificate)?;
            usable("--cert-key", &key, pem::private_key)?;
            usable("--cert-key", &key, |key| pem::together(&cert, key))?;
            tls = tls.with_identity(cert, key);
        }
        if let Some(name) = server_name {
            tls = tls.with_server_name(name);
        }
        Ok(Tls(Some(tls)))
    }
}

impl Tls {
    /// Accepts any server: to find out whether one answers.
    pub(super) fn accepting_any_certificate() -> Self {
        Self(Some(ClientTls::accepting_any_certificate()))
    }

    /// For all nodes, if TLS was spoken of.
    pub(super) fn for_all(&self) -> Option<ClientTls> {
        self.0.clone()
    }

    /// For this one; `None`: plaintext.
    pub(super) fn at(&self, place: &NodeAddress) -> Option<ClientTls> {
        match place.scheme {
            Some(Scheme::Http) => None,
            Some(Scheme::Https) => Some(self.0.clone().unwrap_or_default()),
            None => self.0.clone(),
        }
    }
}
