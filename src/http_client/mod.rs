//! HTTP towards others: the client and its TLS, and what a URL and headers of the settings may be.

pub mod template;

use reqwest::{Client, ClientBuilder};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::tls;
use gaocache_core::error::{Error, ErrorKind, Result, with_causes};

/// Whether the variables that name proxies count (`HTTPS_PROXY`, `NO_PROXY`, …). A proxy sees the
/// headers of requests, secrets among them, so it has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxies {
    /// There are none.
    None,
    /// Those of the environment.
    OfEnvironment,
}

impl Proxies {
    /// As the setting has it.
    pub fn from_environment(is_said: bool) -> Self {
        if is_said {
            Self::OfEnvironment
        } else {
            Self::None
        }
    }
}

/// A client to be; it trusts what the system trusts.
///
/// # Errors
/// [`ErrorKind::Internal`] if TLS can't be set up.
pub fn builder(proxies: Proxies) -> Result<ClientBuilder> {
    trusting(None, proxies)
}

/// A client to be; it trusts these authorities, in PEM format, instead of the system's.
///
/// # Errors
/// As `builder`, or if there is no certificate among them.
pub fn trusting(authorities: Option<&[u8]>, proxies: Proxies) -> Result<ClientBuilder> {
    let found = match authorities {
        Some(pem) => CertificateDer::pem_slice_iter(pem)
            .filter_map(std::result::Result::ok)
            .collect(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    if authorities.is_some() && found.is_empty() {
        return Err(Error::new(
            ErrorKind::Internal,
            "there is no certificate in PEM format",
        ));
    }
    let builder = Client::builder().tls_backend_preconfigured(tls(found)?);
    Ok(match proxies {
        Proxies::None => builder.no_proxy(),
        Proxies::OfEnvironment => builder,
    })
}

/// A client without timeouts, for the command line.
///
/// # Errors
/// As `builder` and `build`.
pub fn plain() -> Result<Client> {
    build(builder(Proxies::None)?)
}

/// The client.
///
/// # Errors
/// [`ErrorKind::Internal`] if it can't be made.
pub fn build(builder: ClientBuilder) -> Result<Client> {
    builder.build().map_err(|error| {
        let what = format!("HTTP client: {}", with_causes(error.to_string(), &error));
        Error::new(ErrorKind::Internal, what).with_source(error)
    })
}

fn tls(authorities: Vec<CertificateDer<'static>>) -> Result<rustls::ClientConfig> {
    let mut store = rustls::RootCertStore::empty();
    // One invalid certificate in the system's store is no reason to reject them all.
    store.add_parsable_certificates(authorities);
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            Error::new(ErrorKind::Internal, format!("TLS: {error}")).with_source(error)
        })?;
    let roots = tls::to_nodes::system_roots();
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
