//! A connection to a node's listener for clients, with TLS or without.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
#[cfg(feature = "cli")]
use tonic::transport::Error as TransportError;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::tls::ClientTls;
use gaocache_core::error::{Error, ErrorKind, Result};

/// The endpoint at `host:port`.
///
/// # Errors
/// [`ErrorKind::PeerUnreachable`] if that is not an address.
pub(crate) fn endpoint(address: &str, tls: bool) -> Result<Endpoint> {
    let wrong =
        |cause: String| Error::new(ErrorKind::PeerUnreachable, format!("'{address}': {cause}"));
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| wrong(error.to_string()).with_source(error))?
        .tcp_nodelay(true);
    if !tls {
        return Ok(endpoint);
    }
    // The connector does TLS itself, so tonic must see `http`. The scheme of requests is set
    // separately.
    let origin = format!("https://{address}").parse::<Uri>();
    let origin = origin.map_err(|error| wrong(error.to_string()).with_source(error))?;
    Ok(endpoint.origin(origin))
}

/// A connection that is made with the first call, and whenever it has broken.
pub(crate) fn lazy(endpoint: &Endpoint, address: &Arc<str>, tls: Option<ClientTls>) -> Channel {
    match tls {
        None => endpoint.connect_lazy(),
        Some(tls) => endpoint.connect_with_connector_lazy(connector(address, tls)),
    }
}

/// A connection that is made now.
///
/// # Errors
/// It can't be made.
#[cfg(feature = "cli")]
pub(crate) async fn now(
    endpoint: &Endpoint,
    address: &Arc<str>,
    tls: Option<ClientTls>,
) -> std::result::Result<Channel, TransportError> {
    match tls {
        None => endpoint.connect().await,
        Some(tls) => {
            endpoint
                .connect_with_connector(connector(address, tls))
                .await
        }
    }
}

type Connecting =
    std::pin::Pin<Box<dyn Future<Output = std::io::Result<TokioIo<crate::tls::Stream>>> + Send>>;

fn connector(
    address: &Arc<str>,
    tls: ClientTls,
) -> tower::util::ServiceFn<impl FnMut(Uri) -> Connecting + Clone + Send + 'static> {
    let address = address.clone();
    tower::service_fn(move |_: Uri| -> Connecting {
        let connecting = tls.clone().connect(address.clone());
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    })
}
