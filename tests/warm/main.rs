//! What the origin notices when the cluster scales, rolls and crashes: real processes, a real etcd,
//! a steady load. `make warm-test`
//!
//! Each event has a cluster of its own. All keys are warm; then the event takes place under load;
//! then every key is read once, so that nothing that was lost on the way goes unnoticed. Counted is
//! what the origin was asked from the event's begin on. It fails when a get fails or the origin
//! notices more than the goal; times are printed, not judged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod load;
mod origin;
mod scene;
mod table;

use std::sync::atomic::Ordering;

use common::process::NodeProcess;
use futures::future::join_all;
use load::Load;
use scene::Scene;
use table::Row;
use tokio::time::Instant;

const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 1024;
/// Gets a second, of all callers together: steady, and well below what two cores can serve beside
/// the event itself.
const RATE: u32 = 1_000;
const CALLERS: u32 = 8;
/// Gets before the event, and from its begin on at least: five seconds of each are compared.
const WINDOW: u64 = 5_000;
const ZIPF_EXPONENT: f64 = 0.99;

/// One event under load, and what the origin noticed of it.
async fn observe(
    event: &'static str,
    goal_percent: f64,
    scene: &mut Scene,
    happens: impl AsyncFnOnce(&mut Scene),
) -> Row {
    let load = Load::start(scene).await;
    scene.origin.reset();
    happens(scene).await;
    let seen = load.end().await;
    let missed = scene.sweep().await as u64;
    let row = Row {
        event,
        loads: scene.origin.loads(),
        most: scene.origin.most_of_one_key(),
        keys: scene.keys,
        goal_percent,
        gets: seen.gets.load(Ordering::Relaxed),
        failed: seen.failed.load(Ordering::Relaxed) + missed,
        p99: [seen.p99(0), seen.p99(1)],
    };
    row.print();
    row
}

async fn rolling_restart() -> Row {
    let mut scene = Scene::start(3, KEYS, &[]).await;
    observe(
        "rolling restart, one by one",
        1.0,
        &mut scene,
        async |scene| {
            for number in 0..scene.nodes.len() {
                scene.nodes[number].terminate().await;
                scene.nodes[number].revive();
                scene.nodes[number].until_ready().await;
            }
            scene.agreed().await;
        },
    )
    .await
}

async fn grow(event: &'static str, by: usize) -> Row {
    let mut scene = Scene::start(3, KEYS, &[]).await;
    observe(event, 0.5, &mut scene, async |scene| {
        for _ in 0..by {
            scene.join();
        }
        scene.agreed().await;
    })
    .await
}

async fn shrink() -> Row {
    let mut scene = Scene::start(5, KEYS, &[]).await;
    observe("5 → 2 at once", 1.0, &mut scene, async |scene| {
        let mut leaving = scene.nodes.split_off(2);
        join_all(leaving.iter_mut().map(NodeProcess::terminate)).await;
        scene.agreed().await;
    })
    .await
}

async fn crash(event: &'static str, replicas: usize) -> Row {
    let replicas_setting = format!("cache.replicas={replicas}");
    let mut scene = Scene::start(3, KEYS, &[&replicas_setting]).await;
    let mut goal_percent = 2.0;
    if replicas > 1 {
        scene.copied().await;
    } else {
        // Its share, which the ring's draw makes a little more or less than a third.
        let victim = scene.nodes.last().expect("three");
        let held = victim.metric("gaocache_store_items", "owned").await;
        goal_percent = held * 100.0 / scene.keys as f64;
    }
    observe(event, goal_percent, &mut scene, async |scene| {
        let mut victim = scene.nodes.pop().expect("three");
        victim.kill();
        scene.agreed().await;
    })
    .await
}

/// How long a node with about 100 MB takes from SIGTERM to its end, at this rate.
async fn drain(what: &str, rate: &str) {
    const DRAINED_KEYS: usize = 200_000;
    let rate_setting = format!("handoff.max_bytes_per_second={rate}");
    let mut scene = Scene::start(2, DRAINED_KEYS, &[&rate_setting]).await;
    let leaving = &mut scene.nodes[1];
    let entries = leaving.metric("gaocache_store_items", "owned").await;
    let megabytes = entries * VALUE_BYTES as f64 / 1e6;
    let started = Instant::now();
    leaving.terminate().await;
    let took = started.elapsed().as_secs_f64();
    scene.nodes.pop();
    scene.origin.reset();
    let failed = scene.sweep().await;
    println!(
        "\n{what}: {megabytes:.0} MB ({entries} entries) from SIGTERM to the process' end in {took:.2} s, {:.0} MB/s; origin loads {}, failed {failed}",
        megabytes / took,
        scene.origin.loads()
    );
    assert_eq!((scene.origin.loads(), failed), (0, 0), "while draining");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // A name chooses one event: `cargo test … --test warm -- crash`.
    let wanted = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let chosen = |name: &str| wanted.as_deref().is_none_or(|wanted| name.contains(wanted));
    println!(
        "{KEYS} keys of {VALUE_BYTES} bytes, {RATE} gets a second by zipf {ZIPF_EXPONENT}; every key is read once more after the event\n"
    );
    println!(
        "| event | origin loads | share of the keys | goal | most loads of one key | gets | failed | p99 of hits before → during | met |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    if chosen("roll") {
        rows.push(rolling_restart().await);
    }
    if chosen("grow") {
        rows.push(grow("3 → 4", 1).await);
        rows.push(grow("3 → 5", 2).await);
    }
    if chosen("shrink") {
        rows.push(shrink().await);
    }
    if chosen("crash") {
        rows.push(crash("SIGKILL of one, replicas = 2", 2).await);
        rows.push(crash("SIGKILL of one, replicas = 1", 1).await);
    }
    if chosen("drain") {
        drain("a drain at the default rate (goal 3 s)", "64MiB").await;
        drain("a drain at any rate (goal 200 MB/s)", "100GiB").await;
    }
    assert!(
        rows.iter().all(Row::met),
        "a goal was missed; see the table"
    );
}
