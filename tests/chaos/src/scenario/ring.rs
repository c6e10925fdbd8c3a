//! The ring grows, and its nodes are rolled.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Stage, stage::keys};
use crate::setup::{GroupSetup, Setup};

fn growth_setup(spare: usize) -> Setup {
    Setup {
        spare,
        hot_after: 0,
        capacity: "256MiB",
        groups: vec![GroupSetup::forever(4_000)],
        ..Setup::default()
    }
}

pub fn growth_8_setup() -> Setup {
    growth_setup(5)
}

pub fn growth_12_setup() -> Setup {
    growth_setup(9)
}

/// All spare nodes start at once, with gets all the while.
pub async fn growth(stage: &mut Stage) -> Result<()> {
    let world = stage.world.clone();
    let (few, many) = (world.setup.nodes, world.nodes.len());
    world.start(0..few).await?;
    let keys = keys("forever", 30_000);
    let first = [stage.node(0)];
    stage.read(&first, &keys).await;
    let owners = owners(stage, &keys).await;
    stage.settle().await?;
    let before = world.origin.loads();
    let (stop, clients) = read_on(stage, &keys);
    world.start(few..many).await?;
    stage.settle().await?;
    stop.send_replace(true);
    clients.join_all().await;
    let during = world.origin.loads() - before;
    let now = self::owners(stage, &keys).await;
    let moved = keys
        .iter()
        .filter(|key| owners.get(*key) != now.get(*key))
        .count();
    let loads = world.origin.loads() - before;
    let share = loads as f64 / moved.max(1) as f64 * 100.0;
    stage.note(format!(
        "{moved} keys moved; {during} loads meanwhile, {loads} with those after"
    ));
    stage.expect(
        share <= 0.5,
        format!("{share:.1} % of the moved keys loaded again"),
    );
    Ok(())
}

/// Who owns which key, as the first node sees it when it answers.
async fn owners(stage: &Stage, keys: &[String]) -> HashMap<String, String> {
    let mut clients = JoinSet::new();
    for part in keys.chunks(keys.len().div_ceil(16).max(1)) {
        let (world, node, part) = (stage.world.clone(), stage.node(0), part.to_vec());
        clients.spawn(async move {
            let mut owners = Vec::new();
            for key in part {
                if let Ok(reading) = world.get(&node, &key).await {
                    owners.push((key, reading.owner));
                }
            }
            owners
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// Gets of random keys at the nodes that run, until told to stop.
fn read_on(stage: &Stage, keys: &[String]) -> (watch::Sender<bool>, JoinSet<()>) {
    let (stop, mut clients) = (watch::Sender::new(false), JoinSet::new());
    for seed in 0..16 {
        let (world, keys, stopped) = (stage.world.clone(), keys.to_vec(), stop.subscribe());
        let mut rng = fastrand::Rng::with_seed(seed);
        clients.spawn(async move {
            while !*stopped.borrow() {
                let (node, key) = (rng.choice(world.running()), rng.choice(&keys));
                if let (Some(node), Some(key)) = (node, key) {
                    let _ = world.get(&node, key).await;
                }
                // Leaves the nodes something of the machine.
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
    (stop, clients)
}

fn max_values(big: &'static str) -> Setup {
    let groups = [GroupSetup::forever(200), GroupSetup::big(5 << 20)];
    let groups = groups
        .into_iter()
        .enumerate()
        .map(|(number, group)| GroupSetup {
            max_value: if number == 0 { "1MiB" } else { big },
            ..group
        });
    Setup {
        hot_after: 0,
        groups: groups.collect(),
        ..Setup::default()
    }
}

pub fn max_value_setup() -> Setup {
    max_values("2MiB")
}

/// The first of three nodes takes bigger values than the others can receive from it.
pub async fn bigger_max_value(stage: &mut Stage) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..3).await?;
    let (small, big) = (keys("forever", 300), keys("big", 30));
    stage.warm(&small).await?;
    let rolled = stage.node(0);
    {
        let mut process = rolled.process.lock().await;
        rolled.terminate(&mut process, &world.board).await?;
        rolled.relaunch_with(world.arguments(&max_values("8MiB"), 0));
        rolled.start(&mut process)?;
    }
    stage.heal().await?;
    stage.settle().await?;
    stage.warm(&small).await?;
    let before = world.origin.loads_of(&small);
    let old = [stage.node(1), stage.node(2)];
    let end = Instant::now() + Duration::from_secs(10);
    let mut ejected = 0.0_f64;
    while Instant::now() < end {
        for key in &big {
            for node in &old {
                // Old nodes may well refuse them.
                let _ = world
                    .http
                    .get(&node.url(key), Duration::from_secs(10))
                    .await;
                ejected = ejected.max(stage.metric(node, "gaocache_peers_ejected").await?);
            }
        }
        stage.read(&old, &small).await;
    }
    let loads = world.origin.loads_of(&small) - before;
    stage.note(format!(
        "{loads} loads of small keys, at most {ejected} nodes ejected"
    ));
    stage.expect(loads == 0, "small keys were loaded again");
    stage.expect(ejected == 0.0, "a healthy owner was ejected");
    Ok(())
}
