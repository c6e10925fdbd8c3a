//! A node's process: what the node's parts around the core do with their registration, expulsions
//! and notices.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    CALL, ETCD, HOLD, LEASE, TICK, World,
    registry::{Stored, Way},
};
use crate::{
    error::Result,
    expulsion::Expulsion,
    harness_tests::{TestNode, peers, simulation::VirtualClock},
    joining::{Confirmations, Listed, Listing},
    membership::{Member, MemberState, View},
    notices::CarriedOut,
    ports::{Clock, Notice, RegistryHealth, Session, Timestamp},
};

/// What a node knows of its registration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// The revision at which it was written.
    pub(super) at: u64,
    pub(super) end: Option<Timestamp>,
    pub(super) expelled: bool,
    /// The registry lost its data; this life goes on if it is registered again before that.
    pub(super) resumes_until: Option<Timestamp>,
}

/// The list of members, as `gaocache_discovery`'s follower keeps it.
#[derive(Default)]
struct List {
    losses: u64,
    members: Vec<Member>,
    /// Those that a registry that lost its data doesn't know, and until when they are kept.
    held: HashMap<Arc<str>, Instant>,
}

impl List {
    fn release_at(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// What is listed, and those that are held.
    fn follow(&mut self, listed: View, losses: u64) -> View {
        let now = Instant::now();
        self.held.retain(|_, until| now < *until);
        let unlisted = self
            .members
            .iter()
            .filter(|it| listed.member(&it.id).is_none());
        if losses != self.losses {
            self.losses = losses;
            for member in unlisted.clone() {
                self.held.entry(member.id.clone()).or_insert(now + HOLD);
            }
        }
        let held = unlisted.filter(|it| self.held.contains_key(&it.id));
        let held = held.map(|it| Member {
            held: true,
            ..it.clone()
        });
        let members: Vec<Member> = held.chain(listed.members.iter().cloned()).collect();
        self.members = members.clone();
        self.held.retain(|id, _| listed.member(id).is_none());
        View {
            young: listed.young,
            ..View::new(listed.revision, members)
        }
    }
}

/// A node's process.
pub(super) struct Process {
    pub(super) world: Arc<World>,
    pub(super) node: Arc<TestNode>,
    pub(super) way: Arc<Way>,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) me: Mutex<Member>,
}

impl Process {
    fn me(&self) -> Member {
        self.me.lock().clone()
    }

