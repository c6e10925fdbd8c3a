//! How many connections of clients and peers a node takes, in all and from one address.
//!
//! Connections to the listener for peers begin as those of strangers. They have a few places of
//! their own, and the oldest from the busiest address goes when all are taken: nobody can shut out
//! members, or take places from clients, without a member's key.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    lobby::{Lobby, Ticket},
    per_address::PerAddress,
};
use crate::{
    fairness::network,
    settings::ClientLimits,
    telemetry::{metrics::Metrics, throttle::Throttle},
};

/// Connections to the listener for peers that have not shown a member's key, at most.
const STRANGERS: usize = 256;
/// TLS handshakes of clients that are under way, at most. Each takes up to 32 KiB.
const HANDSHAKES: usize = 1024;

/// For labels and logs: the listener that has a thread of its own.
pub(super) const ADMIN: &str = "admin";

/// A listener whose connections the workers serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    Grpc,
    Http,
    Redis,
    Peer,
}

impl Listener {
    /// For labels and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Redis => "redis",
            Self::Peer => "peer",
        }
    }
}

/// Admits connections, within limits.
pub(super) struct Admission {
    most: AtomicUsize,
    most_per_address: AtomicUsize,
    /// Beyond `most`, for other members: clients must not shut them out.
    for_members: AtomicUsize,
    strangers: usize,
    /// Files that the process may open.
    files: Option<usize>,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
    throttle: Throttle,
}

#[derive(Default)]
struct Open {
    /// Of clients and members.
    total: usize,
    /// Of clients.
    by_address: PerAddress,
    /// To the listener for peers, without a member's key so far.
    strangers: Lobby,
    /// Of clients, with a TLS handshake that is under way.
    handshakes: Lobby,
}

/// One connection, while it lives.
pub(super) struct Permit {
    admission: Arc<Admission>,
    listener: Listener,
    slot: Slot,
}

/// What a connection counts as.
enum Slot {
    Client(IpAddr),
    /// A stranger, until it is known as a member.
    Peer {
        ticket: Ticket,
        is_member: AtomicBool,
    },
}

/// A TLS handshake of a client, while it is under way.
pub(super) struct Handshake<'a> {
    permit: &'a Permit,
    ticket: Ticket,
}

impl Admission {
    /// Limits for a process that may open so many files.
    pub(super) fn new(
        limits: &ClientLimits,
        files: Option<usize>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let admission = Self {
            most: AtomicUsize::default(),
            most_per_address: AtomicUsize::default(),
            for_members: AtomicUsize::default(),
            strangers: files.map_or(STRANGERS, |files| STRANGERS.min(files / 8)),
            files,
            open: Mutex::default(),
            metrics,
            throttle: Throttle::default(),
        };
        admission.limit(limits);
        Arc::new(admission)
    }

    /// From now on, takes so many. Connections that are open stay.
    pub(super) fn limit(&self, limits: &ClientLimits) {
        let files = self.files;
        let reserved = |files: usize| limits.reserved_descriptors.min(files / 2);
        let kept = |files| reserved(files) + self.strangers;
        let possible = files.map_or(usize::MAX, |files| files - kept(files));
        let most = limits.max_connections.min(possible);
        if most < limits.max_connections {
            tracing::warn!(
                max_connections = most,
                configured = limits.max_connections,
                max_open_files = files,
                "fewer connections are accepted than the limit allows, because the process may open \
                 only so many files (RLIMIT_NOFILE)"
            );
        }
        self.metrics
            .connections
            .limit
            .set(i64::try_from(most).unwrap_or(i64::MAX));
        let for_members = files.map_or(limits.reserved_descriptors, reserved) / 4;
        self.most.store(most, Ordering::Relaxed);
        let per_address = limits.max_connections_per_address;
        self.most_per_address.store(per_address, Ordering::Relaxed);
        self.for_members.store(for_members, Ordering::Relaxed);
    }

