//! The node that is attacked, and what can be seen of it from outside.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::{
    attack::Attack,
    common::{CountingOrigin, etcd::free_port, process::NodeProcess},
};

pub const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 64 * MIB;
/// What a node may take beside entries and bytes in flight.
const REST: u64 = 64 * MIB;

/// A node under attack.
pub struct Target {
    pub node: NodeProcess,
    pub redis: u16,
    peak: AtomicU64,
}

/// What the lease has gone through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Membership {
    registrations: f64,
    expulsions: f64,
}

impl Target {
    /// A node for this attack, ready to serve.
    pub async fn start(attack: &Attack, etcd: &str, folder: &Path) -> Self {
        let origin = CountingOrigin::start().await;
        origin.takes(attack.origin_takes);
        let redis = free_port();
        let path = folder.display();
        let mut settings = vec![format!("redis.listen=127.0.0.1:{redis}")];
        settings.extend(attack.settings.iter().map(|setting| {
            let setting = setting.replace("FOLDER", &path.to_string());
            setting.replace("ORIGIN", &origin.url())
        }));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let mut node = NodeProcess::start("n0", &[etcd], &origin.url(), &settings);
        if let Some(most) = attack.descriptors {
            node.kill();
            node.revive_with_descriptors(most);
        }
        node.until_ready().await;
        Self {
            node,
            redis,
            peak: AtomicU64::new(0),
        }
    }

    /// The most memory that it may take.
    pub async fn bound(&self) -> u64 {
        let in_flight = self.node.metric("gaocache_in_flight_limit_bytes", "").await;
        CAPACITY + in_flight as u64 + REST
    }

    /// Follows its memory.
    pub async fn watch_memory(self: Arc<Self>) {
        loop {
            let now = self.node.resident_bytes();
            self.peak.fetch_max(now, Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The most memory that was seen.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// A change of this means that it has lost its lease.
    pub async fn membership(&self) -> Membership {
        Membership {
            registrations: self.node.metric("gaocache_registrations_total", "").await,
            expulsions: self.node.metric("gaocache_expulsions_total", "").await,
        }
    }
}
