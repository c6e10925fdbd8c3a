//! A node that is cut off, from this or that.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{Stage, stage::keys};
use crate::{
    calls::GET_BOUND,
    cuts::{Link, both_ways},
    setup::Setup,
};

/// Longer than a lease, and than others may take to notice that it is over.
const LEASES: f64 = 2.5;

/// Three nodes, and one that isn't started with them.
pub fn one_spare() -> Setup {
    Setup {
        spare: 1,
        ..Setup::default()
    }
}

pub async fn etcd_link_lost(stage: &mut Stage) -> Result<()> {
    let plan = &stage.world.plan;
    let links = both_ways(&[plan.nodes[2].ip], &plan.member_ips());
    cut_and_remove(stage, links, LEASES).await
}

pub async fn cut_off(stage: &mut Stage) -> Result<()> {
    let links = all_but_the_origin(stage);
    cut_and_remove(stage, links, LEASES).await
}

pub async fn cut_off_now(stage: &mut Stage) -> Result<()> {
    let links = all_but_the_origin(stage);
    cut_and_remove(stage, links, 0.0).await
}

pub async fn off_members(stage: &mut Stage) -> Result<()> {
    let plan = &stage.world.plan;
    let links = both_ways(&[plan.nodes[2].ip], &plan.node_ips());
    cut_and_remove(stage, links, 0.0).await
}

fn all_but_the_origin(stage: &Stage) -> Vec<Link> {
    let plan = &stage.world.plan;
    let mut others = plan.node_ips();
    others.extend(plan.member_ips());
    both_ways(&[plan.nodes[2].ip], &others)
}

/// The third node is cut off, the first is asked to remove what all hold.
async fn cut_and_remove(stage: &mut Stage, links: Vec<Link>, leases: f64) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..3).await?;
    let keys = keys("forever", 40);
    stage.warm(&keys).await?;
    world.cuts.cut(&links).await?;
    // Waits the lease out.
    sleep(world.lease().mul_f64(leases)).await;
    let removals = stage.remove(0, &keys).await;
    stage.expect_promised(&removals);
    stage.watch(&keys, world.lease()).await;
    world.cuts.mend(&links).await?;
    stage.watch(&keys, world.lease()).await;
    stage.heal().await?;
    stage.watch(&keys, world.lease()).await;
    Ok(())
}

/// The fourth node starts without etcd and is asked to remove what the others hold.
pub async fn never_reached_etcd(stage: &mut Stage) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..3).await?;
    let keys = keys("forever", 20);
    stage.warm(&keys).await?;
    let links = both_ways(&[world.plan.nodes[3].ip], &world.plan.member_ips());
    world.cuts.cut(&links).await?;
    let node = stage.node(3);
    node.start(&mut *node.process.lock().await)?;
    let deadline = Instant::now() + world.lease() * 3;
    while Instant::now() < deadline
        && world
            .http
            .get(&node.url("none/x"), GET_BOUND)
            .await
            .is_err()
    {
        // Between two questions to a process that is just starting.
        sleep(Duration::from_millis(50)).await;
    }
    let removals = stage.remove(3, &keys).await;
    stage.note_removals(&removals);
    // If it reached the others, directly or through the registry, all is well.
    stage.read(&world.nodes[..3], &keys).await;
    world.cuts.mend(&links).await?;
    stage.heal().await
}
