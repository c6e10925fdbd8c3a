//! Membership in etcd: combines a registration and a discovery (see [`gaocache_discovery`]) into
//! the cache's registry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use crate::telemetry::{metrics::Metrics, throttle::Throttle};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::{DEFAULT_WEIGHT, IdHash, Member, MemberState, View},
    ports::{Clock, Notice, Notices, Registry, RegistryHealth, Session, Timestamp},
};
use gaocache_discovery::{
    Discovery, DiscoveryEvent, Endpoint, EtcdConfig, IDENTITY, KeyRange, PREDECESSOR, Records,
    Registration, RegistrationEvent, RegistrationStatus, Snapshot,
};

use super::notices::NoticeBoard;

/// The registry of one service.
pub struct EtcdRegistry {
    config: EtcdConfig,
    service: Arc<str>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl EtcdRegistry {
    /// Nodes register as `<service>/<id>`.
    pub fn new(
        config: EtcdConfig,
        service: &str,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            config,
            service: service.into(),
            metrics,
            clock,
        }
    }

    fn discovery_listener(&self) -> impl Fn(&DiscoveryEvent) + Send + Sync + 'static {
        let metrics = self.metrics.clone();
        let throttle = Throttle::default();
        move |event| match event {
            DiscoveryEvent::Heard => metrics.registry_heard(),
            DiscoveryEvent::Disconnected { cause } => {
                metrics.watch_reconnected();
                if let Some(suppressed) = throttle.due("watch") {
                    tracing::warn!(%cause, suppressed, "the watch on etcd broke and is restarted; keeping the last ring");
                }
            }
            DiscoveryEvent::HistoryLost => tracing::warn!(
                "etcd lost its history (it was wiped or restored); keeping missing members for one lease"
            ),
            DiscoveryEvent::Malformed { key } => {
                if let Some(suppressed) = throttle.due(key) {
                    tracing::warn!(%key, suppressed, "ignoring a key of the service: its value is not an endpoint");
                }
            }
            _ => {}
        }
    }

    fn registration_listener(
        &self,
        lease: Arc<LeaseEnd>,
    ) -> impl Fn(&RegistrationEvent) + Send + Sync + 'static {
        let (metrics, clock) = (self.metrics.clone(), self.clock.clone());
        let throttle = Throttle::default();
        move |event| match event {
            RegistrationEvent::Renewing => lease.asked(clock.now()),
            RegistrationEvent::Renewed { ttl, left } => {
                lease.renewed(*ttl);
                metrics.lease_renewed("ok");
                metrics.lease_expires(*left);
                metrics.registry_heard();
            }
            RegistrationEvent::RenewalFailed => metrics.lease_renewed("failed"),
            RegistrationEvent::LeaseLost => {
                metrics.lease_renewed("lost");
                tracing::warn!("the lease was lost; registering again under a new lease");
            }
            RegistrationEvent::Registered { reason } => {
                lease.registered();
                metrics.registered(reason);
                tracing::info!(reason, "registered in etcd");
            }
            RegistrationEvent::Expelled => {
                lease.lost();
                metrics.registered("expelled");
                tracing::warn!(
                    "the other members took this node off the list while it could not be reached"
                );
            }
            RegistrationEvent::Superseded => {
                lease.lost();
                metrics.registered("superseded");
                tracing::error!(
                    "another process registered with this node's id; ids must be distinct"
                );
            }
            RegistrationEvent::Disconnected { cause } => {
                if let Some(suppressed) = throttle.due("registration") {
                    tracing::warn!(%cause, suppressed, "could not reach etcd; retrying");
                }
            }
            _ => {}
        }
    }
}

#[async_trait]
impl Registry for EtcdRegistry {
    fn lease(&self) -> Option<Duration> {
        Some(self.config.lease_ttl)
    }

