//! What groups are guaranteed of a store, and what they may not exceed.

use std::collections::HashMap;

use super::{
    hit_ratio_tests::{KEYS, VALUE_BYTES, record, zipf},
    *,
};
use crate::{metadata::Metadata, record::Record};

const GROUPS: [GroupId; 4] = [GroupId(0), GroupId(1), GroupId(2), GroupId(3)];

fn quota(share: f64, limit: f64) -> MemoryQuota {
    MemoryQuota { share, limit }
}

fn entry(group: GroupId, text: &str, bytes: usize) -> Entry {
    let record = Record {
        value: Some(vec![7; bytes].into()),
        metadata: Metadata::NONE,
        ..record()
    };
    Entry::new(&HashedKey::new(group, text), &record)
}

fn with_quotas(store: &Store, quotas: &[MemoryQuota]) {
    let quotas: Vec<_> = GROUPS.into_iter().zip(quotas.iter().copied()).collect();
    store.set_quotas(&quotas);
}

fn with(store: Store, quotas: &[MemoryQuota]) -> Store {
    with_quotas(&store, quotas);
    store
}

/// What is in the store, by group and key.
type Held = HashMap<(GroupId, String), u64>;

fn held(store: &Store) -> Held {
    let all = store.walk();
    all.map(|it| ((it.group(), it.key().to_owned()), weight(&it)))
        .collect()
}

fn bytes(held: &Held, group: GroupId) -> u64 {
    let of_it = held.iter().filter(|((it, _), _)| *it == group);
    of_it.map(|(_, weight)| weight).sum()
}

/// What groups may count on, said anew.
struct Rules {
    share: [u64; 4],
    limit: [u64; 4],
}

impl Rules {
    fn new(quotas: &[MemoryQuota; 4], capacity: u64) -> Self {
        let of = |ratio: f64| (ratio * capacity as f64) as u64;
        Self {
            share: quotas.map(|it| of(it.share)),
            limit: quotas.map(|it| of(it.limit)),
        }
    }

    /// Whether it is right that an entry came and others went for it. `exact` where all entries
    /// compete for the same room.
    fn judge(&self, before: &Held, after: &Held, new: &(GroupId, String), exact: bool) {
        assert!(after.contains_key(new), "{new:?} is there");
        for group in GROUPS {
            let at = usize::from(group.0);
            let (has, had) = (bytes(after, group), bytes(before, group));
            assert!(
                has <= self.limit[at],
                "{group:?}: {has} of {}",
                self.limit[at]
            );
            let went = before
                .iter()
                .filter(|(key, _)| key.0 == group && *key != new && !after.contains_key(key));
            let Some(largest) = went.map(|(_, weight)| *weight).max() else {
                continue;
            };
            let limited = group == new.0 && had + after[new] > self.limit[at];
            if !exact || limited || has + largest > self.share[at] {
                continue;
            }
            // It gave some of its share: nobody else had anything to give.
            for (other, key) in after.keys() {
                let could = *other != group
                    && (*other, key) != (new.0, &new.1)
                    && (*other == new.0 || bytes(after, *other) > self.share[usize::from(other.0)]);
                assert!(!could, "{group:?} gave for {new:?}, {other:?} could have");
            }
        }
    }
}

fn random_quotas(random: &mut fastrand::Rng) -> [MemoryQuota; 4] {
    let mut rest = 1.0;
    std::array::from_fn(|_| {
        if random.u8(0..3) == 0 {
            return MemoryQuota::NONE;
        }
        let share = random.f64() * rest;
        rest -= share;
        let limit = if random.bool() {
            1.0
        } else {
            (share + random.f64() * 0.5).clamp(0.2, 1.0)
        };
        quota(share, limit)
    })
}

fn play(seed: u64, capacity: u64, largest: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let store = Store::new(capacity, largest);
    let exact = store.shards.len() == 1;
    let mut quotas = [MemoryQuota::NONE; 4];
    for step in 0..1_500 {
        if step % 300 == 100 {
            quotas = random_quotas(&mut random);
            let before = held(&store);
            store.set_quotas(&GROUPS.map(|it| (it, quotas[usize::from(it.0)])));
            let after = held(&store);
            assert!(after.iter().all(|(key, _)| before.contains_key(key)));
        }
        let rules = Rules::new(&quotas, store.capacity());
        // One group asks for much more than the others, and another one each time.
        let flooding = GROUPS[step / 150 % 4];
        let group = match random.u8(0..4) {
            0 => GROUPS[random.usize(..4)],
            _ => flooding,
        };
        let text = random.usize(0..2_000).to_string();
        let key = HashedKey::new(group, &text);
        match random.u8(0..10) {
            0 => _ = store.remove(&key),
            1..4 => {
                for entry in store.walk().take(30) {
                    store.get(&entry.hashed(), Timestamp(0));
                }
            }
            _ => {
                let most = [200, 200, 4_000][random.usize(..3)];
                let size = random.usize(0..most);
                let before = held(&store);
                if store.insert(entry(group, &text, size)) {
                    let new = (group, text);
                    rules.judge(&before, &held(&store), &new, exact);
                }
            }
        }
        let all = held(&store);
        for group in GROUPS {
            assert_eq!(store.stats(group).bytes, bytes(&all, group), "{group:?}");
        }
        assert_eq!(store.bytes(), all.values().sum::<u64>());
        assert!(store.bytes() <= store.capacity());
    }
    assert!(
        store.bytes() > store.capacity() / 2,
        "{} used",
        store.bytes()
    );
}

