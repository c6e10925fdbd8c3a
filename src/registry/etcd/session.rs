//! The session of one member: what it asks of etcd while it is on the list, and what it hears.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::advice::{SETTINGS, advised};
use super::{
    cluster_id::ClusterId,
    error::registry_error,
    keys::Keys,
    lease_end::LeaseEnd,
    members::{SINCE, view},
};
use crate::registry::notices::NoticeBoard;
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::{IdHash, Member, MemberState, View},
    ports::{HeldLease, Notice, NoticeId, Notices, RegistryHealth, Session},
};
use gaocache_discovery::{
    Discovery, Endpoint, Registration, RegistrationStatus,
    expulsion::{CLUSTER, IDENTITY, Records},
};

/// A node's membership in etcd, for as long as it lives.
pub(super) struct EtcdSession {
    registration: Mutex<Option<Registration>>,
    records: Records,
    cluster: Arc<ClusterId>,
    board: NoticeBoard,
    keys: Keys,
    lease: Arc<LeaseEnd>,
    discovery: Discovery,
    /// Cancelled when the registration may begin.
    begin: CancellationToken,
    /// The revision at which this node announced that it serves; 0: not yet in this incarnation.
    serves_since: AtomicU64,
    views: watch::Sender<View>,
    health: watch::Sender<RegistryHealth>,
    following: tokio::task::JoinHandle<()>,
}

/// A registration, and what is cancelled when it may begin.
pub(super) struct Begins {
    pub(super) registration: Registration,
    pub(super) at: CancellationToken,
}

impl EtcdSession {
    /// Of this registration, and of what the discovery hears.
    pub(super) fn new(
        records: Records,
        cluster: Arc<ClusterId>,
        board: NoticeBoard,
        keys: Keys,
        lease: Arc<LeaseEnd>,
        discovery: Discovery,
        Begins { registration, at }: Begins,
    ) -> Self {
        let views = watch::Sender::new(View::default());
        let health = watch::Sender::new(RegistryHealth::default());
        let follow = follow(
            discovery.clone(),
            registration.status(),
            keys.clone(),
            cluster.clone(),
            views.clone(),
            health.clone(),
        );
        Self {
            registration: Mutex::new(Some(registration)),
            records,
            cluster,
            board,
            keys,
            lease,
            discovery,
            begin: at,
            serves_since: AtomicU64::new(0),
            views,
            health,
            following: tokio::spawn(follow),
        }
    }
}

impl Drop for EtcdSession {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[async_trait]
impl Session for EtcdSession {
    async fn holder(&self, me: &Member) -> Option<Member> {
        let view = view(&self.keys, &self.discovery.known().await);
        let holder = view.member(&me.id).cloned();
        holder.filter(|it| it.instance != me.instance)
    }

    fn register(&self) {
        self.begin.cancel();
    }