    async fn join(&self, me: Member) -> Result<Box<dyn Session>> {
        let keys = Keys::of(&self.service);
        let discovery = Discovery::start_ranges(
            self.config.clone(),
            [keys.range()],
            self.discovery_listener(),
        );
        let lease = Arc::new(LeaseEnd::default());
        // Watch first, then register: so the own key is seen coming, and a node is ready when it
        // has seen it.
        let listed = discovery.clone();
        let mut me = me;
        me.state = MemberState::Joining;
        let registration = Registration::start_recorded(
            self.config.clone(),
            format!("{}{}", keys.members, me.id),
            Some(format!("{}{}", keys.roster, me.id)),
            endpoint(&me),
            async move {
                listed.known().await;
            },
            self.registration_listener(lease.clone()),
        );
        let views = watch::Sender::new(View::default());
        let health = watch::Sender::new(RegistryHealth::default());
        let follow = follow(
            discovery,
            registration.status(),
            keys.clone(),
            views.clone(),
            health.clone(),
        );
        let following = tokio::spawn(follow);
        Ok(Box::new(EtcdSession {
            registration: Mutex::new(Some(registration)),
            records: Records::new(self.config.clone()),
            board: NoticeBoard::new(self.config.clone(), &self.service),
            keys,
            lease,
            views,
            health,
            following,
        }))
    }
}

/// Converts an error of the discovery library to an error of this crate.
pub fn registry_error(error: gaocache_discovery::Error) -> Error {
    let kind = match error.kind() {
        gaocache_discovery::ErrorKind::Configuration => ErrorKind::Configuration,
        _ => ErrorKind::Registry,
    };
    Error::new(kind, error.message()).with_source(error)
}

/// Where a service's keys are in etcd.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The members that are registered, as Go's endpoints manager has it.
    members: String,
    /// Their records, by which they are known after they vanished.
    roster: String,
    service: String,
}

impl Keys {
    /// Those of `service`.
    pub fn of(service: &str) -> Self {
        Self {
            members: format!("{service}/"),
            roster: format!("{service}.roster/"),
            service: service.into(),
        }
    }

    /// One range holds both, so that their changes are seen in order: `.` comes right before `/`,
    /// and `0` right after.
    pub fn range(&self) -> KeyRange {
        let Self { service, .. } = self;
        KeyRange::new(format!("{service}."), format!("{service}0"))
    }
}

