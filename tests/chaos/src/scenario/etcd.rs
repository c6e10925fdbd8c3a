//! etcd is away, for all or for most.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Stage, stage::keys};
use crate::{
    cuts::{Link, both_ways},
    ledger::Removal,
    setup::Setup,
};

pub fn setup_of_five() -> Setup {
    Setup {
        nodes: 5,
        ..Setup::default()
    }
}

/// No etcd member is reachable for longer than the lease, then all of it is back.
pub async fn down(stage: &mut Stage) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..3).await?;
    let all = keys("forever", 60);
    let (kept, removed) = all.split_at(40);
    stage.warm(&all).await?;
    let before = world.origin.loads_of(kept);
    world.etcd.kill().await?;
    stage.watch(kept, world.lease() * 3).await;
    for number in 0..3 {
        let removals = stage.remove(number, removed).await;
        stage.expect_promised(&removals);
        stage.watch(&all, Duration::ZERO).await;
    }
    world.etcd.revive().await?;
    world.etcd.until_well().await?;
    stage.watch(&all, world.lease()).await;
    stage.heal().await?;
    stage.watch(&all, world.lease()).await;
    let loads = world.origin.loads_of(kept) - before;
    stage.expect(
        loads == 0,
        format!("{loads} loads of keys that nobody removed"),
    );
    Ok(())
}

pub async fn majority_off(stage: &mut Stage) -> Result<()> {
    let links = most_and_etcd(stage);
    remove_at_all(stage, links).await
}

pub async fn majority_apart(stage: &mut Stage) -> Result<()> {
    let mut links = most_and_etcd(stage);
    let ips = stage.world.plan.node_ips();
    links.extend(both_ways(&ips[..3], &ips[3..]));
    remove_at_all(stage, links).await
}

fn most_and_etcd(stage: &Stage) -> Vec<Link> {
    let plan = &stage.world.plan;
    both_ways(&plan.node_ips()[..3], &plan.member_ips())
}

/// Removals at every node: while the leases last, and after.
async fn remove_at_all(stage: &mut Stage, links: Vec<Link>) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..5).await?;
    let keys = keys("forever", 30);
    stage.warm(&keys).await?;
    world.cuts.cut(&links).await?;
    let mut all: Vec<Vec<Removal>> = vec![Vec::new(); 5];
    let end = Instant::now() + world.lease() * 3;
    while Instant::now() < end {
        for (number, removals) in all.iter_mut().enumerate() {
            removals.extend(stage.remove(number, &keys[number * 6..][..6]).await);
        }
        stage.read(&world.running(), &keys).await;
    }
    for (number, removals) in all.iter().enumerate() {
        stage.note(format!("at n{number}:"));
        stage.note_removals(removals);
    }
    world.cuts.mend(&links).await?;
    stage.watch(&keys, world.lease()).await;
    stage.heal().await?;
    stage.watch(&keys, world.lease()).await;
    Ok(())
}

/// The key of the third node goes while it runs.
pub async fn key_deleted(stage: &mut Stage) -> Result<()> {
    delete_and_remove(stage, &[]).await
}

/// The same while nothing can reach it: its lease goes on without its key.
pub async fn key_deleted_cut_off(stage: &mut Stage) -> Result<()> {
    let plan = &stage.world.plan;
    let mut others = plan.node_ips();
    others.extend(plan.member_ips());
    let links = both_ways(&[plan.nodes[2].ip], &others);
    delete_and_remove(stage, &links).await
}

/// The first node is asked to remove what all hold, again and again from then on.
async fn delete_and_remove(stage: &mut Stage, links: &[Link]) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..3).await?;
    let keys = keys("forever", 20);
    stage.warm(&keys).await?;
    world.cuts.cut(links).await?;
    let there = world.delete_key(&stage.node(2)).await?;
    stage.expect(there, "there was no key gaocache/n2");
    let (mut all, end) = (Vec::new(), Instant::now() + world.lease());
    while Instant::now() < end {
        all.extend(stage.remove(0, &keys).await);
        stage.watch(&keys, Duration::ZERO).await;
    }
    stage.expect_promised(&all);
    world.cuts.mend(links).await?;
    let back = world.agree(world.lease() * 3).await;
    stage.expect(
        back.is_ok(),
        format!("not back after three leases: {back:?}"),
    );
    stage.heal().await?;
    stage.watch(&keys, world.lease()).await;
    Ok(())
}
