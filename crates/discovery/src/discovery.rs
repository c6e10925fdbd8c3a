//! Keeps a list of everything under one or more prefixes. This is the user-facing part; the work is
//! in [`super::follower`].

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    connector::EtcdConfig,
    follower::Follower,
    snapshot::{DiscoveryEvent, KeyRange, Snapshot},
};

/// Follows prefixes until it is dropped. Cheap to clone.
///
/// ```no_run
/// # async fn example() {
/// use gaocache_discovery::{Discovery, EtcdConfig};
///
/// let etcd = EtcdConfig::new(["http://etcd-0:2379", "http://etcd-1:2379"]);
/// let discovery = Discovery::start(etcd, ["greeter/"]);
/// let snapshot = discovery.known().await;
/// for (key, endpoint) in snapshot.endpoints.iter() {
///     println!("{key} is at {}", endpoint.address);
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Discovery {
    snapshots: watch::Receiver<Snapshot>,
    _stop: Arc<DropGuard>,
}

impl Discovery {
    /// Starts to follow `prefixes`. Returns immediately.
    pub fn start<S: Into<String>>(
        config: EtcdConfig,
        prefixes: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::start_with(config, prefixes, |_| {})
    }

    /// As [`Discovery::start`], but calls `listener` for each event.
    pub fn start_with<S: Into<String>>(
        config: EtcdConfig,
        prefixes: impl IntoIterator<Item = S>,
        listener: impl Fn(&DiscoveryEvent) + Send + Sync + 'static,
    ) -> Self {
        let ranges = prefixes.into_iter().map(KeyRange::prefix);
        Self::start_ranges(config, ranges, listener)
    }

    /// Begins to follow ranges of keys. Changes within one range are seen in the order in which
    /// they were made; between ranges there is no order.
    pub fn start_ranges(
        config: EtcdConfig,
        ranges: impl IntoIterator<Item = KeyRange>,
        listener: impl Fn(&DiscoveryEvent) + Send + Sync + 'static,
    ) -> Self {
        Self::start_marking(config, ranges, None, listener)
    }

    /// The same, with a key by which the history is marked as young where it was lost; see
    /// [`follow`](crate::expulsion::follow).
    pub(crate) fn start_marking(
        config: EtcdConfig,
        ranges: impl IntoIterator<Item = KeyRange>,
        young: Option<String>,
        listener: impl Fn(&DiscoveryEvent) + Send + Sync + 'static,
    ) -> Self {
        let (publish, snapshots) = watch::channel(Snapshot::default());
        let stop = CancellationToken::new();
        let follower = Follower::new(
            config,
            ranges.into_iter().collect(),
            young,
            publish,
            Box::new(listener),
        );
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = follower.run() => {}
            }
        });
        Self {
            snapshots,
            _stop: Arc::new(stop.drop_guard()),
        }
    }

    /// The current snapshot.
    pub fn list(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// The current snapshot, and every later one.
    pub fn changes(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// Resolves with the first snapshot from etcd.
    pub async fn known(&self) -> Snapshot {
        let mut snapshots = self.snapshots.clone();
        match snapshots.wait_for(|snapshot| snapshot.known).await {
            Ok(snapshot) => snapshot.clone(),
            Err(_) => self.list(),
        }
    }
}