/// Converts snapshots to views, and the states of registration and discovery to health.
async fn follow(
    discovery: Discovery,
    mut status: watch::Receiver<RegistrationStatus>,
    keys: Keys,
    views: watch::Sender<View>,
    health: watch::Sender<RegistryHealth>,
) {
    let mut snapshots = discovery.changes();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let registration = status.borrow_and_update().clone();
        let next = RegistryHealth {
            registered: registration.registered.is_some(),
            conflict: registration.superseded,
            expelled: registration.expelled,
            problem: if registration.problem.is_empty() {
                snapshot.problem.clone()
            } else {
                registration.problem
            },
        };
        health.send_if_modified(|current| {
            let changed = *current != next;
            *current = next;
            changed
        });
        if snapshot.known {
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

/// The members that a snapshot holds: those that are registered, and those that have a record and
/// vanished.
pub fn view(keys: &Keys, snapshot: &Snapshot) -> View {
    let of = |prefix: &str| {
        let endpoints = snapshot.endpoints.iter();
        let named = endpoints.filter_map(|(key, it)| Some((key.strip_prefix(prefix)?, it)));
        named.map(|(id, it)| member(id, it)).collect::<Vec<_>>()
    };
    let registered = of(&keys.members);
    let recorded = of(&keys.roster).into_iter().map(|it| Member {
        vanished: true,
        ..it
    });
    // Of two with one id the later stays: who is registered has not vanished.
    View::new(snapshot.revision, recorded.chain(registered))
}

fn endpoint(me: &Member) -> Endpoint {
    Endpoint::new(me.address.clone())
        .with_metadata("id", &*me.id)
        .with_metadata("zone", &*me.zone)
        .with_metadata("version", &*me.version)
        .with_metadata("weight", me.weight)
        .with_metadata("state", me.state.name())
        .with_metadata("admin_port", me.admin_port)
        .with_metadata("instance", &*me.instance)
}

/// The id is the last part of the key, regardless of the metadata, because etcd keeps keys
/// distinct.
fn member(id: &str, endpoint: &Endpoint) -> Member {
    let text = |name: &str| Arc::from(endpoint.text(name).unwrap_or_default());
    let weight = endpoint
        .number("weight")
        .and_then(|weight| u32::try_from(weight).ok());
    let admin_port = endpoint
        .number("admin_port")
        .and_then(|port| u16::try_from(port).ok());
    Member {
        zone: text("zone"),
        weight: weight
            .filter(|weight| *weight > 0)
            .unwrap_or(DEFAULT_WEIGHT),
        state: match endpoint.text("state") {
            Some(state) if state == MemberState::Draining.name() => MemberState::Draining,
            Some(state) if state == MemberState::Joining.name() => MemberState::Joining,
            _ => MemberState::Serving,
        },
        version: text("version"),
        admin_port: admin_port.unwrap_or(0),
        instance: text("instance"),
        // A record has no lease of its own, and names its registration's.
        lease: match endpoint.metadata.get("lease").and_then(Value::as_i64) {
            Some(lease) if endpoint.lease == 0 => lease,
            _ => endpoint.lease,
        },
        recorded_at: endpoint.revision,
        restarted: endpoint.text(PREDECESSOR).is_some(),
        ..Member::new(id, endpoint.address.clone())
    }
}

struct EtcdSession {
    registration: Mutex<Option<Registration>>,
    records: Records,
    board: NoticeBoard,
    keys: Keys,
    lease: Arc<LeaseEnd>,
    views: watch::Sender<View>,
    health: watch::Sender<RegistryHealth>,
    following: tokio::task::JoinHandle<()>,
}

impl Drop for EtcdSession {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[async_trait]
impl Session for EtcdSession {
    fn views(&self) -> watch::Receiver<View> {
        self.views.subscribe()
    }

    fn lease_end(&self) -> Option<Timestamp> {
        self.lease.get()
    }

    async fn rejoin(&self, instance: &str) -> Result<()> {
        self.change(|endpoint| {
            let metadata = &mut endpoint.metadata;
            metadata.insert(IDENTITY.into(), instance.into());
            metadata.insert("state".into(), MemberState::Joining.name().into());
        })
        .await
        .map(|_| ())
    }

    async fn has_ended(&self, member: &Member) -> Result<bool> {
        let ended = self.records.has_ended(member.lease).await;
        ended.map_err(registry_error)
    }

    async fn expel(&self, member: &Member) -> Result<bool> {
        let record = format!("{}{}", self.keys.roster, member.id);
        let deleted = self.records.delete_unchanged(&record, member.recorded_at);
        let deleted = deleted.await.map_err(registry_error)?;
        if deleted && let Err(error) = self.board.forget(member.incarnation()).await {
            tracing::debug!(%error, "what an expelled member confirmed stays in etcd");
        }
        Ok(deleted)
    }

    async fn post(&self, notice: &Notice) -> Result<u64> {
        self.board.post(notice).await.map_err(registry_error)
    }

    async fn withdraw(&self, revision: u64) -> Result<()> {
        self.board.withdraw(revision).await.map_err(registry_error)
    }

    async fn confirm(&self, me: IdHash, revision: u64) -> Result<()> {
        let confirmed = self.board.confirm(me, revision).await;
        confirmed.map_err(registry_error)
    }

    fn notices(&self) -> Option<watch::Receiver<Notices>> {
        Some(self.board.notices())
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }

    async fn announce(&self, state: MemberState) -> Result<Option<u64>> {
        let change = |endpoint: &mut Endpoint| {
            let state = state.name().into();
            endpoint.metadata.insert("state".into(), state);
        };
        self.change(change).await
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
        // Taken out for the time of the call: no lock may be held over it.
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

/// Until when the lease surely lives.
#[derive(Default)]
struct LeaseEnd {
    /// When the last renewal was about to be sent.
    asked_at: AtomicU64,
    /// 0: not known.
    end: AtomicU64,
    /// Whether this node stands in etcd under it.
    registered: AtomicBool,
}

impl LeaseEnd {
    fn asked(&self, now: Timestamp) {
        self.asked_at.store(now.0, Ordering::Release);
    }

    /// The renewal that was asked for last was acknowledged. Its end counts from the asking, by a
    /// clock that goes on while the machine is suspended: from the answer on would be too long.
    fn renewed(&self, ttl: Duration) {
        let asked_at = Timestamp(self.asked_at.load(Ordering::Acquire));
        self.end.store(asked_at.after(ttl).0, Ordering::Release);
    }

    fn registered(&self) {
        self.registered.store(true, Ordering::Release);
    }

    fn lost(&self) {
        self.registered.store(false, Ordering::Release);
    }

    fn get(&self) -> Option<Timestamp> {
        let end = self.end.load(Ordering::Acquire);
        (end != 0 && self.registered.load(Ordering::Acquire)).then_some(Timestamp(end))
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_end_of_a_lease_counts_from_the_asking() {
        let lease = LeaseEnd::default();
        lease.asked(Timestamp(1_000));
        lease.renewed(Duration::from_secs(10));
        assert_eq!(lease.get(), None, "nothing stands under it yet");
        lease.registered();
        assert_eq!(lease.get(), Some(Timestamp(11_000)));
        // However late the answer is read: the process may have been paused before.
        lease.asked(Timestamp(5_000));
        assert_eq!(lease.get(), Some(Timestamp(11_000)), "not yet acknowledged");
        lease.renewed(Duration::from_secs(10));
        assert_eq!(lease.get(), Some(Timestamp(15_000)));
        lease.lost();
        assert_eq!(lease.get(), None);
    }

    #[test]
    fn an_error_about_etcd_is_the_registry_s_unless_the_configuration_is_wrong() {
        let away = tonic::Status::unavailable("no leader");
        for (error, kind) in [
            (etcd_client::Error::GRpcStatus(away), ErrorKind::Registry),
            (
                etcd_client::Error::InvalidArgs("no endpoint".into()),
                ErrorKind::Configuration,
            ),
        ] {
            let error = registry_error(error.into());
            assert_eq!(error.kind(), kind, "{error}");
            let cause = error.source().expect("a cause");
            assert!(cause.is::<gaocache_discovery::Error>(), "{cause}");
            assert!(cause.source().is_some(), "and the cause of that");
        }
    }

    #[test]
    fn a_member_stands_in_etcd_and_comes_back_the_same() {
        let me = Member {
            zone: "b".into(),
            weight: 7,
            state: MemberState::Draining,
            version: "1.2".into(),
            admin_port: 9090,
            instance: "abc".into(),
            ..Member::new("gaocache-0", "10.0.0.7:7070")
        };
        let stored = endpoint(&me).to_json();
        let read = Endpoint::from_stored(&stored).expect("an endpoint");
        assert_eq!(member("gaocache-0", &read), me);
        let bare = Endpoint::from_stored(b"10.0.0.8:7070").expect("an endpoint");
        assert_eq!(
            member("other", &bare),
            Member::new("other", "10.0.0.8:7070")
        );
        let odd = Endpoint::new("h:1")
            .with_metadata("weight", 0)
            .with_metadata("zone", 5);
        assert_eq!(member("odd", &odd).weight, DEFAULT_WEIGHT);
    }
}
