//! What a connection of a client begins with, where its listener speaks TLS.

use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Carrier;
use crate::{
    tls::{ClientNames, ListenerTls, Refused, Stream},
    traffic::Cut,
};

/// A connection of a client, and the names that it has proven.
pub(super) type Begun = (Stream, Option<ClientNames>);

impl Carrier {
    /// The connection after its handshake, within the time for that; as it is where the listener
    /// speaks plaintext. `None`: there is none; that was counted.
    pub(super) async fn begin(
        &self,
        listener: &'static str,
        tls: Option<&ListenerTls>,
        stream: TcpStream,
        stop: &CancellationToken,
    ) -> Option<Begun> {
        let Some(tls) = tls else {
            return Some((Stream::Plain(stream), None));
        };
        let from = stream.peer_addr().ok()?;
        let handshake = timeout(self.patience().handshake, tls.accept(stream));
        match stop.run_until_cancelled(handshake).await? {
            Ok(Ok(begun)) => return Some(begun),
            // As probes of load balancers do.
            Ok(Err(Refused::Gone)) => {}
            Ok(Err(Refused::Plaintext)) => {
                let what = "the client speaks plaintext, and this listener TLS";
                self.refused(listener, from, "plaintext", &what);
            }
            Ok(Err(Refused::Handshake(error))) => self.refused(listener, from, "tls", &error),
            Err(_) => self.cut(listener, Cut::Handshake),
        }
        None
    }
}
