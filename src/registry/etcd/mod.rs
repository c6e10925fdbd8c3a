//! Membership in etcd: combines a registration and a discovery (see [`gaocache_discovery`]) into
//! the cache's registry.

pub mod advice;
mod cluster_id;
mod error;
#[cfg(feature = "cli")]
mod forget;
mod keys;
mod lease_end;
mod members;
mod session;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "cli")]
pub use forget::{Forgotten, forget};
pub use keys::Keys;
pub(crate) use keys::check_service;
#[cfg(feature = "cli")]
pub use members::registered_at;
pub use members::view;

use super::notices::NoticeBoard;
use crate::telemetry::{metrics::Metrics, throttle::Throttle};
use advice::{SETTINGS, advised};
use cluster_id::ClusterId;
use gaocache_core::{
    error::Result,
    membership::{Member, MemberState},
    ports::{Clock, Registry, Session},
};
use gaocache_discovery::{
    DiscoveryEvent, EtcdConfig, RegistrationEvent,
    expulsion::{self, Records},
};
use lease_end::LeaseEnd;
pub(super) use members::endpoint;
use members::{of_cluster, registered_now};
use session::{Begins, EtcdSession};

/// The registry of one service.
pub struct EtcdRegistry {
    config: EtcdConfig,
    service: Arc<str>,
    cluster_id: Arc<str>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl EtcdRegistry {
    /// Nodes register as `<service>/<id>`. With a `cluster_id`, they join no other cluster.
    pub fn new(
        config: EtcdConfig,
        service: &str,
        cluster_id: &str,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            config,
            service: service.into(),
            cluster_id: cluster_id.into(),
            metrics,
            clock,
        }
    }

    fn discovery_listener(&self) -> impl Fn(&DiscoveryEvent) + Send + Sync + 'static {
        let metrics = self.metrics.clone();
        let throttle = Throttle::default();
        move |event| match event {
            DiscoveryEvent::Heard => metrics.etcd.heard(),
            DiscoveryEvent::Disconnected { cause } => {
                metrics.etcd.watch_reconnected();
                if let Some(suppressed) = throttle.due("watch") {
                    let cause = advised(cause, &SETTINGS, false);
                    tracing::warn!(%cause, suppressed, "the watch on etcd broke and is restarted; keeping the last ring");
                }
            }
            DiscoveryEvent::HistoryLost => tracing::warn!(
                "etcd lost its history (it was wiped or restored); keeping missing members for a while"
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
                metrics.etcd.lease_renewed("ok");
                metrics.membership.lease_expires(*left);
                metrics.etcd.heard();
            }
            RegistrationEvent::RenewalFailed => metrics.etcd.lease_renewed("failed"),
            RegistrationEvent::LeaseLost => {
                metrics.etcd.lease_renewed("lost");
                tracing::warn!("the lease was lost; registering again under a new lease");
            }
            RegistrationEvent::Registered { reason, lease: id } => {
                lease.registered(*id);
                metrics.etcd.registered(reason);
                tracing::info!(reason, "registered in etcd");
            }
            RegistrationEvent::Expelled => {
                lease.lost();
                metrics.etcd.registered("expelled");
                tracing::warn!(
                    "the other members took this node off the list while it could not be reached"
                );
            }
            RegistrationEvent::Superseded => {
                lease.lost();
                metrics.etcd.registered("superseded");
                tracing::error!(
                    "another process registered with this node's id; ids must be distinct"
                );
            }
            RegistrationEvent::Disconnected { cause } => {
                if let Some(suppressed) = throttle.due("registration") {
                    let cause = advised(cause, &SETTINGS, false);
                    tracing::warn!(%cause, suppressed, "could not register in etcd; retrying");
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
        let discovery = expulsion::follow(
            self.config.clone(),
            keys.range(),
            keys.young(),
            self.discovery_listener(),
        );
        let lease = Arc::new(LeaseEnd::default());
        let records = Records::new(self.config.clone());
        let cluster = ClusterId::new(&keys, records.clone(), &self.cluster_id);
        let cluster = Arc::new(cluster);
        // Watch first, then register: so the own key is seen coming, and a node is ready when it
        // has seen it.
        let begin = CancellationToken::new();
        let mut me = me;
        me.state = MemberState::Joining;
        let registration = expulsion::register(
            self.config.clone(),
            format!("{}{}", keys.members, me.id),
            keys.records(&me.id),
            of_cluster(registered_now(endpoint(&me)), cluster.known()),
            begin.clone().cancelled_owned(),
            self.registration_listener(lease.clone()),
        );
        Ok(Box::new(EtcdSession::new(
            records,
            cluster,
            NoticeBoard::new(self.config.clone(), &keys.notices),
            keys,
            lease,
            discovery,
            Begins {
                registration,
                at: begin,
            },
        )))
    }
}
