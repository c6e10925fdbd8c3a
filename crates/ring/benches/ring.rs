//! Benchmarks of the ring: lookups at several sizes with equal and unequal weights, and building a
//! ring of 1,000 members. `cargo bench -p gaocache-ring`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gaocache_ring::{KeyHash, Ring, Slot, group_seed, hash_key};

fn ring(members: usize, weight: impl Fn(usize) -> u32) -> Ring {
    let ids: Vec<String> = (0..members).map(|n| format!("gaocache-{n}")).collect();
    let slots: Vec<Slot<'_>> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| Slot::new(id, weight(n)))
        .collect();
    Ring::new(&slots)
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("owner");
    let mut each = |name: &str, members: usize, ring: Ring| {
        let mut hash = 0u64;
        group.bench_function(BenchmarkId::new(name, members), |b| {
            b.iter(|| {
                hash = hash.wrapping_add(0x9E37_79B9_7F4A_7C15);
                black_box(ring.owner(KeyHash(hash)))
            });
        });
    };
    for members in [3, 10, 100, 1000] {
        each("equal weights", members, ring(members, |_| 100));
        let three = ring(members, |n| [50, 100, 200][n % 3]);
        each("three weights", members, three);
        let distinct = ring(members, |n| n as u32 + 1);
        each("distinct weights", members, distinct);
    }
    group.finish();
}

/// What the handoff's plan asks for each entry when there are replicas.
fn holders(c: &mut Criterion) {
    let mut group = c.benchmark_group("first two");
    for (name, ring) in [
        ("equal weights/1000", ring(1000, |_| 100)),
        ("distinct weights/1000", ring(1000, |n| n as u32 + 1)),
    ] {
        let mut hash = 0u64;
        group.bench_function(name, |b| {
            b.iter(|| {
                hash = hash.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut ranked = ring.ranked(KeyHash(hash));
                black_box((ranked.next(), ranked.next()))
            });
        });
    }
    group.finish();
}

fn key_hash(c: &mut Criterion) {
    c.bench_function("hash of a 16-byte key", |b| {
        let seed = group_seed("users");
        b.iter(|| black_box(hash_key(seed, black_box("user/00000000042"))));
    });
}

fn build(c: &mut Criterion) {
    c.bench_function("build/1000", |b| b.iter(|| black_box(ring(1000, |_| 100))));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(std::time::Duration::from_secs(2)).warm_up_time(std::time::Duration::from_millis(500));
    targets = lookups, holders, key_hash, build
}
criterion_main!(benches);
