//! Memory stays within the configured bytes, and entries are charged what they take, as the
//! operating system measures it. One test, so that nothing else allocates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use gaocache_core::{
    key::{GroupId, HashedKey},
    metadata::Metadata,
    ports::Timestamp,
    record::{Record, Stale},
    store::{Entry, Store},
};

#[global_allocator]
static ALLOCATOR: gaocache::internal::Allocator = gaocache::internal::Allocator;

/// What a process holds before the first entry and what the allocator keeps at hand.
const FIXED_OVERHEAD_BYTES: u64 = 8 << 20;
const ENTRIES: u64 = 1_000_000;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("VmRSS");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .parse()
        .expect("a number");
    kib * 1024
}

/// Fills a store, and checks along the way: its tables grow by doubling, and just after that they
/// are largest for what they hold.
fn fill(capacity: u64, before: u64) {
    let store = Store::new(capacity, 1 << 20);
    for number in 0..ENTRIES {
        let key = format!("user/{number:011}");
        let key = HashedKey::new(GroupId(0), &key);
        assert!(store.insert(Entry::new(&key, &record(number))));
        if number % 20_000 == 19_999 {
            let grown = resident_bytes().saturating_sub(before);
            assert!(
                grown <= capacity + FIXED_OVERHEAD_BYTES,
                "{grown} bytes resident for a capacity of {capacity}"
            );
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    let held = store.len() as u64;
    assert!(store.bytes() <= capacity && held > 0);
    println!(
        "capacity {} MiB: {held} entries of 16 B + 100 B, RSS grew by {} MiB; {} bytes an entry",
        capacity >> 20,
        grown >> 20,
        grown / held,
    );
    purge(&store);
}

/// Purges the full store, and reads beside the sweep that frees its memory. Prints how long both
/// take; a purge that scanned would take as long as its sweep.
fn purge(store: &Store) {
    let held = store.len();
    let began = Instant::now();
    assert_eq!(store.purge(GroupId(0)), held as u64);
    let purged = began.elapsed();
    let other = HashedKey::new(GroupId(0), "kept since");
    assert!(store.insert(Entry::new(&other, &record(0))));
    let sweeping = AtomicBool::new(true);
    let (swept, mut gets) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut took = Vec::new();
            while sweeping.load(Ordering::Acquire) {
                let began = Instant::now();
                assert!(store.get(&other, Timestamp(0)).is_some());
                took.push(began.elapsed());
            }
            took
        });
        let began = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(store.sweep());
        let swept = began.elapsed();
        sweeping.store(false, Ordering::Release);
        (swept, reader.join().expect("reads"))
    });
    assert_eq!(store.len(), 1, "all memory is freed");
    gets.sort_unstable();
    let slow = gets.get(gets.len() * 999 / 1000).copied();
    println!(
        "purge of {held} entries: {purged:?}; its sweep: {swept:?}; 99.9 % of {} gets beside it: {:?}",
        gets.len(),
        slow.unwrap_or_default(),
    );
}

fn record(number: u64) -> Record {
    // Every second one comes from an origin that says what it is.
    let said = [
        ("content-type", "text/plain"),
        ("etag", "\"0123456789abcdef\""),
    ];
    let said = said.into_iter().filter(|_| number % 2 == 1);
    Record {
        value: Some(Bytes::from_static(&[7; 100])),
        expires_at: Timestamp::NEVER,
        stale: Stale::NEVER,
        entity_tag: xxh3_64(&[7; 100]),
        metadata: Metadata::new(said).expect("good"),
    }
}

/// Sizes of values, and how many of each: enough that what a store takes by itself doesn't count.
const CHARGED: [(usize, u64); 5] = [
    (0, 600_000),
    (100, 500_000),
    (1024, 150_000),
    (65_536, 3_000),
    (1 << 20, 200),
];
/// Names the process that fills a store with values of that size, and the number of entries.
const MEASURED: &str = "GAOCACHE_TEST_MEASURED";

/// Fills a store, and prints by how many bytes the process grew, and what the entries are charged.
fn measure(bytes: usize, entries: u64) {
    let record = Record {
        entity_tag: xxh3_64(&vec![7; bytes]),
        value: Some(vec![7; bytes].into()),
        ..record(0)
    };
    let before = resident_bytes();
    let store = Store::new(8 << 30, 1 << 20);
    for number in 0..entries {
        let key = format!("user/{number:011}");
        store.insert(Entry::new(&HashedKey::new(GroupId(0), &key), &record));
    }
    assert_eq!(store.len() as u64, entries);
    let grown = resident_bytes().saturating_sub(before);
    println!("measured {grown} {}", store.bytes());
}

/// Each size in a process of its own: memory that another left would hide what it takes.
fn charges() {
    for (bytes, entries) in CHARGED {
        let process = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", NAME, "--nocapture"])
            .env(MEASURED, format!("{bytes} {entries}"))
            .output();
        let output = process.expect("it runs").stdout;
        let output = String::from_utf8_lossy(&output);
        let line = output.lines().find_map(|it| it.split_once("measured "));
        let (grown, charged) = line
            .expect("a line")
            .1
            .split_once(' ')
            .expect("two numbers");
        let number = |text: &str| text.parse::<f64>().expect("a number") / entries as f64;
        let (takes, charged) = (number(grown), number(charged));
        println!(
            "value of {bytes} B: an entry takes {takes:.0} B of resident memory, {:.0} beside key \
             and value; charged {charged:.0}",
            takes - 16.0 - bytes as f64
        );
        let share = charged / takes;
        assert!((0.9..1.1).contains(&share), "{share} of it is charged");
    }
}

const NAME: &str = "entries_stay_within_the_capacity_and_are_charged_what_they_take";

#[test]
fn entries_stay_within_the_capacity_and_are_charged_what_they_take() {
    if let Ok(measured) = std::env::var(MEASURED) {
        let (bytes, entries) = measured.split_once(' ').expect("two numbers");
        return measure(
            bytes.parse().expect("bytes"),
            entries.parse().expect("entries"),
        );
    }
    charges();
    let before = resident_bytes();
    // One that most are evicted from, then one that all fit into.
    for capacity in [128 << 20, 512 << 20] {
        fill(capacity, before);
    }
}
