//! Which callers the listener for other nodes accepts: members, as the core finds them by what
//! their connection has proven. All others are refused before any part of a request is read.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::telemetry::{metrics::Metrics, throttle::Throttle};
use gaocache_core::{
    cluster::Cluster,
    error::{Error, ErrorKind, Result},
    identity::{Caller, Identity, Stranger},
    membership::IdHash,
};

/// The gate of a node. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Arc<Cluster>,
    metrics: Arc<Metrics>,
    throttle: Throttle,
}

/// The other end of a connection. Cheap to clone.
#[derive(Clone)]
pub struct Visitor {
    gate: Gate,
    caller: Arc<Caller>,
    from: SocketAddr,
    known: Known,
    /// Whether it has made a call as a member.
    was_heard: Arc<AtomicBool>,
}

/// Is called with each call that a member makes.
type Known = Arc<dyn Fn() + Send + Sync>;

impl Gate {
    /// Lets the members of this cluster in.
    pub fn new(cluster: Arc<Cluster>, metrics: Arc<Metrics>) -> Self {
        Self {
            inner: Arc::new(Inner {
                cluster,
                metrics,
                throttle: Throttle::default(),
            }),
        }
    }

    /// Who connected from there and has proven this; `known` hears of each call that it makes as a
    /// member.
    pub fn visitor(&self, identity: Identity, from: SocketAddr, known: Known) -> Visitor {
        Visitor {
            gate: self.clone(),
            caller: Arc::new(Caller::new(identity)),
            from,
            known,
            was_heard: Arc::default(),
        }
    }

    /// The other end could not prove that it holds a key.
    pub fn failed(&self, from: SocketAddr, error: &std::io::Error) {
        if let Some(suppressed) = self.refused("handshake") {
            tracing::warn!(
                %from, %error, suppressed,
                "refused a connection to the listener for nodes: it proved no identity"
            );
        }
    }

    /// Counts a refusal. Returns whether a line is due, and how many were suppressed.
    fn refused(&self, reason: &'static str) -> Option<u64> {
        let refusals = &self.inner.metrics.peers.refusals;
        refusals.with_label_values(&[reason]).inc();
        self.inner.throttle.due(reason)
    }
}

impl Visitor {
    /// Where it connected from.
    pub(super) fn from(&self) -> SocketAddr {
        self.from
    }

    /// Whether it is a member.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] if not, as far as this node knows. It may be known in a
    /// moment.
    pub(super) fn is_member(&self) -> Result<()> {
        let topology = self.gate.inner.cluster.topology();
        self.heard(self.caller.is_member(&topology))
    }

    /// Whether it may make calls that change nothing here: former members that may still run, too.
    ///
    /// # Errors
    /// As [`Visitor::is_member`].
    pub(super) fn may_ask(&self) -> Result<()> {
        self.heard(self.caller.may_ask(&self.gate.inner.cluster))
    }

    /// Returns when it has been heard, but would not have been for so long: its key is no member's
    /// any more.
    pub async fn is_forgotten(&self, patience: Duration) {
        let mut refused = Duration::ZERO;
        while refused < patience {
            let pause = patience / 4;
            tokio::time::sleep(pause).await;
            let is_refused = self.caller.may_ask(&self.gate.inner.cluster).is_err();
            refused = match is_refused && self.was_heard.load(Ordering::Relaxed) {
                true => refused + pause,
                false => Duration::ZERO,
            };
        }
    }

    /// Whether it may speak as the member with that incarnation. An unknown incarnation is not
    /// refused here: `Standing::may_accept` does that.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] if another member has it.
    pub(super) fn speaks_as(&self, sender: IdHash) -> Result<()> {
        let topology = self.gate.inner.cluster.topology();
        match self.caller.speaks_as(sender, &topology) {
            Err(Stranger::Impostor) => Err(self.refused(Stranger::Impostor)),
            Err(Stranger::Unknown) | Ok(()) => Ok(()),
        }
    }

    fn heard(&self, found: std::result::Result<(), Stranger>) -> Result<()> {
        found.map_err(|stranger| self.refused(stranger))?;
        if !self.was_heard.load(Ordering::Relaxed) {
            self.was_heard.store(true, Ordering::Relaxed);
        }
        (self.known)();
        Ok(())
    }

    fn refused(&self, stranger: Stranger) -> Error {
        let (from, identity) = (self.from, self.caller.identity());
        match stranger {
            Stranger::Unknown => {
                // Not as a warning: it is usual for a moment when a node joins.
                if let Some(suppressed) = self.gate.refused("unknown") {
                    tracing::info!(
                        %from, ?identity, suppressed,
                        "refused a call: no member that this node knows has this identity"
                    );
                }
                let what = "no member that this node knows has this identity (yet)";
                Error::new(ErrorKind::Unauthenticated, what)
            }
            Stranger::Impostor => {
                if let Some(suppressed) = self.gate.refused("sender") {
                    tracing::warn!(
                        %from, ?identity, suppressed,
                        "refused a call: its sender claims to be another member"
                    );
                }
                let what = "the sender is not the member that this connection belongs to";
                Error::new(ErrorKind::PermissionDenied, what)
            }
        }
    }
}
