//! A node's process: what the node's parts around the core do with their registration, expulsions
//! and notices.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{CALL, ETCD, LEASE, TICK, World, registry::Way};
use crate::{
    expulsion::Expulsion,
    harness_tests::{TestNode, peers, simulation::VirtualClock},
    membership::{Member, MemberState},
    notices::Heeded,
    ports::{Clock, Notice, RegistryHealth, Session, Timestamp},
    standing::Standing,
};

/// What a node knows of its registration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// The revision at which it was written.
    pub(super) at: u64,
    pub(super) end: Option<Timestamp>,
    pub(super) expelled: bool,
}

/// A node's process.
pub(super) struct Process {
    pub(super) world: Arc<World>,
    pub(super) node: Arc<TestNode>,
    pub(super) way: Arc<Way>,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) me: Mutex<Member>,
    pub(super) lease: watch::Sender<Lease>,
}

impl Process {
    fn me(&self) -> Member {
        self.me.lock().clone()
    }

    /// Brings each view and the notices, late.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut changed = self.world.changed.subscribe();
        changed.mark_changed();
        while changed.changed().await.is_ok() {
            self.world.dice.pause(100).await;
            if !self.world.links.pass(ETCD, &self.node.id).await {
                changed.mark_changed();
                continue;
            }
            let (view, notices) = {
                let etcd = self.world.etcd.lock();
                (etcd.view(), etcd.notices.clone())
            };
            self.node.install(&view);
            self.way.notices.send_replace(notices);
        }
    }

    /// Keeps the registration, as `gaocache_discovery`'s keeper does.
    pub(super) async fn register(self: Arc<Self>) {
        loop {
            sleep(LEASE / 6).await;
            let asked_at = self.clock.now();
            let (me, known) = (self.me(), *self.lease.borrow());
            if known.expelled {
                continue;
            }
            let end = asked_at.after(LEASE);
            let first = known.id == 0;
            let renewed = self.way.call(|it| {
                if it.renew(known.id) {
                    return Lease {
                        end: Some(end),
                        ..known
                    };
                }
                if !first && !it.lists(&me) {
                    return Lease {
                        expelled: true,
                        ..Lease::default()
                    };
                }
                let id = it.grant();
                it.write(Member { lease: id, ..me });
                Lease {
                    id,
                    at: it.revision,
                    end: Some(end),
                    expelled: false,
                }
            });
            if let Ok(lease) = renewed.await {
                self.lease.send_replace(lease);
            }
        }
    }

    /// As `node::standing` does it.
    pub(super) async fn live_on(self: Arc<Self>) {
        loop {
            self.join_others().await;
            self.stay().await;
            self.node.standing.fence.close();
            self.node.groups.drop_everything();
            let life = self.world.dice.number(..).to_string();
            {
                let mut me = self.me.lock();
                me.instance = life.into();
                me.state = MemberState::Joining;
            }
            self.lease.send_replace(Lease::default());
        }
    }

    /// The revision of a view that has this life; `None` if others have taken it off the list.
    async fn listed(&self) -> Option<u64> {
        let life = self.me().instance;
        let mut rings = self.node.cluster.rings();
        let mut leases = self.lease.subscribe();
        loop {
            let ring = rings.borrow_and_update().clone();
            let lease = *leases.borrow_and_update();
            let known = RegistryHealth {
                written: (lease.at > 0).then(|| (life.clone(), lease.at)),
                ..RegistryHealth::default()
            };
            if Standing::is_listed(&ring, &life, &known) {
                return Some(ring.view.revision);
            }
            if lease.expelled {
                return None;
            }
            tokio::select! {
                biased;
                changed = rings.changed() => changed.expect("lives"),
                changed = leases.changed() => changed.expect("lives"),
            }
        }
    }

    async fn join_others(&self) {
        let Some(revision) = self.listed().await else {
            return;
        };
        let mut seen = HashSet::new();
        loop {
            let topology = self.node.cluster.snapshot();
            for member in topology.others() {
                if !seen.contains(&member.incarnation()) && self.has_seen(member, revision).await {
                    seen.insert(member.incarnation());
                }
            }
            let topology = self.node.cluster.snapshot();
            if topology.others().all(|it| seen.contains(&it.incarnation())) {
                break;
            }
            sleep(TICK).await;
        }
        self.node.groups.drop_everything();
        let serving = Member {
            state: MemberState::Serving,
            ..self.me()
        };
        self.me.lock().state = MemberState::Serving;
        while !self.lease.borrow().expelled {
            let lease = self.lease.borrow().id;
            let serving = Member {
                lease,
                ..serving.clone()
            };
            let written = self.way.call(|it| {
                let ours = it
                    .keys
                    .get(&serving.id)
                    .is_some_and(|key| key.lease == lease);
                ours.then(|| it.write(serving)).is_some()
            });
            if matches!(written.await, Ok(true)) {
                return;
            }
            sleep(TICK).await;
        }
    }

    /// Whether that member has seen the revision: it says so itself, or through the registry.
    async fn has_seen(&self, member: &Member, revision: u64) -> bool {
        let other = self
            .world
            .alive
            .lock()
            .iter()
            .find(|it| it.id == member.id)
            .cloned();
        let Some(other) = other else { return false };
        let links = &self.world.links;
        let direct = async {
            links.pass(&self.node.id, &member.id).await
                && other.cluster.snapshot().view.revision >= revision
                && links.pass(&member.id, &self.node.id).await
        };
        if matches!(timeout(CALL / 2, direct).await, Ok(true)) {
            return true;
        }
        let through = async {
            other.cluster.snapshot().view.revision >= revision
                && links.pass(&member.id, ETCD).await
                && links.pass(ETCD, &self.node.id).await
        };
        matches!(timeout(CALL / 2, through).await, Ok(true))
    }

    async fn stay(&self) {
        let standing = &self.node.standing;
        while !self.lease.borrow().expelled {
            sleep(TICK).await;
            self.world.links.runs(&self.node.id).await;
            let now = self.clock.now();
            let lease_end = self.lease.borrow().end;
            if standing.rely_on_lease(lease_end, now) {
                let peers = peers(&self.world.net, &self.node.id, self.clock.clone());
                standing.ask_for_vouchers(&*peers, &*self.clock).await;
            }
        }
    }

    pub(super) async fn expel(self: Arc<Self>) {
        let expulsion = Expulsion {
            cluster: self.node.cluster.clone(),
            standing: self.node.standing.clone(),
            peers: peers(&self.world.net, &self.node.id, self.clock.clone()),
            clock: self.clock.clone(),
        };
        expulsion.run(|_, _| {}).await;
    }

    pub(super) async fn heed(self: Arc<Self>) {
        let mut notices = self.way.notices.subscribe();
        let mut heeded = Heeded::default();
        while notices.changed().await.is_ok() {
            self.world.links.runs(&self.node.id).await;
            let standing = notices.borrow_and_update().standing.clone();
            let Some(me) = self.node.standing.incarnation() else {
                continue;
            };
            let done = heeded.heed(me, &standing, |notice| {
                if let Notice::Remove { key, .. } = notice {
                    self.node.group.remove_here(key.as_deref());
                }
                true
            });
            let Some(done) = done else { continue };
            while self.way.confirm(me, &done).await.is_err() {}
        }
    }
}
