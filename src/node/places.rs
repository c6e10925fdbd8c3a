//! The places for connections of the admin listener.
//!
//! Clients must never keep out probes by connections that ask nothing: where all places are taken,
//! one of those makes room.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    admission::ADMIN,
    lobby::{Lobby, Ticket},
    per_address::PerAddress,
};
use crate::{
    settings::ClientLimits,
    telemetry::{metrics::Metrics, throttle::Throttle},
    traffic::Traffic,
};

/// How long a connection keeps its place although it has sent no request: what it sends needs time
/// to arrive.
const SILENT_TIMEOUT: Duration = Duration::from_millis(50);
/// The same for one that has not been read yet, since its thread is busy, or its TLS handshake goes
/// on.
const UNREAD_TIMEOUT: Duration = Duration::from_millis(500);
/// While all places are in use, how often it is looked whether one can be given away.
const PAUSE: Duration = Duration::from_millis(5);

/// The places, in all and by address.
pub(super) struct Places {
    taken: Mutex<Taken>,
    most: usize,
    most_per_address: usize,
    metrics: Arc<Metrics>,
    throttle: Throttle,
}

#[derive(Default)]
struct Taken {
    lobby: Lobby<Guest>,
    by_address: PerAddress,
}

/// A connection, as far as it decides whether it has to make room.
struct Guest {
    since: Instant,
    traffic: Arc<Traffic>,
}

impl Guest {
    fn may_go(&self) -> bool {
        let patience = match self.traffic.is_read() {
            true => SILENT_TIMEOUT,
            false => UNREAD_TIMEOUT,
        };
        !self.traffic.is_in_use() && self.since.elapsed() >= patience
    }
}

/// The place of a connection, while it lives.
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    ticket: Ticket,
}

impl Place {
    /// Is cancelled when the connection has to make room.
    pub(super) fn displaced(&self) -> &CancellationToken {
        &self.ticket.displaced
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.lobby.leave(&self.ticket);
        taken.by_address.remove(self.address);
        self.places.metrics.connections.open(ADMIN).dec();
    }
}

impl Places {
    pub(super) fn new(limits: &ClientLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            most: limits.max_admin_connections,
            most_per_address: limits.max_admin_connections_per_address,
            metrics,
            throttle: Throttle::default(),
        })
    }

    /// A place, once there is one. `None`: the address has as many as it may; that is counted and
    /// logged.
    pub(super) async fn take(
        self: &Arc<Self>,
        from: SocketAddr,
        traffic: Arc<Traffic>,
    ) -> Option<Place> {
        let address = from.ip();
        let mut guest = Guest {
            since: Instant::now(),
            traffic,
        };
        loop {
            match self.try_take(address, guest) {
                Ok(Some(ticket)) => {
                    return Some(Place {
                        places: self.clone(),
                        address,
                        ticket,
                    });
                }
                Ok(None) => {
                    self.refused(from);
                    return None;
                }
                Err(it) => guest = it,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A ticket, or none if the address has as many as it may; or the guest, if all are taken.
    fn try_take(&self, address: IpAddr, guest: Guest) -> Result<Option<Ticket>, Guest> {
        let mut taken = self.taken.lock();
        if taken.by_address.has(address, self.most_per_address) {
            return Ok(None);
        }
        let ticket = taken
            .lobby
            .try_enter(address, self.most, guest, Guest::may_go)?;
        taken.by_address.add(address);
        self.metrics.connections.open(ADMIN).inc();
        Ok(Some(ticket))
    }

    fn refused(&self, from: SocketAddr) {
        let refusals = &self.metrics.connections.refusals;
        refusals.with_label_values(&[ADMIN, "address"]).inc();
        if let Some(suppressed) = self.throttle.due("address") {
            let setting = "limits.max_admin_connections_per_address";
            tracing::warn!(%from, listener = ADMIN, setting, suppressed, "refused a connection");
        }
    }
}
