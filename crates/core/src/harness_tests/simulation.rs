//! What the simulations share: virtual time, dice that a seed decides, and a ledger of what
//! removals answered for, which every get is held against.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use parking_lot::Mutex;
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::TestNode;
use crate::{
    metadata::Metadata,
    ports::{Clock, Loaded, Timestamp},
};

/// Virtual; what takes longer hangs.
pub(crate) const ENDS: Duration = Duration::from_secs(120);

/// Virtual time, shown as a time of its own.
pub(crate) struct VirtualClock {
    began: Instant,
    shows: u64,
}

impl VirtualClock {
    /// A clock that showed so many milliseconds at `began`.
    pub(crate) fn new(began: Instant, shows: u64) -> Self {
        Self { began, shows }
    }

    /// A clock for a test in which all nodes share one.
    pub(crate) fn shared() -> Self {
        Self::new(Instant::now(), 1_000_000)
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.began.elapsed().as_millis()).expect("a short run");
        Timestamp(self.shows + passed)
    }
}

/// Chance, as the seed has it.
pub(crate) struct Dice(Mutex<Rng>);

impl Dice {
    pub(crate) fn new(rng: Rng) -> Self {
        Self(Mutex::new(rng))
    }

    pub(crate) fn below(&self, bound: usize) -> usize {
        self.0.lock().usize(..bound)
    }

    pub(crate) fn number(&self, range: impl std::ops::RangeBounds<u64>) -> u64 {
        self.0.lock().u64(range)
    }

    pub(crate) async fn pause(&self, most_millis: u64) {
        let millis = self.number(..most_millis);
        sleep(Duration::from_millis(millis)).await;
    }

    pub(crate) fn one_of(&self, nodes: &Mutex<Vec<Arc<TestNode>>>) -> Option<Arc<TestNode>> {
        let nodes = nodes.lock();
        let at = (!nodes.is_empty()).then(|| self.below(nodes.len()))?;
        Some(nodes[at].clone())
    }
}

/// What one get asks for: mostly one of so many keys, now and then several at once.
pub(crate) fn some_keys(dice: &Dice, keys: usize) -> Vec<String> {
    let many = 1 + usize::from(dice.below(4) == 0) * dice.below(keys);
    let first = dice.below(keys);
    (0..many)
        .map(|nth| format!("k{}", (first + nth) % keys))
        .collect()
}

/// Values carry the tag of their key, and now and then one more.
pub(crate) fn tagged(value: impl Into<Bytes>, key: &str, version: u64) -> Loaded {
    let tag = tag_of(key);
    let more = version.is_multiple_of(2).then_some("even");
    let metadata = Metadata::NONE.with_tags([&*tag].into_iter().chain(more));
    Loaded::from(value.into()).with_metadata(metadata.expect("good tags"))
}

/// Several keys have one tag.
pub(crate) fn tag_of(key: &str) -> String {
    let number: usize = key[1..].parse().expect("a number");
    format!("tag-{}", number % 3)
}

/// The version of each key at the origin, and that which removals answered for.
#[derive(Default)]
pub(crate) struct Ledger {
    versions: Mutex<HashMap<String, u64>>,
    floors: Mutex<HashMap<String, u64>>,
    gets: AtomicUsize,
    removals: AtomicUsize,
}

impl Ledger {
    pub(crate) fn version(&self, key: &str) -> u64 {
        self.versions.lock().get(key).copied().unwrap_or(0)
    }

    /// The origin's value changes.
    pub(crate) fn bump(&self, key: &str) -> u64 {
        let mut versions = self.versions.lock();
        let version = versions.entry(key.to_owned()).or_default();
        *version += 1;
        *version
    }

    /// No get that begins now may bring an older version.
    pub(crate) fn floor(&self, key: &str) -> u64 {
        self.floors.lock().get(key).copied().unwrap_or(0)
    }

    /// A get that began when the floor was this brought that version.
    pub(crate) fn got(&self, node: &TestNode, key: &str, version: u64, floor: u64) {
        assert!(
            version >= floor,
            "{key} at {}: {version}, removed {floor}",
            node.id
        );
        self.gets.fetch_add(1, Ordering::Relaxed);
    }

    /// A removal that began at that version was acknowledged.
    pub(crate) fn removed(&self, key: String, version: u64) {
        let mut floors = self.floors.lock();
        let floor = floors.entry(key).or_default();
        *floor = version.max(*floor);
        self.removals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn gets(&self) -> usize {
        self.gets.load(Ordering::Relaxed)
    }

    pub(crate) fn removals(&self) -> usize {
        self.removals.load(Ordering::Relaxed)
    }
}

/// Waits until all tasks of a seed's world have ended.
pub(crate) async fn all_end(mut tasks: JoinSet<()>, bound: Duration, seed: u64, replicas: usize) {
    let ended = timeout(bound, async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap_or_else(|error| panic!("seed {seed}, replicas {replicas}: {error}"));
        }
    });
    assert!(ended.await.is_ok(), "seed {seed} hangs");
}

/// Of one thread, in virtual time. With `--cfg tokio_unstable` (`make simulation-test`), a seed's
/// runs are all alike: `select!` and `watch` make their choices by it, too.
pub(crate) fn runtime(seed: u64) -> Runtime {
    let mut builder = Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let built = builder.enable_time().start_paused(true).build();
    built.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

/// So many seeds, from the one that `GAOCACHE_SEED` names.
pub(crate) fn seeds(number: u64) -> std::ops::Range<u64> {
    let first = std::env::var("GAOCACHE_SEED").map_or(0, |seed| seed.parse().expect("a seed"));
    first..first + number
}
