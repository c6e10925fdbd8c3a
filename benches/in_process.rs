//! What a hit costs inside the process, in nanoseconds of CPU a get, at one and two
//! threads: through `Cache` as a program that embeds a node sees it, through the store of the core
//! alone, and through quick_cache with the same keys and values. `cargo bench --bench in_process`
//!
//! The node is as shipped: it counts and times each get, and every trace point meets a subscriber.
//! Rounds of the three alternate, so that a noisy machine affects all; the result is the median.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{hint::black_box, sync::Barrier, time::Duration};

use bytes::Bytes;
use gaocache::{Cache, GroupDefinition, internal, loader};
use gaocache_core::{
    key::{GroupId, HashedKey},
    metadata::Metadata,
    ports::Timestamp,
    record::{Record, Stale},
    store::{Entry, Store},
};
use xxhash_rust::xxh3::xxh3_64;

#[global_allocator]
static ALLOCATOR: gaocache::internal::Allocator = gaocache::internal::Allocator;

const KEYS: usize = 100_000;
const VALUE: [u8; 100] = [b'x'; 100];
const GETS: usize = 400_000;
const ROUNDS: usize = 7;
const GROUP: &str = "bench";

/// Keys of sixteen bytes, in an order of chance.
fn keys(seed: u64) -> Vec<String> {
    let mut keys: Vec<String> = (0..KEYS).map(|it| format!("user/{it:011}")).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut keys);
    keys
}

/// What this thread has taken of the processors. It holds on a busy machine, where time doesn't.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Nanoseconds of CPU that a get takes each of so many threads, which all get all keys.
fn round(threads: usize, gets: &(impl Fn(&[String]) + Sync)) -> f64 {
    let start = Barrier::new(threads);
    let took = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads as u64)
            .map(|seed| {
                let start = &start;
                scope.spawn(move || {
                    let keys = keys(seed);
                    gets(&keys);
                    start.wait();
                    let before = cpu_time();
                    for _ in 0..GETS / KEYS {
                        gets(&keys);
                    }
                    cpu_time() - before
                })
            })
            .collect();
        let took = running.into_iter().map(|it| it.join().unwrap());
        took.sum::<Duration>()
    });
    took.as_nanos() as f64 / (threads * GETS) as f64
}

fn through_cache(cache: &Cache, keys: &[String]) {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime.block_on(async {
        for key in keys {
            black_box(cache.get(GROUP, key).await.unwrap());
        }
    });
}

fn store() -> Store {
    let store = Store::new(256 << 20, 8 << 20);
    for key in keys(0) {
        let record = Record {
            value: Some(Bytes::from_static(&VALUE)),
            expires_at: Timestamp(u64::MAX / 2),
            stale: Stale::NEVER,
            entity_tag: xxh3_64(&VALUE),
            metadata: Metadata::NONE,
        };
        let key = HashedKey::new(GroupId(0), &key);
        assert!(store.insert(Entry::new(&key, &record)));
    }
    store
}

fn through_store(store: &Store, keys: &[String]) {
    for key in keys {
        let key = HashedKey::new(GroupId(0), key);
        black_box(store.get(&key, Timestamp(1)).unwrap());
    }
}

fn compare(cache: &Cache) {
    let store = store();
    let quick = quick_cache::sync::Cache::<Box<str>, Bytes>::new(2 * KEYS);
    for key in keys(0) {
        quick.insert(key.into(), Bytes::from(VALUE.to_vec()));
    }
    let through_quick = |keys: &[String]| {
        for key in keys {
            black_box(quick.get(&**key).unwrap());
        }
    };
    println!("ns of CPU a get, {KEYS} keys of 16 bytes with 100 each, median of {ROUNDS} rounds");
    println!("threads  Cache::get  core's store  quick_cache");
    for threads in [1, 2] {
        let mut all = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            all[0].push(round(threads, &|keys| through_cache(cache, keys)));
            all[1].push(round(threads, &|keys| through_store(&store, keys)));
            all[2].push(round(threads, &through_quick));
        }
        let [cache, store, quick] = all.map(|mut it| {
            it.sort_by(f64::total_cmp);
            it[it.len() / 2]
        });
        println!("{threads:7}  {cache:10.0}  {store:12.0}  {quick:11.0}");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let settings = internal::loopback("bench", &["log.level=warn"]).unwrap();
    let _telemetry = internal::start_telemetry(&settings, "bench").unwrap();
    let values = loader(async |_| Ok::<_, gaocache::Error>(Bytes::from_static(&VALUE)));
    let group = GroupDefinition::new(GROUP, values).ttl(Duration::from_secs(3600));
    let node = internal::configured(&settings).unwrap().group(group);
    let node = node.bind().await.unwrap();
    let (cache, status) = (node.cache(), node.status());
    let running = tokio::spawn(node.run(std::future::pending()));
    status.ready().await.unwrap();
    for key in keys(0) {
        cache.get(GROUP, &key).await.unwrap();
    }
    tokio::task::spawn_blocking(move || compare(&cache))
        .await
        .unwrap();
    running.abort();
}
