//! etcd is away, for all or for most.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{Stage, stage::keys};
use crate::{
    cuts::{Link, both_ways},
    setup::Setup,
};

pub fn setup_of_five() -> Setup {
    Setup {
        nodes: 5,
        ..Setup::default()
    }
}

/// Nobody is reachable in etcd for longer than the lease, then all of it is back.
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
    let end = Instant::now() + world.lease() * 3;
    while Instant::now() < end {
        for number in 0..5 {
            let removals = stage.remove(number, &keys[number * 6..][..6]).await;
            let refused = stage.note_removals(&removals);
            stage.note(format!("  at n{number}, {refused} refused"));
        }
        stage.read(&world.running(), &keys).await;
    }
    world.cuts.mend(&links).await?;
    stage.watch(&keys, world.lease()).await;
    stage.heal().await?;
    stage.watch(&keys, world.lease()).await;
    Ok(())
}

/// The key of the third node goes while it runs; the first is asked to remove what all hold.
pub async fn key_deleted(stage: &mut Stage) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..3).await?;
    let keys = keys("forever", 40);
    let (now, later) = keys.split_at(20);
    stage.warm(&keys).await?;
    let there = world.delete_key(&stage.node(2)).await?;
    stage.expect(there, "there was no key gaocache/n2");
    let removals = stage.remove(0, now).await;
    stage.expect_promised(&removals);
    stage.watch(now, Duration::ZERO).await;
    // Half a renewal later it may or may not have noticed.
    sleep(world.lease() / 6).await;
    let removals = stage.remove(0, later).await;
    stage.expect_promised(&removals);
    stage.watch(&keys, world.lease()).await;
    let back = world.agree(world.lease() * 2).await;
    stage.expect(back.is_ok(), format!("not back after two leases: {back:?}"));
    stage.heal().await?;
    stage.watch(&keys, world.lease()).await;
    Ok(())
}
