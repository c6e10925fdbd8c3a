//! One connection from its first byte to its last, within the limits on its client.

use std::{
    fmt,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::socket::Socket;
use crate::{
    fairness::{ClientId, Quotas},
    settings::ClientLimits,
    telemetry::{metrics::Metrics, throttle::Throttle},
    tls::{Stream, Trust},
    traffic::{Budget, Cut, Patience, Traffic},
};

/// How long a client has to see that its idle connection is being closed.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the connections of some listeners have in common. Cheap to clone.
#[derive(Clone)]
pub(super) struct Carrier {
    budget: Arc<Budget>,
    quotas: Arc<Quotas>,
    limits: Arc<ArcSwap<Limits>>,
    metrics: Arc<Metrics>,
    throttle: Arc<Throttle>,
}

/// What a connection is held to, from its begin on.
#[derive(Clone, Copy)]
struct Limits {
    patience: Patience,
    most_control_frames: u32,
}

impl Limits {
    fn of(limits: &ClientLimits) -> Self {
        Self {
            patience: Patience {
                handshake: limits.handshake_timeout,
                idle: limits.idle_timeout,
                write: limits.write_timeout,
                untrusted: limits.untrusted_timeout,
            },
            most_control_frames: limits.max_control_frames_per_second,
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
enum Ended {
    /// In order.
    Closed,
    /// With an error, as clients do all the time.
    Failed(String),
    /// By this node.
    Cut(Cut),
}

impl Carrier {
    /// Connections whose answers count against `budget`, of clients with these quotas.
    pub(super) fn new(
        budget: Arc<Budget>,
        quotas: Arc<Quotas>,
        limits: &ClientLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            budget,
            quotas,
            limits: Arc::new(ArcSwap::from_pointee(Limits::of(limits))),
            metrics,
            throttle: Arc::default(),
        }
    }

    /// Holds connections that begin from now on to these limits.
    #[cfg(feature = "cli")]
    pub(super) fn limit(&self, limits: &ClientLimits) {
        self.limits.store(Arc::new(Limits::of(limits)));
    }

    pub(super) fn patience(&self) -> Patience {
        self.limits.load().patience
    }

    /// Of a connection of another node, or through the admin socket.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Traffic::new(self.budget.clone())
    }

    /// Of a client's connection.
    pub(super) fn traffic_from(&self, from: SocketAddr) -> Arc<Traffic> {
        let client = self.quotas.connected(ClientId::at(from.ip()));
        Traffic::of_client(self.budget.clone(), client)
    }

    pub(super) fn socket(&self, stream: Stream, traffic: Arc<Traffic>) -> Socket {
        Socket::new(stream, traffic, self.limits.load().most_control_frames)
    }

    /// Drives a connection to its end: the client's, the node's (`stop`), that of the patience with
    /// it, or that of the trust in it. `shut_down` has it end in order.
    pub(super) async fn carry<C, E>(
        &self,
        listener: &'static str,
        connection: C,
        shut_down: fn(Pin<&mut C>),
        traffic: &Traffic,
        stop: &CancellationToken,
        mut trust: Trust,
    ) where
        C: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let mut connection = pin!(connection);
        let patience = self.patience();
        let mut overstays = pin!(traffic.overstays(&patience));
        let mut trusted = pin!(trust.ends(patience.untrusted));
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                biased;
                result = connection.as_mut() => break match result {
                    Ok(()) => Ended::Closed,
                    Err(_) if traffic.is_flood() => Ended::Cut(Cut::Flood),
                    Err(error) => Ended::Failed(error.to_string()),
                },
                cut = overstays.as_mut() => break Ended::Cut(cut),
                () = trusted.as_mut() => break Ended::Cut(Cut::Untrusted),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    shut_down(connection.as_mut());
                }
            }
        };
        // Before the client hears of it, so that it is counted once the client sees it closed.
        self.ended(listener, &ended);
        if let Ended::Cut(Cut::Idle | Cut::Untrusted) = ended {
            // It may be about to send a request, which is then answered.
            shut_down(connection.as_mut());
            let _ = timeout(GOODBYE, connection.as_mut()).await;
        }
    }

    /// The connection was refused before it could be driven.
    pub(super) fn refused(
        &self,
        listener: &'static str,
        from: SocketAddr,
        reason: &'static str,
        error: &dyn fmt::Display,
    ) {
        let refusals = &self.metrics.connections.refusals;
        refusals.with_label_values(&[listener, reason]).inc();
        if let Some(suppressed) = self.throttle.due(reason) {
            tracing::warn!(listener, %from, reason, %error, suppressed, "refused a connection");
        }
    }

    /// The connection was cut before it could be driven.
    pub(super) fn cut(&self, listener: &'static str, cut: Cut) {
        self.ended(listener, &Ended::Cut(cut));
    }

    fn ended(&self, listener: &'static str, ended: &Ended) {
        match ended {
            Ended::Closed => {}
            // Clients hang up all the time; the reason is there at debug level.
            Ended::Failed(error) => {
                tracing::debug!(listener, error, "a connection ended with an error");
            }
            Ended::Cut(cut) => {
                let reason = cut.name();
                let labels = [listener, reason];
                let cuts = &self.metrics.connections.cuts;
                cuts.with_label_values(&labels).inc();
                // An idle connection is nobody's fault.
                if *cut == Cut::Idle {
                    tracing::debug!(listener, reason, "cut a connection");
                } else if let Some(suppressed) = self.throttle.due(reason) {
                    tracing::warn!(listener, reason, suppressed, "cut a connection");
                }
            }
        }
    }
}