    fn views(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    fn lease(&self) -> Option<HeldLease> {
        self.lease.get()
    }

    async fn rejoin(&self, instance: &str) -> Result<()> {
        self.change(|endpoint| {
            let metadata = &mut endpoint.metadata;
            metadata.insert(IDENTITY.into(), instance.into());
            metadata.insert("state".into(), MemberState::Joining.name().into());
            metadata.remove(SINCE);
            self.serves_since.store(0, Ordering::Release);
        })
        .await
        .map(|_| ())
    }

    async fn has_ended(&self, member: &Member) -> Result<bool> {
        let ended = self.records.has_ended(member.lease).await;
        ended.map_err(registry_error)
    }

    async fn expel(&self, member: &Member) -> Result<bool> {
        let record = self.keys.records(&member.id).record;
        let deleted = self.records.delete_unchanged(&record, member.recorded_at);
        let deleted = deleted.await.map_err(registry_error)?;
        if deleted && let Err(error) = self.board.forget(member.incarnation()).await {
            tracing::debug!(%error, "what an expelled member confirmed stays in etcd");
        }
        Ok(deleted)
    }

    async fn is_young(&self) -> Result<bool> {
        let young = self.records.holds(self.keys.young()).await;
        young.map_err(registry_error)
    }

    async fn post(&self, notice: &Notice) -> Result<NoticeId> {
        self.board.post(notice).await.map_err(registry_error)
    }

    async fn withdraw(&self, posted: NoticeId) -> Result<()> {
        self.board.withdraw(posted).await.map_err(registry_error)
    }

    async fn confirm(&self, me: IdHash, done: &BTreeSet<NoticeId>) -> Result<()> {
        let confirmed = self.board.confirm(me, done).await;
        confirmed.map_err(registry_error)
    }

    fn notices(&self) -> Option<watch::Receiver<Notices>> {
        Some(self.board.notices())
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }

    async fn announce(&self, state: MemberState) -> Result<Option<u64>> {
        // Nobody serves who doesn't know where it belongs.
        let cluster = match state {
            MemberState::Serving => Some(self.cluster.join(&self.discovery.list()).await?),
            _ => None,
        };
        let since = self.serves_since.load(Ordering::Acquire);
        let change = |endpoint: &mut Endpoint| {
            let metadata = &mut endpoint.metadata;
            metadata.insert("state".into(), state.name().into());
            if since > 0 {
                metadata.insert(SINCE.into(), since.into());
            }
            if let Some(cluster) = cluster {
                metadata.insert(CLUSTER.into(), (*cluster).into());
            }
        };
        let revision = self.change(change).await?;
        if state == MemberState::Serving && since == 0 {
            let now = revision.unwrap_or(0);
            self.serves_since.store(now, Ordering::Release);
        }
        Ok(revision)
    }

    async fn leave(&self) -> Result<Option<u64>> {
        let registration = self.registration.lock().take();
        match registration {
            Some(registration) => registration.close().await.map_err(registry_error),
            None => Ok(None),
        }
    }
}

impl EtcdSession {
    /// Changes what is registered; returns the revision from which on a view has it.
    async fn change(&self, change: impl FnOnce(&mut Endpoint) + Send) -> Result<Option<u64>> {
        if !self.begin.is_cancelled() {
            let what = "this node has not registered yet";
            return Err(Error::new(ErrorKind::NotReady, what));
        }
        // Taken out during the call, because no lock may be held across it.
        let Some(registration) = self.registration.lock().take() else {
            return Err(Error::new(ErrorKind::NotReady, "no registration to change"));
        };
        let put_back = PutBack {
            slot: &self.registration,
            registration: Some(registration),
        };
        match &put_back.registration {
            Some(registration) => {
                let updated = registration.update(change).await;
                updated.map(Some).map_err(registry_error)
            }
            None => Ok(None),
        }
    }
}

/// Gives the registration back even when the call that borrowed it is dropped half-way, by a
/// timeout.
struct PutBack<'a> {
    slot: &'a Mutex<Option<Registration>>,
    registration: Option<Registration>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        *self.slot.lock() = self.registration.take();
    }
}

/// The incarnation that is registered, and under which lease.
fn written(status: &RegistrationStatus) -> Option<(Arc<str>, i64)> {
    let life = status.registered.as_ref()?.text(IDENTITY)?;
    Some((life.into(), status.lease))
}

/// Converts snapshots to views, and the states of registration and discovery to health.
async fn follow(
    discovery: Discovery,
    mut status: watch::Receiver<RegistrationStatus>,
    keys: Keys,
    cluster: Arc<ClusterId>,
    views: watch::Sender<View>,
    health: watch::Sender<RegistryHealth>,
) {
    let mut snapshots = discovery.changes();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let registration = status.borrow_and_update().clone();
        let another = cluster.conflict(&snapshot);
        let problem = if registration.problem.is_empty() {
            &snapshot.problem
        } else {
            &registration.problem
        };
        let next = RegistryHealth {
            registered: registration.registered.is_some(),
            written: written(&registration),
            conflict: registration.superseded || another.is_some(),
            expelled: registration.expelled || registration.superseded,
            problem: match &another {
                Some(another) => another.as_str().into(),
                None => advised(problem, &SETTINGS, !snapshot.known).into(),
            },
        };
        health.send_if_modified(|current| {
            let changed = *current != next;
            if let Some(why) = another.as_ref().filter(|_| current.problem != next.problem) {
                tracing::error!(%why, "takes no part in another cluster");
            }
            *current = next;
            changed
        });
        // The last ring stays, as if etcd were away.
        if snapshot.known && another.is_none() {
            let view = view(&keys, &snapshot);
            views.send_if_modified(|current| {
                let changed = *current != view;
                *current = view;
                changed
            });
        }
        let changed = tokio::select! {
            changed = snapshots.changed() => changed,
            changed = status.changed() => match changed {
                Ok(()) => Ok(()),
                // Deregistered. The watch continues until the session is dropped.
                Err(_) => snapshots.changed().await,
            },
        };
        if changed.is_err() {
            return;
        }
    }
}