    /// Brings each view and the notices, late.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut changed = self.world.changed.subscribe();
        changed.mark_changed();
        let mut list = List::default();
        loop {
            let release_at = list.release_at();
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = sleep_until(release_at.unwrap_or_else(Instant::now)),
                    if release_at.is_some() => {}
            }
            self.world.dice.pause(100).await;
            if !self.world.links.pass(ETCD, &self.node.id).await {
                changed.mark_changed();
                continue;
            }
            let (view, losses, notices) = {
                let etcd = self.world.etcd.lock();
                (etcd.view(), etcd.losses, etcd.notices.clone())
            };
            if losses != list.losses && self.way.call(Stored::mark_young).await.is_err() {
                changed.mark_changed();
                continue;
            }
            self.node.install(&list.follow(view, losses));
            self.way.notices.send_replace(notices);
        }
    }

    /// Keeps the registration, as `gaocache_discovery`'s keeper does.
    pub(super) async fn register(self: Arc<Self>) {
        loop {
            sleep(LEASE / 6).await;
            if !self.way.lease.borrow().expelled {
                // An error says that the registry was out of reach.
                let _ = self.keep_registered().await;
            }
        }
    }

    async fn keep_registered(&self) -> Result<()> {
        let asked_at = self.clock.now();
        let (me, mut known) = (self.me(), *self.way.lease.borrow());
        let found = self.way.call(|it| {
            let (renewed, listed) = (it.renew(known.id), it.lists(&me));
            let key = it.keys.get(&me.id);
            let good = key.is_some_and(|it| it.lease == known.id && it.state == me.state);
            // A backup may have the key of an earlier life.
            let taken = key.is_some_and(|it| it.instance != me.instance);
            if renewed && listed && !taken && !good {
                // Somebody deleted it by hand.
                it.write(Member {
                    lease: known.id,
                    ..me.clone()
                });
                known.at = it.revision;
            }
            (renewed, it.revision, listed, taken)
        });
        let (renewed, revision, listed, taken) = found.await?;
        if known.id != 0 && (taken || (renewed && !listed)) {
            self.way.lease.send_modify(|it| it.expelled = true);
            return Ok(());
        }
        if renewed {
            known.end = Some(asked_at.after(LEASE));
            self.way.lease.send_replace(known);
            return Ok(());
        }
        let lives = known.end.filter(|end| self.clock.now() < *end);
        let forgot = lives.is_some() && revision < known.at;
        if forgot {
            known.resumes_until = lives;
            self.way.lease.send_replace(known);
        } else if known.id != 0 && !listed {
            self.way.lease.send_modify(|it| it.expelled = true);
            return Ok(());
        }
        let asked_at = self.clock.now();
        let written = self.way.call(|it| {
            it.mark();
            let id = it.grant();
            it.write(Member { lease: id, ..me });
            (id, it.revision)
        });
        let (id, at) = written.await?;
        let late = known.resumes_until.is_some_and(|it| it <= self.clock.now());
        self.way.lease.send_replace(Lease {
            id,
            at,
            end: Some(asked_at.after(LEASE)),
            expelled: late,
            resumes_until: known.resumes_until.filter(|_| late),
        });
        Ok(())
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
            self.way.lease.send_replace(Lease::default());
        }
    }

    /// This life, once it is on the list; `None` if others have taken it off the list before.
    async fn listed(&self) -> Option<Listed> {
        let life = self.me().instance;
        let mut rings = self.node.cluster.rings();
        let mut leases = self.way.lease.subscribe();
        loop {
            let ring = rings.borrow_and_update().clone();
            let lease = *leases.borrow_and_update();
            let known = RegistryHealth {
                written: (lease.id > 0).then(|| (life.clone(), lease.id)),
                expelled: lease.expelled,
                ..RegistryHealth::default()
            };
            match Listing::of(&life, &ring, &known) {
                Listing::Listed(listed) => return Some(listed),
                Listing::Ended => return None,
                Listing::Awaited => {}
            }
            tokio::select! {
                biased;
                changed = rings.changed() => changed.expect("lives"),
                changed = leases.changed() => changed.expect("lives"),
            }
        }
    }

    async fn join_others(&self) {
        let Some(listed) = self.listed().await else {
            return;
        };
        let mut confirmations = Confirmations::default();
        loop {
            let topology = self.node.cluster.snapshot();
            if !listed.holds_in(&topology) {
                return Box::pin(self.join_others()).await;
            }
            confirmations.follow(&topology);
            for member in topology.others() {
                let at = member.incarnation();
                if confirmations.lack(at) && self.has_seen(member, listed.revision).await {
                    confirmations.confirmed(at);
                }
            }
            confirmations.follow(&self.node.cluster.topology());
            if confirmations.are_complete() {
                break;
            }
            sleep(TICK).await;
        }
        if !matches!(self.way.call(|it| it.is_young()).await, Ok(false)) {
            sleep(TICK).await;
            return Box::pin(self.join_others()).await;
        }
        self.node.groups.drop_everything();
        let serving = Member {
            state: MemberState::Serving,
            ..self.me()
        };
        self.me.lock().state = MemberState::Serving;
        while !self.way.lease.borrow().expelled {
            let lease = self.way.lease.borrow().id;
            let serving = Member {
                lease,
                ..serving.clone()
            };
            let written = self.way.call(|it| {
                let ours = it
                    .keys
                    .get(&serving.id)
                    .is_some_and(|key| key.lease == lease);
                ours.then(|| it.write(serving))?;
                Some(it.revision)
            });
            if let Ok(Some(at)) = written.await {
                self.way.lease.send_if_modified(|it| {
                    let same = it.id == lease;
                    it.at = if same { at } else { it.at };
                    same
                });
                return;
            }
            sleep(TICK).await;
        }
    }

    /// Whether that member has seen the revision, and this node on the list: it says so itself, or
    /// through the registry.
    async fn has_seen(&self, member: &Member, revision: u64) -> bool {
        let other = self
            .world
            .alive
            .lock()
            .iter()
            .find(|it| it.id == member.id)
            .cloned();
        let Some(other) = other else { return false };
        let me = self.me().incarnation();
        let links = &self.world.links;
        let direct = async {
            links.pass(&self.node.id, &member.id).await
                && other.cluster.snapshot().has_seen(revision, me)
                && links.pass(&member.id, &self.node.id).await
        };
        if matches!(timeout(CALL / 2, direct).await, Ok(true)) {
            return true;
        }
        let through = async {
            other.cluster.snapshot().has_seen(revision, me)
                && links.pass(&member.id, ETCD).await
                && links.pass(ETCD, &self.node.id).await
        };
        matches!(timeout(CALL / 2, through).await, Ok(true))
    }

    async fn stay(&self) {
        let standing = &self.node.standing;
        while !self.way.lease.borrow().expelled {
            sleep(TICK).await;
            self.world.links.runs(&self.node.id).await;
            let now = self.clock.now();
            if standing.fence.has_lapsed(now) {
                return;
            }
            if standing.rely_on_lease(self.way.lease(), now) {
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

    pub(super) async fn carry_out(self: Arc<Self>) {
        let mut notices = self.way.notices.subscribe();
        let mut carried_out = CarriedOut::default();
        while notices.changed().await.is_ok() {
            self.world.links.runs(&self.node.id).await;
            let standing = notices.borrow_and_update().standing.clone();
            let Some(me) = self.node.standing.incarnation() else {
                continue;
            };
            let done = carried_out.carry_out(me, &standing, |notice| {
                if let Notice::Remove { what, .. } = notice {
                    self.node.group.remove_here(what);
                }
                true
            });
            let Some(done) = done else { continue };
            while self.way.confirm(me, &done).await.is_err() {}
        }
    }
}
