//! HTTP towards others: the client and its TLS, and what a URL and headers of the settings may be.

pub mod template;

use reqwest::{Client, ClientBuilder};

use crate::tls;
use gaocache_core::error::{Error, ErrorKind, Result, with_causes};

/// A client to be; it trusts what the system trusts.
///
/// # Errors
/// [`ErrorKind::Internal`] if TLS can't be set up.
pub fn builder() -> Result<ClientBuilder> {
    Ok(Client::builder().tls_backend_preconfigured(tls()?))
}

/// A client without timeouts, for the command line.
///
/// # Errors
/// As `builder` and `build`.
pub fn plain() -> Result<Client> {
    build(builder()?)
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

fn tls() -> Result<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            Error::new(ErrorKind::Internal, format!("TLS: {error}")).with_source(error)
        })?;
    let roots = tls::to_nodes::system_roots();
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
