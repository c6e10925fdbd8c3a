//! What a node is made of, shared by everything that it runs.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use super::groups::put_in_force;
use crate::{
    admin::{Admin, Changes, Scrapes},
    auth::Permissions,
    fairness,
    group::GroupDefinition,
    rpc::peers::GrpcPeers,
    telemetry::{metrics::Metrics, throttle::Throttle, trace},
    traffic::Budget,
};
use gaocache_core::{
    cluster::Cluster,
    copy_queue::{CopyQueue, QueuedKeys},
    error::Result,
    group::{Groups, Shared},
    handoff::{Handoff, HandoffParts, HandoffRules},
    hot::{self, HotKeys},
    membership::Member,
    ports::{Clock, Session},
    standing::Standing,
    store::Store,
};

/// The parts that the node's tasks work on.
pub(super) struct Parts {
    pub(super) cluster: Arc<Cluster>,
    pub(super) peers: GrpcPeers,
    pub(super) groups: Groups,
    pub(super) handoff: Handoff,
    pub(super) standing: Arc<Standing>,
    /// For lines about members that vanished.
    pub(super) standing_throttle: Throttle,
    pub(super) owned: Arc<Store>,
    pub(super) hot: Arc<Store>,
    /// What groups that come later share with the others.
    #[cfg(feature = "cli")]
    pub(super) shared: Shared,
    pub(super) changes: Changes,
    /// Whether this node is joining and has been seen by all members that can be reached.
    pub(super) joining: watch::Sender<bool>,
    /// Why this node is not ready; empty: it is.
    pub(super) readiness: watch::Sender<Arc<str>>,
    pub(super) health: HealthReporter,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

/// Limits that were fixed at the start, and that new settings have to respect.
#[cfg(feature = "cli")]
#[derive(Clone)]
pub(super) struct Fixed {
    pub(super) budget: Arc<Budget>,
    /// Bytes.
    pub(super) capacity: u64,
    /// The largest value of any group at the start, in bytes: stores and messages are made for it.
    pub(super) largest: u64,
}

/// A node that is registered: its parts, and its session at the registry.
#[derive(Clone)]
pub(super) struct Joined {
    pub(super) parts: Arc<Parts>,
    pub(super) session: Arc<dyn Session>,
    /// As it registered first.
    pub(super) me: Member,
}

/// What ends in which order when a node stops.
#[derive(Clone, Default)]
pub(super) struct Stops {
    /// First: the background work on entries.
    pub(super) draining: CancellationToken,
    /// Then the listeners for clients and peers.
    pub(super) reads: CancellationToken,
    /// Last the admin listener: probes and metrics are wanted most while a node goes down.
    pub(super) admin: CancellationToken,
}

/// What [`Parts`] are assembled from.
pub(super) struct Assembly {
    pub(super) cluster: Arc<Cluster>,
    pub(super) peers: GrpcPeers,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) health: HealthReporter,
    pub(super) memory: Memory,
    pub(super) handoff: HandoffRules,
}

/// How much is kept, and for how long it may be served.
pub(super) struct Memory {
    /// Bytes.
    pub(super) capacity: u64,
    /// Requests after which another member's key becomes hot.
    pub(super) hot_after: u32,
    /// The largest value of any group, in bytes.
    pub(super) max_value: u64,
    /// The time to live of the node's lease, if it has one.
    pub(super) lease: Option<Duration>,
}

impl Assembly {
    /// The parts, and the keys that are to be copied to a second member.
    pub(super) fn parts(self, groups: Vec<GroupDefinition>) -> Result<(Parts, QueuedKeys)> {
        let (copies, queued_copies) = if self.handoff.replicas > 1 {
            CopyQueue::channel()
        } else {
            CopyQueue::nobody()
        };
        let standing = Arc::new(Standing::new(self.cluster.clone(), self.memory.lease));
        let shared = self.shared(&standing, copies);
        let definitions = groups;
        let groups = Groups::default();
        put_in_force(
            &groups,
            definitions,
            |_| None,
            &self.metrics,
            &shared,
            || (),
        )?;
        let handoff = Handoff::new(
            HandoffParts {
                groups: groups.clone(),
                cluster: self.cluster.clone(),
                peers: shared.peers.clone(),
                clock: self.clock.clone(),
                store: shared.owned.clone(),
                observer: self.metrics.handoff(),
            },
            self.handoff,
        );
        let parts = Parts {
            cluster: self.cluster,
            peers: self.peers,
            groups,
            handoff,
            standing,
            standing_throttle: Throttle::default(),
            joining: watch::Sender::new(false),
            owned: shared.owned.clone(),
            hot: shared.hot.clone(),
            #[cfg(feature = "cli")]
            shared,
            changes: Changes::default(),
            readiness: watch::Sender::new("starting".into()),
            health: self.health,
            metrics: self.metrics,
            clock: self.clock,
        };
        Ok((parts, queued_copies))
    }

    /// What the groups share.
    fn shared(&self, standing: &Arc<Standing>, copies: CopyQueue) -> Shared {
        let memory = &self.memory;
        let (owned_capacity, hot_capacity) = hot::divide(memory.capacity);
        let store = |capacity| {
            let store = Store::new(capacity, memory.max_value);
            Arc::new(store.under(standing.fence.clone()))
        };
        Shared {
            cluster: self.cluster.clone(),
            standing: standing.clone(),
            peers: Arc::new(self.peers.clone()),
            clock: self.clock.clone(),
            owned: store(owned_capacity),
            hot: store(hot_capacity),
            hot_keys: Arc::new(HotKeys::new(memory.hot_after)),
            replicas: self.handoff.replicas,
            copies,
            wrap_task: |task| fairness::wrap_task(trace::wrap_task(task)),
            askers: fairness::askers,
        }
    }
}

impl Parts {
    /// What the admin listener shows of them, until `stop`.
    pub(super) fn admin(
        &self,
        permissions: Permissions,
        budget: Arc<Budget>,
        stop: CancellationToken,
    ) -> Admin {
        Admin {
            permissions,
            id: self.cluster.my_id().clone(),
            readiness: self.readiness.subscribe(),
            cluster: self.cluster.clone(),
            groups: self.groups.clone(),
            peers: Arc::new(self.peers.clone()),
            metrics: self.metrics.clone(),
            changes: self.changes.clone(),
            stores: Arc::new([("owned", self.owned.clone()), ("hot", self.hot.clone())]),
            budget,
            scrapes: Scrapes::default(),
            settings: None,
            stop,
        }
    }
}
