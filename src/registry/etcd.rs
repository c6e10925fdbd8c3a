//! Membership in etcd: combines a registration and a discovery (see [`gaocache_discovery`]) into
//! the cache's registry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::telemetry::{metrics::Metrics, throttle::Throttle};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::{DEFAULT_WEIGHT, Member, MemberState, View},
    ports::{Clock, Registry, RegistryHealth, Session, Timestamp},
};
use gaocache_discovery::{
    Discovery, DiscoveryEvent, Endpoint, EtcdConfig, Registration, RegistrationEvent,
    RegistrationStatus, Snapshot,
};

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
        let (metrics, clock) = (self.metrics.clone(), self.clock.clone());
        let throttle = Throttle::default();
        move |event| match event {
            DiscoveryEvent::Heard => metrics.registry_heard(clock.now()),
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
        lease_end: Arc<AtomicU64>,
    ) -> impl Fn(&RegistrationEvent) + Send + Sync + 'static {
        let (metrics, clock) = (self.metrics.clone(), self.clock.clone());
        let throttle = Throttle::default();
        move |event| match event {
            RegistrationEvent::Renewed { left } => {
                let end = clock.now().after(*left);
                lease_end.store(end.0, Ordering::Relaxed);
                metrics.lease_renewed("ok");
                metrics.lease_expires(end);
                metrics.registry_heard(clock.now());
            }
            RegistrationEvent::RenewalFailed => metrics.lease_renewed("failed"),
            RegistrationEvent::LeaseLost => {
                metrics.lease_renewed("lost");
                tracing::warn!("the lease was lost; registering again under a new lease");
            }
            RegistrationEvent::Registered { reason } => {
                metrics.registered(reason);
                tracing::info!(reason, "registered in etcd");
            }
            RegistrationEvent::Superseded => {
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
        let prefix = prefix(&self.service);
        let discovery = Discovery::start_with(
            self.config.clone(),
            [prefix.clone()],
            self.discovery_listener(),
        );
        let lease_end = Arc::new(AtomicU64::new(0));
        // Watch first, then register, so that the node sees its own key appear. It is ready once it
        // has seen it.
        let listed = discovery.clone();
        let registration = Registration::start_after(
            self.config.clone(),
            format!("{prefix}{}", me.id),
            endpoint(&me),
            async move {
                listed.known().await;
            },
            self.registration_listener(lease_end.clone()),
        );
        let views = watch::Sender::new(View::default());
        let health = watch::Sender::new(RegistryHealth::default());
        let follow = follow(
            discovery,
            registration.status(),
            prefix,
            views.clone(),
            health.clone(),
        );
        let following = tokio::spawn(follow);
        Ok(Box::new(EtcdSession {
            registration: Mutex::new(Some(registration)),
            lease_end,
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

/// The prefix of a service's keys, as in Go's endpoints manager.
pub fn prefix(service: &str) -> String {
    format!("{service}/")
}

/// Converts snapshots to views, and the states of registration and discovery to health.
async fn follow(
    discovery: Discovery,
    mut status: watch::Receiver<RegistrationStatus>,
    prefix: String,
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
            let view = view(&prefix, &snapshot);
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

/// The members in a snapshot.
pub fn view(prefix: &str, snapshot: &Snapshot) -> View {
    let members = snapshot.endpoints.iter().map(|(key, endpoint)| {
        let id = key.strip_prefix(prefix).unwrap_or(key);
        member(id, endpoint)
    });
    View::new(snapshot.revision, members)
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
        state: if endpoint.text("state") == Some(MemberState::Draining.name()) {
            MemberState::Draining
        } else {
            MemberState::Serving
        },
        version: text("version"),
        admin_port: admin_port.unwrap_or(0),
        instance: text("instance"),
        lease: endpoint.lease,
        ..Member::new(id, endpoint.address.clone())
    }
}

struct EtcdSession {
    registration: Mutex<Option<Registration>>,
    /// 0 if there is no lease yet.
    lease_end: Arc<AtomicU64>,
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
        match self.lease_end.load(Ordering::Relaxed) {
            0 => None,
            end => Some(Timestamp(end)),
        }
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        self.health.subscribe()
    }

    async fn announce(&self, state: MemberState) -> Result<Option<u64>> {
        // Taken out during the call, since no lock may be held across it.
        let Some(registration) = self.registration.lock().take() else {
            return Err(Error::new(
                ErrorKind::NotReady,
                "this node is no longer registered",
            ));
        };
        let change = |endpoint: &mut Endpoint| {
            endpoint
                .metadata
                .insert("state".into(), state.name().into());
        };
        let mut put_back = PutBack {
            slot: &self.registration,
            registration: Some(registration),
        };
        match &mut put_back.registration {
            Some(registration) => {
                let updated = registration.update(change).await;
                updated.map(Some).map_err(registry_error)
            }
            None => Ok(None),
        }
    }

    async fn leave(&self) -> Result<Option<u64>> {
        let registration = self.registration.lock().take();
        match registration {
            Some(registration) => registration.close().await.map_err(registry_error),
            None => Ok(None),
        }
    }
}

/// Returns the registration even if the call that borrowed it is dropped midway by a timeout.
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
