//! HTTP towards others: the client and its TLS, and what a URL and headers of the settings may be.

pub mod template;

use reqwest::{Client, ClientBuilder, RequestBuilder};
use rustls::RootCertStore;

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

/// The builder of a client that trusts the system's CA certificates.
///
/// # Errors
/// [`ErrorKind::Internal`] if TLS can't be set up.
pub fn builder(proxies: Proxies) -> Result<ClientBuilder> {
    trusting(None, proxies)
}

/// A client to be; it trusts these authorities, in PEM format, instead of the system's.
///
/// # Errors
/// As `builder`, or [`ErrorKind::Configuration`] if they are not certificates of authorities.
pub fn trusting(authorities: Option<&[u8]>, proxies: Proxies) -> Result<ClientBuilder> {
    let roots = match authorities {
        Some(pem) => tls::pem::authorities(pem)
            .map_err(|reason| Error::new(ErrorKind::Configuration, reason))?,
        None => tls::to_nodes::system_roots(),
    };
    let builder = Client::builder().tls_backend_preconfigured(config(roots)?);
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

/// The body of the answer, if that is a success and no larger than `most` bytes.
///
/// # Errors
/// What went wrong, as a phrase. It doesn't name the URL, which may contain a password.
pub async fn answer(request: RequestBuilder, most: usize) -> std::result::Result<Vec<u8>, String> {
    let told = |error: reqwest::Error| {
        let error = error.without_url();
        with_causes(error.to_string(), &error)
    };
    let mut response = request.send().await.map_err(told)?;
    if !response.status().is_success() {
        return Err(format!("it answered {}", response.status()));
    }
    let mut content = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(told)? {
        if content.len() + piece.len() > most {
            return Err(format!("it is larger than {most} bytes"));
        }
        content.extend_from_slice(&piece);
    }
    Ok(content)
}

fn config(roots: RootCertStore) -> Result<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            Error::new(ErrorKind::Internal, format!("TLS: {error}")).with_source(error)
        })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::{io::AsyncWriteExt, net::TcpListener};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    #[tokio::test]
    async fn the_authorities_of_a_file_are_trusted_instead_of_the_system_s() {
        let authority = gaocache_testing::Authority::new();
        let issued = authority.issue(&["127.0.0.1"]);
        let key = PrivateKeyDer::try_from(issued.pair.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![issued.certificate.der().clone()], key)
            .expect("an identity");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        let get = async |authorities: Option<&[u8]>| {
            let builder = trusting(authorities, Proxies::None).expect("authorities");
            let client = build(builder).expect("a client");
            client.get(format!("https://{address}/")).send().await
        };
        let got = get(Some(authority.pem.as_bytes())).await;
        assert_eq!(got.expect("trusted").status(), 204);
        assert!(get(None).await.is_err());
    }
}
