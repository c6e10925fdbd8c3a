//! Wall clocks that disagree.

use anyhow::Result;
use tokio::time::Instant;

use super::{Stage, stage::keys};
use crate::{
    node::faketime,
    setup::{GroupSetup, Setup},
};

pub fn setup() -> Setup {
    Setup {
        spare: 1,
        clocks: true,
        hot_after: 1,
        groups: vec![GroupSetup::short()],
        ..Setup::default()
    }
}

/// Values travel as copies, and to a node that joins.
pub async fn clocks(stage: &mut Stage) -> Result<()> {
    if faketime().is_none() {
        stage.skip("libfaketime isn't installed (Debian: faketime)");
        return Ok(());
    }
    let world = stage.world.clone();
    for (node, offset) in world.nodes.iter().zip([0, 60, -60, 30]) {
        node.set_clock(offset)?;
    }
    world.start(0..3).await?;
    let keys = keys("short", 40);
    stage.watch(&keys, world.lease() * 4).await;
    let joiner = stage.node(3);
    joiner.start(&mut *joiner.process.lock().await)?;
    stage.watch(&keys, world.lease() * 4).await;
    stage.heal().await?;
    let (before, time) = (world.origin.loads(), world.lease() * 4);
    let began = Instant::now();
    stage.watch(&keys, time).await;
    let lives = began.elapsed().as_secs_f64() / 4.0;
    let loads = (world.origin.loads() - before) as f64 / (lives * keys.len() as f64);
    stage.note(format!(
        "{loads:.1} loads a key and life; 1 is what it takes"
    ));
    Ok(())
}