#[test]
fn no_group_loses_its_share_while_others_have_more_and_none_exceeds_its_limit() {
    for seed in 0..16 {
        play(seed, 64 << 10, 64 << 10);
        play(seed, 128 << 10, 1 << 10);
    }
}

/// Hundredths of its gets that the first group finds, in the second half of them, while the second
/// asks for keys of its own or floods the store with new ones.
fn found(quotas: &[MemoryQuota], floods: bool) -> f64 {
    const GETS: usize = 200_000;
    let capacity = (KEYS / 5) as u64 * charge(8, VALUE_BYTES as u64);
    let store = with(Store::new(capacity, capacity / 64), quotas);
    let (record, mut hits) = (record(), 0);
    let asked = |group, number: usize| {
        let text = format!("{number:08}");
        let key = HashedKey::new(group, &text);
        let found = store.get(&key, Timestamp(0)).is_some();
        if !found {
            store.insert(Entry::new(&key, &record));
        }
        found
    };
    let mut new = KEYS..;
    for (step, (ours, theirs)) in zipf(0.9, 1).zip(zipf(0.9, 2)).take(GETS).enumerate() {
        hits += usize::from(asked(GROUPS[0], ours) && step >= GETS / 2);
        match floods {
            // In the second half, ten times all that the store can hold.
            true => (&mut new).take(2).for_each(|it| _ = asked(GROUPS[1], it)),
            false => _ = asked(GROUPS[1], theirs),
        }
    }
    hits as f64 / (GETS / 2) as f64 * 100.0
}

#[test]
fn a_flood_of_new_keys_of_one_group_costs_another_no_hits() {
    for (what, quotas) in [
        (
            "half of the memory each",
            [quota(0.5, 1.0), quota(0.5, 1.0)],
        ),
        ("three tenths each", [quota(0.3, 1.0), quota(0.3, 1.0)]),
        ("half, and nothing", [quota(0.5, 1.0), MemoryQuota::NONE]),
        ("no share, a limit", [MemoryQuota::NONE, quota(0.0, 0.5)]),
    ] {
        let (calm, flooded) = (found(&quotas, false), found(&quotas, true));
        println!("{what}: {calm:.2} % hits, with the flood of the other {flooded:.2} %");
        assert!(calm - flooded <= 0.5, "{what}: {calm} {flooded}");
    }
    let none = [MemoryQuota::NONE; 2];
    let (calm, flooded) = (found(&none, false), found(&none, true));
    println!("nothing guaranteed: {calm:.2} % hits, with the flood {flooded:.2} %");
    assert!(calm - flooded > 2.0, "so there is something to lose");
}

#[test]
fn what_is_guaranteed_to_nobody_is_for_whoever_wants_it() {
    let store = with(Store::new(1 << 20, 1 << 10), &[quota(0.25, 1.0)]);
    let fill = |group, range: std::ops::Range<usize>| {
        for number in range {
            assert!(store.insert(entry(group, &number.to_string(), 100)));
        }
    };
    let part = |group| store.stats(group).bytes as f64 / store.capacity() as f64;
    fill(GROUPS[1], 0..10_000);
    assert!(
        part(GROUPS[1]) > 0.95,
        "its share is free: {}",
        part(GROUPS[1])
    );
    fill(GROUPS[0], 0..10_000);
    fill(GROUPS[1], 10_000..20_000);
    // A quarter, and half of what is left.
    let has = part(GROUPS[0]);
    assert!((0.60..0.65).contains(&has), "{has}");
}

