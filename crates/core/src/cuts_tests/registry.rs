//! The registry: its leases, keys, records and notices, and one node's way to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{CALL, ETCD, LEASE, World, YOUNG, process::Lease};
use crate::{
    error::{Error, ErrorKind, Result},
    membership::{IdHash, Member, MemberState, View},
    ports::{HeldLease, Notice, NoticeId, Notices, RegistryHealth, Session},
};

/// What is in the registry.
#[derive(Clone, Default)]
pub(super) struct Stored {
    /// How often everything was lost, or went back to a backup.
    pub(super) losses: u64,
    /// Nobody has registered since.
    unmarked: bool,
    young_until: Option<Instant>,
    pub(super) revision: u64,
    pub(super) leases: HashMap<i64, Instant>,
    pub(super) next_lease: i64,
    pub(super) keys: BTreeMap<Arc<str>, Member>,
    pub(super) records: BTreeMap<Arc<str>, Member>,
    pub(super) notices: Notices,
}

impl Stored {
    /// Takes away the keys whose leases have ended.
    pub(super) fn sweep(&mut self) -> bool {
        let now = Instant::now();
        self.leases.retain(|_, until| now < *until);
        let before = self.keys.len();
        self.keys
            .retain(|_, member| self.leases.contains_key(&member.lease));
        let changed = self.keys.len() < before;
        let grown = self.young_until.take_if(|it| *it <= now).is_some();
        self.revision += u64::from(changed) + u64::from(grown);
        changed || grown
    }

    /// Everything is lost. Leases are not named alike later.
    pub(super) fn lose_all(&mut self) {
        *self = Self {
            losses: self.losses + 1,
            unmarked: true,
            next_lease: self.next_lease,
            ..Self::default()
        };
    }

    /// It goes back to a backup: all leases of then have their whole time again. Others may have
    /// written to it since, until its revision is past the one before.
    pub(super) fn restore(&mut self, backup: Self, written: u64) {
        *self = Self {
            losses: self.losses + 1,
            next_lease: self.next_lease,
            revision: backup.revision + written,
            ..backup
        };
        let now = Instant::now();
        self.leases.values_mut().for_each(|it| *it = now + LEASE);
        self.young_until = self.young_until.map(|_| now + YOUNG);
    }

    /// Comes before a registration: the first one marks the history as young.
    pub(super) fn mark(&mut self) {
        if self.unmarked {
            self.unmarked = false;
            self.mark_young();
        }
    }

    /// By a registration, or by whoever finds that history was lost.
    pub(super) fn mark_young(&mut self) {
        if self.young_until.is_none() {
            self.revision += 1;
            self.young_until = Some(Instant::now() + YOUNG);
        }
    }

    pub(super) fn is_young(&self) -> bool {
        self.young_until.is_some()
    }

    pub(super) fn grant(&mut self) -> i64 {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, Instant::now() + LEASE);
        self.next_lease
    }

    pub(super) fn renew(&mut self, lease: i64) -> bool {
        let found = self.leases.get_mut(&lease);
        found.map(|until| *until = Instant::now() + LEASE).is_some()
    }

    pub(super) fn write(&mut self, mut member: Member) {
        self.revision += 1;
        member.recorded_at = i64::try_from(self.revision).expect("few");
        // As the keeper does: what the record that is replaced says of an earlier life. Once that
        // life is expelled, there is none, and this one doesn't stand in for it.
        let replaced = self.records.get(&member.id);
        member.restarted = replaced.is_some_and(|it| {
            let same_life = it.instance == member.instance;
            it.restarted || (!same_life && it.state != MemberState::Joining)
        });
        self.keys.insert(member.id.clone(), member.clone());
        let record = Member {
            vanished: true,
            ..member
        };
        self.records.insert(record.id.clone(), record);
    }

    pub(super) fn lists(&self, member: &Member) -> bool {
        let record = self.records.get(&member.id);
        record.is_some_and(|it| it.instance == member.instance)
    }

    pub(super) fn view(&self) -> View {
        let known = self.records.values().chain(self.keys.values());
        View {
            young: self.is_young(),
            ..View::new(self.revision, known.cloned())
        }
    }
}

/// One node's way to the registry.
pub(super) struct Way {
    pub(super) world: Arc<World>,
    pub(super) id: Arc<str>,
    pub(super) notices: watch::Sender<Notices>,
    /// What the node knows of its registration.
    pub(super) lease: watch::Sender<Lease>,
}

impl Way {
    /// A call to the registry.
    pub(super) async fn call<T>(&self, work: impl FnOnce(&mut Stored) -> T) -> Result<T> {
        let answer = async {
            let links = &self.world.links;
            if !links.pass(&self.id, ETCD).await {
                return None;
            }
            let done = work(&mut self.world.etcd.lock());
            self.world.changed.send_replace(());
            links.pass(ETCD, &self.id).await.then_some(done)
        };
        let answer = timeout(CALL, answer).await.ok().flatten();
        answer.ok_or_else(|| Error::new(ErrorKind::Registry, "out of reach"))
    }
}

#[async_trait]
impl Session for Way {
    fn views(&self) -> watch::Receiver<View> {
        watch::Sender::new(View::default()).subscribe()
    }

    fn lease(&self) -> Option<HeldLease> {
        let Lease {
            id, end, expelled, ..
        } = *self.lease.borrow();
        let end = end.filter(|_| !expelled)?;
        Some(HeldLease { id, end })
    }

    async fn has_ended(&self, member: &Member) -> Result<bool> {
        let lease = member.lease;
        self.call(|it| !it.leases.contains_key(&lease)).await
    }

    async fn expel(&self, member: &Member) -> Result<bool> {
        let done = self.call(|it| {
            let record = it.records.get(&member.id);
            let unchanged = record.is_some_and(|it| it.recorded_at == member.recorded_at);
            if unchanged {
                it.records.remove(&member.id);
                it.revision += 1;
            }
            unchanged
        });
        let done = done.await?;
        self.world
            .expulsions
            .fetch_add(usize::from(done), Ordering::Relaxed);
        Ok(done)
    }

    async fn post(&self, notice: &Notice) -> Result<NoticeId> {
        let id = NoticeId(self.world.dice.number(..));
        let posted = self.call(|it| it.notices.standing.insert(id, notice.clone()));
        posted.await.map(|_| id)
    }

    async fn withdraw(&self, posted: NoticeId) -> Result<()> {
        self.call(|it| it.notices.standing.remove(&posted))
            .await
            .map(|_| ())
    }

    async fn confirm(&self, me: IdHash, done: &BTreeSet<NoticeId>) -> Result<()> {
        self.call(|it| it.notices.confirmed.insert(me, done.clone()))
            .await
            .map(|_| ())
    }

    fn notices(&self) -> Option<watch::Receiver<Notices>> {
        Some(self.notices.subscribe())
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        watch::Sender::new(RegistryHealth::default()).subscribe()
    }

    async fn announce(&self, _: MemberState) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn leave(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}
