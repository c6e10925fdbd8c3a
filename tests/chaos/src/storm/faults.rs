//! One fault: begins, holds, is mended.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use fastrand::Rng;
use tokio::{sync::OwnedMutexGuard, time::sleep};

use crate::{board::InForce, kind::Kind, node::Node, process::Process, world::World};

/// A node whose process no other fault touches meanwhile.
pub type Held = (Arc<Node>, OwnedMutexGuard<Option<Process>>);

/// A fault of the storm.
pub struct Fault {
    pub world: Arc<World>,
    pub kind: Kind,
    pub rng: Rng,
}

impl Fault {
    /// Not yet active.
    pub fn new(world: Arc<World>, kind: Kind, rng: Rng) -> Self {
        Self { world, kind, rng }
    }

    /// Resolves when it is mended. Does nothing if there is no node to suffer it.
    ///
    /// # Errors
    /// If it can't be inflicted or mended.
    pub async fn inflict(&mut self) -> Result<()> {
        match self.kind {
            Kind::EtcdLink => self.etcd_link().await,
            Kind::EtcdLinks => self.etcd_links().await,
            Kind::PeerLink | Kind::PeerLinkOneWay => self.peer_link().await,
            Kind::OffMembers => self.off_members().await,
            Kind::OffEverything => self.off_everything().await,
            Kind::EtcdSplit => self.etcd_split().await,
            Kind::FreezeShort => self.freeze(0.2, 0.8).await,
            Kind::FreezeLong => self.freeze(1.3, 2.5).await,
            Kind::Kill => self.kill().await,
            Kind::Roll => self.roll().await,
            Kind::Scale => self.scale().await,
            Kind::EtcdMember => self.etcd_member().await,
            Kind::EtcdDown => self.etcd_down().await,
            Kind::EtcdEmptied => self.etcd_emptied().await,
            Kind::EtcdRestored => self.etcd_restored().await,
            Kind::KeyDeleted => self.key_deleted().await,
            Kind::Clock => self.clock().await,
            Kind::SlowOrigin | Kind::HungOrigin | Kind::FailingOrigin => self.origin().await,
            Kind::SlowReaders => self.slow_readers().await,
        }
    }

    /// A random time between so many leases and so many.
    pub fn leases(&mut self, least: f64, most: f64) -> Duration {
        let share = least + self.rng.f64() * (most - least);
        self.world.lease().mul_f64(share)
    }

    /// Stays active for such a time.
    pub async fn hold(&mut self, least: f64, most: f64) {
        let time = self.leases(least, most);
        sleep(time).await;
    }

    /// Puts it on the board.
    pub fn begin(&self, detail: impl Into<String>) -> InForce {
        self.world.board.begin(self.kind, detail.into())
    }

    /// A random node that runs.
    pub fn node(&mut self) -> Option<Arc<Node>> {
        self.nodes(1).pop()
    }

    /// So many random nodes that run.
    pub fn nodes(&mut self, many: usize) -> Vec<Arc<Node>> {
        let running = self.world.running();
        let many = many.min(running.len());
        self.rng.choose_multiple(running, many)
    }

    /// A random node that runs and whose process no other fault holds.
    pub fn held(&mut self) -> Option<Held> {
        let running = self.world.running();
        let mut tried = self.rng.choose_multiple(running.clone(), running.len());
        tried.drain(..).find_map(|node| {
            let process = node.process.clone().try_lock_owned().ok()?;
            process.is_some().then_some((node, process))
        })
    }
}
