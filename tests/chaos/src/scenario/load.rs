//! What the origin, memory and other requests notice.

use std::time::Duration;

use anyhow::Result;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Stage, stage::keys};
use crate::{
    origin::Mood,
    setup::{GroupSetup, Setup},
    storm,
};

const MIB: u64 = 1 << 20;

pub fn replicas_setup() -> Setup {
    Setup {
        nodes: 4,
        replicas: 2,
        capacity: "8MiB",
        hot_after: 0,
        groups: vec![GroupSetup {
            max_value: "1MiB",
            ..GroupSetup::forever(2000)
        }],
        ..Setup::default()
    }
}

/// Stores are filled over and over with what is in use for a while only, then a node is killed.
pub async fn replicas_full(stage: &mut Stage) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..4).await?;
    // A sixth of what the four stores hold together, copies included.
    let used = keys("forever", 1_000);
    let nodes = world.running();
    for batch in 0..20 {
        let idle: Vec<String> = (0..2_000)
            .map(|n| format!("forever/b{batch}n{n}"))
            .collect();
        // More than once, or the store would take them for a scan and keep them apart.
        for _ in 0..3 {
            stage.read(&nodes[..1], &idle).await;
        }
        stage.read(&nodes[1..3], &used).await;
    }
    // Copies go to the second member in the background.
    stage.settle().await?;
    let before = world.origin.loads_of(&used);
    nodes[3].kill(&mut *nodes[3].process.lock().await).await?;
    let end = Instant::now() + world.lease() * 3;
    while Instant::now() < end {
        stage.read(&nodes[..2], &used).await;
    }
    let loads = world.origin.loads_of(&used) - before;
    let share = loads as f64 / used.len() as f64 * 100.0;
    stage.note(format!("{loads} loads, {share:.1} % of the keys in use"));
    stage.expect(share <= 2.0, "more than 2 %");
    Ok(())
}

pub fn slow_origin_setup() -> Setup {
    Setup {
        // Hits of the other group are at their owners, so they suffer if these are ejected.
        hot_after: 0,
        groups: vec![
            GroupSetup::forever(200),
            GroupSetup {
                name: "slow",
                ..GroupSetup::forever(200)
            },
        ],
        ..Setup::default()
    }
}

/// Loads take a second longer than `peer.timeout_seconds`; all nodes are asked for all at once.
pub async fn slow_origin(stage: &mut Stage) -> Result<()> {
    let world = stage.world.clone();
    world.start(0..3).await?;
    let (warm, slow) = (keys("forever", 20), keys("slow", 60));
    stage.warm(&warm).await?;
    let pause = Duration::from_secs(world.setup.peers_timeout + 1);
    world.origin.set(Mood::Slow(pause));
    let mut loads = JoinSet::new();
    for (key, node) in slow
        .iter()
        .flat_map(|key| world.nodes.iter().map(move |it| (key, it)))
    {
        let (world, node, key) = (world.clone(), node.clone(), key.clone());
        loads.spawn(async move { world.get(&node, &key).await.is_ok() });
    }
    let hits = stage.watch(&warm, pause + Duration::from_secs(2)).await;
    let answered = loads.join_all().await.into_iter().filter(|ok| *ok).count();
    let all = slow.len() * world.nodes.len();
    let asked = world.origin.loads_of(&slow);
    let slowest = hits.slowest;
    stage.note(format!(
        "{answered} of {all} gets answered with {asked} loads of {} keys; the slowest hit of the \
         other group took {slowest:.1?}",
        slow.len()
    ));
    stage.expect(answered == all, "a get failed");
    stage.expect(asked == slow.len() as u64, "a key was loaded twice");
    stage.expect(slowest <= Duration::from_secs(1), "hits had to wait");
    Ok(())
}

pub fn slow_readers_setup() -> Setup {
    Setup {
        nodes: 2,
        capacity: "64MiB",
        groups: vec![GroupSetup::forever(200), GroupSetup::big(4 << 20)],
        ..Setup::default()
    }
}

/// 200 clients ask one node for 4 MiB each, of different keys, and read nothing.
pub async fn slow_readers(stage: &mut Stage) -> Result<()> {
    /// Code, stacks, connections, and what the allocator keeps at hand.
    const FIXED: u64 = 48 * MIB;
    let world = stage.world.clone();
    world.start(0..2).await?;
    let warm = keys("forever", 20);
    stage.warm(&warm).await?;
    let capacity = 64 * MIB;
    let limit = capacity + capacity / 8 + 64 * MIB + FIXED;
    let node = stage.node(0);
    let readers = storm::slow_readers(&node, 200).await;
    stage.note(format!("{} clients", readers.len()));
    let mut most = [0, 0];
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        stage.read(&world.nodes, &warm).await;
        for (most, node) in most.iter_mut().zip(&world.nodes) {
            *most = node.resident_bytes().await?.max(*most);
        }
        // Between two samples.
        sleep(Duration::from_millis(100)).await;
    }
    drop(readers);
    for (most, node) in most.into_iter().zip(&world.nodes) {
        let (most, limit_mib) = (most / MIB, limit / MIB);
        stage.note(format!(
            "{}: at most {most} MiB resident, limit {limit_mib} MiB",
            node.id
        ));
        stage.expect(most <= limit_mib, format!("{} takes too much", node.id));
    }
    Ok(())
}
