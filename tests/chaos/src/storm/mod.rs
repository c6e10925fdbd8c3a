//! The storm: rounds of faults that overlap, while clients get and remove all the time.

mod faults;
mod links;
mod outside;
mod processes;
mod traffic;

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    kind::Kind,
    ledger::Violation,
    node::faketime,
    setup::{GroupSetup, Setup},
    world::{HEALS_WITHIN, World},
};
use faults::Fault;
pub use outside::slow_readers;
use traffic::Traffic;

/// Keys of each of the groups that are written.
const KEYS: usize = 30;

/// Nodes that may come on top of those that run from the beginning.
pub const SPARE: usize = 2;

/// What a storm is like.
#[derive(Clone, Debug)]
pub struct Weather {
    pub seconds: u64,
    pub seed: u64,
    pub kinds: Vec<Kind>,
    /// Gets at a time, at all nodes together.
    pub clients: usize,
}

/// The cluster of a storm.
pub fn setup(nodes: usize, seed: u64, kinds: &[Kind]) -> Setup {
    Setup {
        nodes,
        spare: SPARE,
        // Half of the storms have a second copy of everything.
        replicas: 1 + seed % 2,
        clocks: kinds.contains(&Kind::Clock) && faketime().is_some(),
        groups: vec![
            GroupSetup::forever(200),
            GroupSetup::short(),
            GroupSetup::stale(),
            GroupSetup::big(2 << 20),
        ],
        ..Setup::default()
    }
}

/// The keys that are changed and removed.
fn keys() -> Vec<String> {
    let groups = ["forever", "short", "stale"];
    let keys = groups.map(|group| (0..KEYS).map(move |n| format!("{group}/k{n}")));
    keys.into_iter().flatten().collect()
}

/// Rounds until the time is over, or until the cluster doesn't heal; then it all ends.
///
/// # Errors
/// If something can't be broken or mended as it should.
pub async fn run(world: &Arc<World>, weather: &Weather) -> Result<()> {
    let mut rng = Rng::with_seed(weather.seed);
    let began = Instant::now();
    let end = began + Duration::from_secs(weather.seconds);
    world.start(0..world.setup.nodes).await?;
    let traffic = Traffic::start(world, Arc::new(keys()), weather.clients, rng.fork());
    let mut round = 0;
    while Instant::now() < end {
        round += 1;
        let faults = draw(&mut rng, &weather.kinds);
        let names: Vec<String> = faults.iter().map(|kind| kind.name()).collect();
        let at = began.elapsed().as_secs();
        println!("round {round}, {at} s: {}", names.join(" + "));
        blow(world, &faults, &mut rng).await?;
        if let Err(error) = world.agree(HEALS_WITHIN).await {
            let line = format!("round {round}: {error:#}");
            world.ledger.violated(Violation::NotHealed, "all", "", line);
            break;
        }
        traffic.sweep(world).await;
    }
    traffic.end().await;
    Ok(())
}

/// Two kinds or three. Where etcd loses history, it does so once, and at least half of the nodes
/// can reach it then: more is not promised.
fn draw(rng: &mut Rng, kinds: &[Kind]) -> Vec<Kind> {
    let many = rng.usize(2..=3);
    let drawn = (0..many).filter_map(|_| rng.choice(kinds).copied());
    let mut drawn: Vec<Kind> = drawn.collect();
    if let Some(at) = drawn.iter().position(|kind| kind.loses_history()) {
        let loss = drawn.swap_remove(at);
        drawn.retain(|kind| !kind.loses_history() && *kind != Kind::EtcdLinks);
        drawn.push(loss);
    }
    drawn
}

/// One round: all begin within a lease, so that they overlap; resolves when all is mended.
async fn blow(world: &Arc<World>, kinds: &[Kind], rng: &mut Rng) -> Result<()> {
    let mut faults = JoinSet::new();
    for &kind in kinds {
        let mut fault = Fault::new(world.clone(), kind, rng.fork());
        let pause = fault.leases(0.0, 0.5);
        faults.spawn(async move {
            sleep(pause).await;
            fault.inflict().await
        });
    }
    while let Some(ended) = faults.join_next().await {
        ended??;
    }
    Ok(())
}
