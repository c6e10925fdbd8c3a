//! Faults of what is around the nodes: etcd, the origin, clients.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use rustix::process::Signal;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

use super::faults::Fault;
use crate::{kind::Kind, node::Node, origin::Mood, setup::ORIGIN_TIMEOUT};

/// Clients that don't read, of one fault.
const SLOW_READERS: usize = 30;

impl Fault {
    pub(super) async fn etcd_member(&mut self) -> Result<()> {
        let members = self.world.etcd.members.clone();
        let Some(member) = self.rng.choice(&members) else {
            return Ok(());
        };
        let Ok(mut process) = member.process.try_lock() else {
            return Ok(());
        };
        let in_force = self.begin(&*member.name);
        if let Some(running) = process.take() {
            running.kill().await?;
        }
        self.hold(0.3, 2.0).await;
        *process = Some(member.start()?);
        drop(process);
        self.world.etcd.until_well().await?;
        drop(in_force);
        Ok(())
    }

    pub(super) async fn etcd_down(&mut self) -> Result<()> {
        let paused = self.rng.bool();
        let in_force = self.begin(if paused { "paused" } else { "killed" });
        let world = self.world.clone();
        if paused {
            world.etcd.signal(Signal::STOP).await?;
        } else {
            world.etcd.kill().await?;
        }
        self.hold(1.3, 2.5).await;
        world.etcd.signal(Signal::CONT).await?;
        world.etcd.revive().await?;
        self.world.etcd.until_well().await?;
        drop(in_force);
        Ok(())
    }

    pub(super) async fn etcd_emptied(&mut self) -> Result<()> {
        let (world, away) = (self.world.clone(), self.leases(0.1, 2.0));
        let in_force = self.begin(format!("away for {away:.1?}"));
        world.etcd.lose(None, away).await?;
        // Nobody joins for a lease and two seconds.
        self.hold(1.0, 3.0).await;
        drop(in_force);
        Ok(())
    }

    pub(super) async fn etcd_restored(&mut self) -> Result<()> {
        let (world, away) = (self.world.clone(), self.leases(0.1, 2.0));
        let in_force = self.begin(format!("away for {away:.1?}"));
        let backup = world.etcd.back_up().await?;
        self.hold(0.5, 3.0).await;
        world.etcd.lose(Some(&backup), away).await?;
        self.hold(1.0, 3.0).await;
        drop(in_force);
        Ok(())
    }

    pub(super) async fn origin(&mut self) -> Result<()> {
        let slow = Duration::from_secs(self.world.setup.peers_timeout + 1);
        let mood = match self.kind {
            Kind::SlowOrigin => Mood::Slow(slow),
            Kind::HungOrigin => Mood::Hung,
            _ => Mood::Failing,
        };
        let origin = self.world.origin.clone();
        let in_force = self.begin(format!("{mood:?}"));
        let ill = origin.health.ill();
        origin.set(mood);
        self.hold(1.0, 2.5).await;
        origin.set(Mood::Well);
        // Loads that began before may still be waited for.
        sleep(Duration::from_secs(ORIGIN_TIMEOUT + 1)).await;
        drop((in_force, ill));
        Ok(())
    }

    pub(super) async fn slow_readers(&mut self) -> Result<()> {
        let Some(node) = self.node() else {
            return Ok(());
        };
        let in_force = self.begin(format!("{SLOW_READERS} at {}", node.id));
        let readers = slow_readers(&node, SLOW_READERS).await;
        self.hold(1.0, 2.5).await;
        drop((in_force, readers));
        Ok(())
    }
}

/// Clients that ask a node for a big value each and don't read the answer, until they are dropped.
pub async fn slow_readers(node: &Arc<Node>, many: usize) -> Vec<TcpStream> {
    let mut readers = Vec::new();
    for number in 0..many {
        // A node that is killed meanwhile accepts nobody; that is another fault's business.
        let Ok(mut stream) = TcpStream::connect((node.party.ip, 8080)).await else {
            break;
        };
        let asks = format!("GET /v1/big/b{number} HTTP/1.1\r\nHost: node\r\n\r\n");
        if stream.write_all(asks.as_bytes()).await.is_ok() {
            readers.push(stream);
        }
    }
    readers
}