    /// The most connections that are taken.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Takes a connection, or refuses it; the refusal is counted and logged.
    pub(super) fn admit(self: &Arc<Self>, from: SocketAddr, listener: Listener) -> Option<Permit> {
        let address = network(from.ip());
        let slot = match listener {
            Listener::Peer => Slot::Peer {
                ticket: self.open.lock().strangers.enter(address, self.strangers),
                is_member: AtomicBool::new(false),
            },
            Listener::Grpc | Listener::Http | Listener::Redis => match self.slot(address) {
                Ok(slot) => slot,
                Err((reason, setting)) => {
                    self.refused(from, listener, reason, setting);
                    return None;
                }
            },
        };
        self.metrics.connections.open(listener.name()).inc();
        Some(Permit {
            admission: self.clone(),
            listener,
            slot,
        })
    }

    /// A client's place, or why there is none and by which setting.
    fn slot(&self, address: IpAddr) -> Result<Slot, (&'static str, &'static str)> {
        let mut open = self.open.lock();
        let per_address = self.most_per_address.load(Ordering::Relaxed);
        if open.by_address.has(address, per_address) {
            return Err(("address", "limits.max_connections_per_address"));
        }
        if open.total >= self.most() {
            return Err(("total", "limits.max_connections"));
        }
        open.total += 1;
        open.by_address.add(address);
        Ok(Slot::Client(address))
    }

    fn refused(&self, from: SocketAddr, listener: Listener, reason: &str, setting: &str) {
        let labels = [listener.name(), reason];
        self.metrics
            .connections
            .refusals
            .with_label_values(&labels)
            .inc();
        if let Some(suppressed) = self.throttle.due(reason) {
            tracing::warn!(
                %from, listener = listener.name(), setting, suppressed, "refused a connection"
            );
        }
    }

    /// A connection could not even be accepted.
    pub(super) fn failed(&self, listener: Listener, error: &std::io::Error) {
        let labels = [listener.name(), "failed"];
        self.metrics
            .connections
            .refusals
            .with_label_values(&labels)
            .inc();
        if let Some(suppressed) = self.throttle.due("failed") {
            tracing::warn!(
                %error, listener = listener.name(), suppressed, "could not accept a connection"
            );
        }
    }
}

impl Handshake<'_> {
    /// Is cancelled when it has to make room.
    pub(super) fn displaced(&self) -> &CancellationToken {
        &self.ticket.displaced
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let mut open = self.permit.admission.open.lock();
        open.handshakes.leave(&self.ticket);
    }
}

impl Permit {
    /// A TLS handshake of a client begins.
    pub(super) fn handshake(&self) -> Option<Handshake<'_>> {
        let Slot::Client(address) = &self.slot else {
            return None;
        };
        let mut open = self.admission.open.lock();
        let ticket = open.handshakes.enter(*address, HANDSHAKES);
        Some(Handshake {
            permit: self,
            ticket,
        })
    }

    /// Is cancelled when the connection, of a stranger, has to make room.
    pub(super) fn displaced(&self) -> CancellationToken {
        match &self.slot {
            Slot::Client(_) => CancellationToken::new(),
            Slot::Peer { ticket, .. } => ticket.displaced.clone(),
        }
    }

    /// The other end has shown a member's key: it frees its stranger's place, if a
    /// member's place is available.
    pub(super) fn is_of_member(&self) {
        let Slot::Peer { ticket, is_member } = &self.slot else {
            return;
        };
        if is_member.load(Ordering::Relaxed) {
            return;
        }
        let admission = &self.admission;
        let mut open = admission.open.lock();
        let most = admission.most() + admission.for_members.load(Ordering::Relaxed);
        if open.total < most && open.strangers.leave(ticket) {
            open.total += 1;
            is_member.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission
            .metrics
            .connections
            .open(self.listener.name())
            .dec();
        let mut open = self.admission.open.lock();
        match &self.slot {
            Slot::Client(address) => {
                open.total -= 1;
                open.by_address.remove(*address);
            }
            Slot::Peer { ticket, is_member } => {
                if is_member.load(Ordering::Relaxed) {
                    open.total -= 1;
                } else {
                    open.strangers.leave(ticket);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
