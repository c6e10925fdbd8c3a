//! The TLS handshake of a client's connection.

use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Handshake, Listener},
    connection::Carrier,
};
use crate::{
    tls::{ClientNames, Refused, ServerTls, Speaks, Stream, Trust},
    traffic::Cut,
};

/// A connection of a client, the names that it has proven, and whether they still count.
pub(super) type Begun = (Stream, Option<ClientNames>, Trust);

impl Carrier {
    /// Runs the handshake within its time limit and returns the connection; without TLS, returns it
    /// unchanged. `None`: the handshake failed, which has been counted. `place` is given back in
    /// any case.
    pub(super) async fn begin(
        &self,
        listener: &'static str,
        tls: Option<&ServerTls>,
        stream: TcpStream,
        place: Option<Handshake<'_>>,
        stop: &CancellationToken,
    ) -> Option<Begun> {
        let Some(tls) = tls else {
            return Some((Stream::Plain(stream), None, Trust::UNPROVEN));
        };
        let from = stream.peer_addr().ok()?;
        let displaced = place
            .as_ref()
            .map_or_else(CancellationToken::new, |place| place.displaced().clone());
        let accepted = timeout(self.patience().handshake, tls.accept(stream));
        let accepted = async {
            let accepted = displaced.run_until_cancelled(accepted).await;
            if accepted.is_none() {
                self.cut(listener, Cut::Displaced);
            }
            accepted
        };
        match stop.run_until_cancelled(accepted).await?? {
            Ok(Ok(begun)) => return Some(begun),
            // As probes of load balancers do.
            Ok(Err(Refused::Gone)) => {}
            Ok(Err(Refused::Plaintext(client))) => {
                let what = "the client speaks plaintext, but this listener requires TLS";
                // Counted first: how long the client takes to read the answer changes nothing.
                self.refused(listener, from, "plaintext", &what);
                let speaks = match listener == Listener::Redis.name() {
                    true => Speaks::Redis,
                    false => Speaks::Http,
                };
                let told = timeout(self.patience().handshake, client.tell(speaks));
                let _ = stop
                    .run_until_cancelled(displaced.run_until_cancelled(told))
                    .await;
            }
            Ok(Err(Refused::Handshake(error))) => self.refused(listener, from, "tls", &error),
            Err(_) => self.cut(listener, Cut::Handshake),
        }
        None
    }
}
