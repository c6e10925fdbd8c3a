//! Faults of nodes' processes.

use anyhow::{Context, Result};
use rustix::process::Signal;
use tokio::time::Instant;

use super::faults::Fault;
use crate::{node::Node, world::HEALS_WITHIN};

/// The fewest nodes that scaling down leaves.
const FEWEST: usize = 3;

impl Fault {
    pub(super) async fn freeze(&mut self, least: f64, most: f64) -> Result<()> {
        let Some((node, process)) = self.held() else {
            return Ok(());
        };
        let process = process.as_ref().context("held processes run")?;
        let in_force = self.begin(&*node.id);
        let ill = node.health.ill();
        process.signal(Signal::STOP)?;
        self.hold(least, most).await;
        process.signal(Signal::CONT)?;
        drop((in_force, ill));
        Ok(())
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        let Some((node, mut process)) = self.held() else {
            return Ok(());
        };
        let in_force = self.begin(&*node.id);
        node.kill(&mut process).await?;
        self.hold(0.0, 1.5).await;
        node.start(&mut process)?;
        drop(process);
        ready_for_a_while(&node).await;
        drop(in_force);
        Ok(())
    }

    pub(super) async fn roll(&mut self) -> Result<()> {
        let Some((node, mut process)) = self.held() else {
            return Ok(());
        };
        let in_force = self.begin(&*node.id);
        node.terminate(&mut process, &self.world.board).await?;
        node.start(&mut process)?;
        drop(process);
        ready_for_a_while(&node).await;
        drop(in_force);
        Ok(())
    }

    pub(super) async fn scale(&mut self) -> Result<()> {
        let running = self.world.running().len();
        let room = running < self.world.nodes.len();
        if room && (running <= FEWEST || self.rng.bool()) {
            return self.scale_up().await;
        }
        if running <= FEWEST {
            return Ok(());
        }
        let Some((node, mut process)) = self.held() else {
            return Ok(());
        };
        let in_force = self.begin(format!("{} goes", node.id));
        node.terminate(&mut process, &self.world.board).await?;
        drop(in_force);
        Ok(())
    }

    async fn scale_up(&mut self) -> Result<()> {
        let spare = self.world.nodes.iter().find_map(|node| {
            let process = node.process.clone().try_lock_owned().ok()?;
            process.is_none().then(|| (node.clone(), process))
        });
        let Some((node, mut process)) = spare else {
            return Ok(());
        };
        let in_force = self.begin(format!("{} comes", node.id));
        node.start(&mut process)?;
        drop(process);
        ready_for_a_while(&node).await;
        drop(in_force);
        Ok(())
    }

    pub(super) async fn key_deleted(&mut self) -> Result<()> {
        let Some(node) = self.node() else {
            return Ok(());
        };
        let in_force = self.begin(&*node.id);
        let links = node.links.ill();
        // Another fault may have etcd down: then nobody deletes anything.
        if let Err(error) = self.world.delete_key(&node).await {
            println!("  {error:#}");
        }
        // Until it has noticed.
        self.hold(1.0, 1.5).await;
        drop((in_force, links));
        Ok(())
    }

    pub(super) async fn clock(&mut self) -> Result<()> {
        let Some(node) = self.node() else {
            return Ok(());
        };
        let sign = if self.rng.bool() { 1 } else { -1 };
        let offset = sign * self.rng.i64(2..=90);
        let in_force = self.begin(format!("{} {offset:+} s", node.id));
        node.set_clock(offset)?;
        self.hold(0.5, 3.0).await;
        node.set_clock(0)?;
        drop(in_force);
        Ok(())
    }
}

/// Waits until a node that starts is ready, but not for ever: another fault may be in its way, and
/// the end of the round waits for it anyway.
async fn ready_for_a_while(node: &Node) {
    let deadline = Instant::now() + HEALS_WITHIN / 4;
    if !node.until_ready(deadline).await {
        println!("  {} isn't ready yet", node.id);
    }
}
