//! Clients that speak TLS by rustls' own means: they know nothing of gaocache.

use std::{net::SocketAddr, sync::Arc};

use gaocache::internal::wire::cache_client::CacheClient;
use gaocache_testing::Issued;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// A client that trusts these authorities, and shows this certificate.
pub fn trusting(authorities: &[&str], shown: Option<&Issued>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for pem in authorities {
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        roots.add(root).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match shown {
        None => builder.with_no_client_auth(),
        Some(Issued { certificate, pair }) => {
            let key = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
            let chain = vec![certificate.der().clone()];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

/// A connection of HTTP/2 whose first call makes it.
pub fn channel(address: SocketAddr, name: &'static str, mut config: ClientConfig) -> Channel {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let connect = move |_: Uri| {
        let config = config.clone();
        async move { connect(address, name, config).await.map(TokioIo::new) }
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector_lazy(tower::service_fn(connect))
}

/// A connection after its handshake.
pub async fn connect(
    address: SocketAddr,
    name: &'static str,
    config: impl Into<Arc<ClientConfig>>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(config.into())
        .connect(name, stream)
        .await
}

/// A client for gRPC.
pub fn grpc(address: SocketAddr, config: ClientConfig) -> CacheClient<Channel> {
    CacheClient::new(channel(address, "localhost", config))
}

/// A client for HTTP.
pub fn https(config: ClientConfig) -> reqwest::Client {
    let builder = reqwest::Client::builder().tls_backend_preconfigured(config);
    builder.build().unwrap()
}