#[test]
fn quotas_change_while_entries_are_there() {
    let store = Store::new(1 << 20, 1 << 10);
    for group in GROUPS {
        for number in 0..500 {
            store.insert(entry(group, &number.to_string(), 100));
        }
    }
    let before = held(&store);
    let store = with(store, &[quota(0.1, 1.0), quota(0.2, 0.9)]);
    assert_eq!(held(&store), before, "there is room for all");
    let store = with(store, &[MemoryQuota::NONE, quota(0.0, 0.05)]);
    let limit = store.stats(GROUPS[1]).limit;
    assert_eq!(limit, store.capacity() / 20);
    let has = store.stats(GROUPS[1]).bytes;
    assert!(has <= limit && has > limit - 300, "{has} of {limit}");
    assert_eq!(store.stats(GROUPS[0]).items, 500);
    let store = with(store, &[]);
    for number in 0..5_000 {
        store.insert(entry(GROUPS[1], &number.to_string(), 100));
    }
    assert!(store.stats(GROUPS[1]).bytes > limit * 4);
    assert!(store.bytes() <= store.capacity());
}

/// Whoever inserts an entry learns its part from other quotas than its shard may have by then.
#[test]
fn quotas_change_while_entries_come() {
    let limits = [0.05, 0.1].map(|limit| quota(0.0, limit));
    let store = with(Store::new(8 << 20, 1 << 10), &limits);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let come = |group: GroupId| {
            for nth in 0..4_000 {
                store.insert(entry(group, &nth.to_string(), 1 << 10));
            }
        };
        let coming = [GROUPS[0], GROUPS[1]].map(|group| scope.spawn(move || come(group)));
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                store.set_quotas(&[]);
                with_quotas(&store, &limits);
                with_quotas(&store, &[MemoryQuota::NONE, limits[1]]);
            }
        });
        let ended = coming.map(|it| it.join());
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a panic");
    });
    with_quotas(&store, &limits);
    let held = held(&store);
    for (group, quota) in GROUPS.iter().zip(limits) {
        let limit = (quota.limit * store.capacity() as f64) as u64;
        assert!((1..=limit).contains(&bytes(&held, *group)), "{group:?}");
    }
}

#[test]
fn groups_that_come_in_another_order_stay_where_they_are() {
    let named = [
        (GROUPS[1], quota(0.1, 0.5)),
        (GROUPS[0], MemoryQuota::NONE),
        (GROUPS[2], quota(0.2, 0.6)),
    ];
    let other_way = [named[2], named[1], named[0]];
    let of = |named: &[_]| Quotas::new(named, 1 << 20, 4);
    assert!(of(&named).divide_like(&of(&other_way)));
}

#[test]
fn what_is_too_large_for_a_group_s_limit_is_not_kept() {
    let store = with(Store::new(1 << 20, 1 << 16), &[quota(0.0, 0.05)]);
    assert!(store.insert(entry(GROUPS[0], "k", 40_000)));
    assert!(!store.insert(entry(GROUPS[0], "k", 60_000)));
    assert!(store.is_empty(), "the old value must not stay");
    assert!(store.insert(entry(GROUPS[1], "k", 60_000)));
    let offered = entry(GROUPS[0], "k", 60_000).with_use_count(9);
    assert_eq!(store.offer(offered, Timestamp(0)), Offered::Full);
}

#[test]
fn a_group_below_its_share_takes_over_what_nobody_has_asked_for() {
    let store = with(
        Store::new(1 << 20, 1 << 10),
        &[quota(0.25, 1.0), quota(0.0, 0.5)],
    );
    for number in 0..10_000 {
        store.insert(entry(GROUPS[2], &number.to_string(), 100));
    }
    let offer = |group, text: &str| store.offer(entry(group, text, 100), Timestamp(0));
    assert_eq!(offer(GROUPS[2], "cold"), Offered::Full);
    assert_eq!(offer(GROUPS[0], "cold"), Offered::Kept);
    store.purge(GROUPS[2]);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(store.sweep());
    while store.stats(GROUPS[1]).bytes + 300 < store.stats(GROUPS[1]).limit {
        let text = store.len().to_string();
        assert_eq!(offer(GROUPS[1], &text), Offered::Kept);
    }
    assert_eq!(offer(GROUPS[1], &"x".repeat(300)), Offered::Full);
}

#[test]
fn quotas_that_can_t_be_are_refused() {
    assert!(MemoryQuota::NONE.check().is_ok() && quota(0.5, 0.5).check().is_ok());
    for wrong in [
        quota(0.5, 0.4),
        quota(-0.1, 1.0),
        quota(0.0, 1.1),
        quota(0.0, 0.0),
        quota(f64::NAN, 1.0),
    ] {
        assert!(wrong.check().is_err(), "{wrong:?}");
    }
    let tenth = quota(0.1, 1.0);
    assert!(MemoryQuota::check_all([tenth; 10].into_iter()).is_ok());
    assert!(MemoryQuota::check_all([tenth; 11].into_iter()).is_err());
}
