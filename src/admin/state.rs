//! What the admin listener shows, and where it comes from.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{changes::Changes, scrapes::Scrapes};
use crate::{auth::Permissions, telemetry::metrics::Metrics, traffic::Budget};
use gaocache_core::{cluster::Cluster, error::Result, group::Groups, ports::Peers, store::Store};

/// Why a node is not ready; empty if it is ready.
pub type Readiness = watch::Receiver<Arc<str>>;

/// The data that the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    /// This node's id.
    pub id: Arc<str>,
    /// Why it is not ready.
    pub readiness: Readiness,
    /// Its cluster, with the current ring.
    pub cluster: Arc<Cluster>,
    /// Its groups.
    pub groups: Groups,
    /// Its calls to other members.
    pub peers: Arc<dyn Peers>,
    /// Who may do what.
    pub(crate) permissions: Permissions,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// The latest ring changes.
    pub changes: Changes,
    /// Its stores, by tier.
    pub stores: Arc<[(&'static str, Arc<Store>)]>,
    /// The bytes in flight.
    pub budget: Arc<Budget>,
    /// The rendering of the metrics that scrapes of one moment share.
    pub scrapes: Scrapes,
    /// The current settings; `None` if the embedding program has settings of its own.
    pub settings: Option<Reloads>,
    /// Cancelled when the listener is about to close, so that no client is kept waiting.
    pub stop: CancellationToken,
}

/// A request to the program around the node; receives the outcome. A program that embeds a node
/// has its own settings and makes no use of it.
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
pub enum Wish {
    /// Read the settings again.
    Reload(Tell),
    /// Take this member off the list.
    Forget(String, Tell),
}

/// Receives the outcome.
pub type Tell = oneshot::Sender<Result<Value>>;

/// The current settings, and where to request a reload.
#[derive(Clone)]
pub struct Reloads {
    /// As they are shown.
    pub in_force: watch::Receiver<Arc<Value>>,
    /// Takes requests; a bounded queue.
    pub wishes: mpsc::Sender<Wish>,
}

impl Admin {
    /// The metrics, with what is read only when they are.
    pub(super) fn render(&self) -> Result<Bytes> {
        let budget = &self.budget;
        self.metrics
            .connections
            .in_flight(budget.used(), budget.limit(), budget.refused());
        for (tier, store) in self.stores.iter() {
            let stores = &self.metrics.stores;
            stores.holds(tier, store.capacity(), store.purged_tags());
            for group in self.groups.ever() {
                let stats = store.stats(group.id());
                self.metrics.stores.of_group(group.name(), tier, stats);
            }
        }
        self.metrics.render().map(Bytes::from)
    }
}
