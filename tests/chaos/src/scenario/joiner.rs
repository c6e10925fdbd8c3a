//! A node joins while a member can't see it do so.

use anyhow::Result;
use tokio::time::Instant;

use super::{Stage, stage::keys};
use crate::{cuts::both_ways, setup::Setup};

pub fn setup_of_one() -> Setup {
    Setup {
        nodes: 1,
        spare: 1,
        ..Setup::default()
    }
}

pub fn setup_of_two() -> Setup {
    Setup {
        nodes: 2,
        spare: 1,
        ..Setup::default()
    }
}

pub async fn unseen_by_one(stage: &mut Stage) -> Result<()> {
    join_unseen(stage, 1).await
}

pub async fn unseen(stage: &mut Stage) -> Result<()> {
    join_unseen(stage, 2).await
}

/// The first of `members` loses etcd, but no member; a node joins; the first is asked to remove
/// what the joiner got meanwhile: while the lease of the first lasts, and after.
async fn join_unseen(stage: &mut Stage, members: usize) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..members).await?;
    let keys = keys("forever", 20);
    stage.warm(&keys).await?;
    let links = both_ways(&[world.plan.nodes[0].ip], &world.plan.member_ips());
    world.cuts.cut(&links).await?;
    let joiner = stage.node(members);
    joiner.start(&mut *joiner.process.lock().await)?;
    let end = Instant::now() + world.lease() * 4;
    let mut all = Vec::new();
    while Instant::now() < end {
        joiner.is_ready().await;
        // It may not serve yet; what it answers counts.
        stage
            .read(&[joiner.clone(), joiner.clone(), joiner.clone()], &keys)
            .await;
        all.extend(stage.remove(0, &keys).await);
        stage.read(&world.running(), &keys).await;
    }
    stage.note_removals(&all);
    world.cuts.mend(&links).await?;
    stage.heal().await?;
    stage.watch(&keys, world.lease()).await;
    Ok(())
}
