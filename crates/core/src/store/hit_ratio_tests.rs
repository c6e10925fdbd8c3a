//! Which entries stay, judged by how many gets they answer, beside quick_cache with the same keys,
//! weights and capacity. Everything follows from seeds.

use quick_cache::{OptionsBuilder, Weighter, sync::Cache};

use super::*;
use crate::{
    metadata::Metadata,
    record::{Record, Stale},
};

pub(super) const KEYS: usize = 50_000;
const GETS: usize = 300_000;
pub(super) const VALUE_BYTES: usize = 100;

#[derive(Clone)]
struct Same;

impl Weighter<usize, ()> for Same {
    fn weight(&self, _: &usize, (): &()) -> u64 {
        charge(8, VALUE_BYTES as u64)
    }
}

pub(super) fn record() -> Record {
    Record {
        value: Some(vec![7; VALUE_BYTES].into()),
        expires_at: Timestamp::NEVER,
        stale: Stale::NEVER,
        entity_tag: xxhash_rust::xxh3::xxh3_64(&[7; VALUE_BYTES]),
        metadata: Metadata::NONE,
    }
}

/// The numbers of keys, each asked for with a probability of its rank to the power of `-skew`.
pub(super) fn zipf(skew: f64, seed: u64) -> impl Iterator<Item = usize> {
    let mut sums = Vec::with_capacity(KEYS);
    let mut sum = 0.0;
    for rank in 1..=KEYS {
        sum += (rank as f64).powf(-skew);
        sums.push(sum);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let mut draw = move || random.f64() * sum;
    std::iter::repeat_with(move || {
        let drawn = draw();
        sums.partition_point(|it| *it < drawn).min(KEYS - 1)
    })
}

/// The keys once and again, with a scan of others in between.
fn scans(seed: u64) -> impl Iterator<Item = usize> {
    let scan = (0usize..).map(|step| KEYS + step);
    let mut asked = zipf(0.9, seed).zip(scan).enumerate();
    std::iter::from_fn(move || {
        let (step, (hot, scanned)) = asked.next()?;
        Some(if step % 3 == 0 { scanned } else { hot })
    })
}

/// Hundredths of the gets that each answers; of the second half, when both are full.
fn compare(asked: impl Iterator<Item = usize>, percent: usize) -> (f64, f64) {
    let capacity = (KEYS * percent / 100) as u64 * charge(8, VALUE_BYTES as u64);
    let store = Store::new(capacity, capacity / 4);
    let options = OptionsBuilder::new()
        .shards(1)
        .weight_capacity(capacity)
        .estimated_items_capacity(KEYS * percent / 100)
        .build()
        .expect("good");
    let other: Cache<usize, (), Same, foldhash::quality::FixedState> =
        Cache::with_options(options, Same, Default::default(), Default::default());
    let (record, mut hits) = (record(), [0usize; 2]);
    for (step, number) in asked.take(GETS).enumerate() {
        let text = format!("{number:08}");
        let key = HashedKey::new(GroupId(0), &text);
        let late = usize::from(step >= GETS / 2);
        match store.get(&key, Timestamp(0)) {
            Some(_) => hits[0] += late,
            None => _ = store.insert(Entry::new(&key, &record)),
        }
        match other.get(&number) {
            Some(()) => hits[1] += late,
            None => other.insert(number, ()),
        }
    }
    let [ours, its] = hits.map(|hits| hits as f64 / (GETS - GETS / 2) as f64 * 100.0);
    (ours, its)
}

#[test]
fn as_many_gets_are_hits_as_with_quick_cache() {
    for (what, percent, (ours, its)) in [
        ("zipf 0.9", 1, compare(zipf(0.9, 1), 1)),
        ("zipf 0.9", 10, compare(zipf(0.9, 1), 10)),
        ("zipf 1.0", 1, compare(zipf(1.0, 1), 1)),
        ("zipf 1.0", 10, compare(zipf(1.0, 1), 10)),
        ("scans", 10, compare(scans(1), 10)),
    ] {
        println!("{what}, room for {percent} % of the keys: {ours:.2} %, quick_cache {its:.2} %");
        assert!(ours > its - 0.6, "{what}: {ours} of {its}");
    }
}
