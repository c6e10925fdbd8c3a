use super::*;
use crate::{
    metadata::Metadata,
    record::{Record, Stale},
};

const GROUP: GroupId = GroupId(1);

fn entry(text: &str, bytes: usize, expires_at: u64) -> Entry {
    entry_of(GROUP, text, bytes, expires_at)
}

fn entry_of(group: GroupId, text: &str, bytes: usize, expires_at: u64) -> Entry {
    let key = HashedKey::new(group, text);
    Entry::new(&key, &record(bytes, expires_at))
}

fn record(bytes: usize, expires_at: u64) -> Record {
    Record {
        value: Some(vec![7; bytes].into()),
        expires_at: Timestamp(expires_at),
        stale: Stale::NEVER,
        entity_tag: 0,
        metadata: Metadata::NONE,
    }
}

fn key(text: &str) -> HashedKey<'_> {
    HashedKey::new(GROUP, text)
}

#[test]
fn nothing_is_served_from_its_expiry_on() {
    let store = Store::new(1 << 20, 1 << 10);
    store.insert(entry("k", 10, 1_000));
    assert!(store.get(&key("k"), Timestamp(999)).is_some());
    assert!(store.get(&key("k"), Timestamp(1_000)).is_none());
    assert!(
        store.is_empty(),
        "what has expired is dropped when it is found"
    );
    assert_eq!(store.stats(GROUP).expired, 1);
}

#[test]
fn it_stays_within_its_capacity_and_counts_what_it_pushes_out() {
    let capacity = 1 << 20;
    let store = Store::new(capacity, 1 << 10);
    for n in 0..10_000 {
        store.insert(entry(&n.to_string(), 100, u64::MAX));
    }
    assert!(store.bytes() <= capacity, "{} bytes", store.bytes());
    assert!(store.bytes() > capacity / 2, "{} bytes", store.bytes());
    assert_eq!(store.stats(GROUP).evicted as usize + store.len(), 10_000);
}

#[test]
fn whatever_comes_last_is_there_however_full_the_store_is_and_of_what() {
    let store = Store::new(1 << 18, 1 << 16);
    let mut random = fastrand::Rng::with_seed(1);
    for step in 0..50_000 {
        // Few are asked for often, so many come back soon after they went.
        let text = (random.f64().powi(4) * 50_000.0).floor().to_string();
        let bytes = [0, 100, 100, 1_000, 10_000][random.usize(..5)];
        let (entry, key) = (entry(&text, bytes, u64::MAX), key(&text));
        if step % 4 > 0 && store.get(&key, Timestamp(0)).is_some() {
            continue;
        }
        let is_kept = match step % 3 {
            0 => store.offer(entry, Timestamp(0)) == Offered::Kept,
            1 => store.offer(entry.with_use_count(3), Timestamp(0)) == Offered::Kept,
            _ => store.insert(entry),
        };
        let kept = store.peek(&key, Timestamp(0));
        let kept = kept.map(|it| it.value_bytes() == bytes);
        assert!(!is_kept || kept == Some(true), "{step}: {kept:?}");
    }
    assert!(store.bytes() <= store.capacity());
}

#[test]
fn places_of_small_entries_that_went_are_given_back() {
    let store = Store::new(4 << 20, 1 << 18);
    for n in 0..100_000 {
        store.insert(entry(&n.to_string(), 0, u64::MAX));
    }
    let places = store.len() as u64;
    for n in 0..2_000 {
        let text = format!("large-{n}");
        store.insert(entry(&text, 30_000, u64::MAX));
        // So that it pushes out small ones.
        store.get(&key(&text), Timestamp(0));
    }
    println!("{places} small entries, then {} of any size", store.len());
    let part = store.bytes() as f64 / store.capacity() as f64;
    assert!(part > 0.95, "{part} of the capacity is for entries");
    assert!(store.bytes() <= store.capacity());
}

#[test]
fn what_stays_is_found_and_no_walk_misses_it_while_places_are_given_back() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let store = Store::new(8 << 20, 2 << 20);
        let mut numbers: Vec<u32> = (0..20_000).collect();
        for n in &numbers {
            assert!(store.insert(entry(&n.to_string(), 10, u64::MAX)));
        }
        random.shuffle(&mut numbers);
        let (goes, stays) = numbers.split_at(19_000);
        let mut seen = std::collections::HashSet::new();
        let mut goes = goes.iter();
        for found in store.walk() {
            seen.insert(found.key().to_owned());
            for n in goes.by_ref().take(10) {
                assert!(store.remove(&key(&n.to_string())));
            }
        }
        assert_eq!(goes.len(), 0, "all went during the walk");
        for n in stays {
            assert!(seen.contains(&n.to_string()), "{n} was passed by");
            assert!(store.peek(&key(&n.to_string()), Timestamp(0)).is_some());
        }
        assert_eq!(store.walk().count(), stays.len());
        let places: usize = store.shards.iter().map(|it| it.0.read().places()).sum();
        assert!(
            places < 2 * stays.len() + 512 * store.shards.len(),
            "{places}"
        );
        // The order in which they go is whole: all can be pushed out.
        for n in 0..100_000 {
            let text = format!("new-{n}");
            store.insert(entry(&text, 100, u64::MAX));
            // So that what is hot, too, has to go.
            store.get(&key(&text), Timestamp(0));
        }
        let left = stays.iter().filter(|n| {
            let found = store.peek(&key(&n.to_string()), Timestamp(0));
            found.is_some()
        });
        assert_eq!(left.count(), 0);
        assert!(store.bytes() > store.capacity() / 10 * 9);
    }
}

#[test]
fn a_value_as_large_as_allowed_fits_and_a_larger_one_replaces_nothing_by_nothing_stale() {
    let store = Store::new(64 << 20, 8 << 20);
    assert!(store.insert(entry("k", 8 << 20, u64::MAX)));
    assert!(
        !store.insert(entry("k", 70 << 20, u64::MAX)),
        "over a shard's share"
    );
    assert!(
        store.get(&key("k"), Timestamp(0)).is_none(),
        "the old value must not stay"
    );
}

#[test]
fn groups_are_apart() {
    let store = Store::new(1 << 20, 1 << 10);
    for group in [GroupId(1), GroupId(2)] {
        for n in 0..10 {
            store.insert(entry_of(group, &n.to_string(), 10, u64::MAX));
        }
    }
    assert!(store.remove(&HashedKey::new(GroupId(1), "3")));
    assert!(!store.remove(&HashedKey::new(GroupId(1), "3")));
    assert!(
        store
            .get(&HashedKey::new(GroupId(2), "3"), Timestamp(0))
            .is_some()
    );
    assert_eq!(store.purge(GroupId(1)), 9);
    let one = HashedKey::new(GroupId(1), "4");
    assert!(store.get(&one, Timestamp(0)).is_none());
    assert!(
        store
            .get(&HashedKey::new(GroupId(2), "4"), Timestamp(0))
            .is_some()
    );
}

/// The sum of the groups' numbers is what quick_cache says of the whole, whatever was done.
#[test]
fn each_group_is_counted_apart() {
    let store = Store::new(1 << 20, 1 << 10);
    let mut random = fastrand::Rng::with_seed(7);
    for step in 0..50_000u64 {
        let group = GroupId(random.u16(0..3));
        let text = random.u32(0..5_000).to_string();
        let key = HashedKey::new(group, &text);
        match random.u8(0..10) {
            0 => _ = store.remove(&key),
            1 => _ = store.get(&key, Timestamp(step)),
            2 => _ = store.offer(entry_of(group, &text, 100, step + 1_000), Timestamp(step)),
            3 if step % 5_000 == 0 => _ = store.purge(group),
            4 => {
                if let Some(entry) = store.peek(&key, Timestamp(step)) {
                    store.remove_exactly(&entry);
                }
            }
            _ => _ = store.insert(entry_of(group, &text, random.usize(0..900), step + 1_000)),
        }
    }
    let stats = [0, 1, 2].map(|group| store.stats(GroupId(group)));
    let sum = |part: fn(&GroupStats) -> u64| stats.iter().map(part).sum::<u64>();
    assert_eq!(sum(|it| it.items), store.len() as u64);
    assert_eq!(sum(|it| it.bytes), store.bytes());
    for stats in stats {
        assert!(stats.evicted > 0 && stats.expired > 0, "{stats:?}");
    }
}

#[test]
fn a_newer_value_of_a_key_pushes_nothing_out() {
    let store = Store::new(1 << 20, 1 << 10);
    for _ in 0..2 {
        store.insert(entry("k", 10, u64::MAX));
    }
    let stats = store.stats(GROUP);
    assert_eq!((stats.items, stats.evicted), (1, 0));
}

#[test]
fn a_full_store_takes_over_what_was_asked_for_and_nothing_else() {
    let store = Store::new(1 << 20, 1 << 10);
    let offer = |key: &str, use_count: u32| {
        store.offer(
            entry(key, 1000, u64::MAX).with_use_count(use_count),
            Timestamp(0),
        )
    };
    assert_eq!(offer("k", 0), Offered::Kept);
    assert_eq!(offer("k", 0), Offered::Known);
    for n in 0..2_000 {
        offer(&n.to_string(), 1);
    }
    assert_eq!(offer("cold", 0), Offered::Full);
    assert_eq!(offer("hot", 1), Offered::Kept);
    assert!(store.bytes() <= store.capacity());
}

#[test]
fn nothing_is_found_while_the_fence_is_closed_and_the_entries_stay() {
    let fence = Arc::new(Fence::closed());
    let store = Store::new(1 << 20, 1 << 10).under(fence.clone());
    store.insert(entry("k", 10, u64::MAX));
    assert!(store.get(&key("k"), Timestamp(0)).is_none());
    fence.extend(Timestamp(0), Timestamp(10_000));
    assert!(store.get(&key("k"), Timestamp(9_999)).is_some());
    assert!(store.get(&key("k"), Timestamp(10_000)).is_none());
    assert!(store.peek(&key("k"), Timestamp(10_000)).is_none());
    assert_eq!(store.len(), 1);
}

#[tokio::test]
async fn what_was_purged_is_gone_at_once_and_its_memory_a_little_later() {
    let store = Store::new(1 << 20, 1 << 10);
    for n in 0..1_000 {
        store.insert(entry(&n.to_string(), 10, u64::MAX));
    }
    assert_eq!(store.purge(GROUP), 1_000);
    assert_eq!(store.walk().count(), 0);
    assert!(store.peek(&key("1"), Timestamp(0)).is_none());
    assert!(store.get(&key("2"), Timestamp(0)).is_none());
    assert!(!store.remove(&key("3")), "it was gone already");
    assert_eq!(store.len(), 998, "not scanned");
    // What comes later stays, and what replaces an older one too.
    store.insert(entry("4", 10, u64::MAX));
    assert_eq!(
        store.offer(entry("5", 10, u64::MAX), Timestamp(0)),
        Offered::Kept
    );
    assert_eq!(store.purge(GroupId(2)), 0);
    store.sweep().await;
    assert_eq!(store.len(), 2);
    assert_eq!(store.stats(GROUP).items, 2);
    assert!(store.get(&key("4"), Timestamp(0)).is_some());
    assert!(store.get(&key("5"), Timestamp(0)).is_some());
    assert_eq!(store.purge(GROUP), 2);
}

#[tokio::test]
async fn purges_in_a_row_count_each_entry_once_and_one_sweep_frees_all() {
    let store = Arc::new(Store::new(1 << 20, 1 << 10));
    let other = GroupId(2);
    for n in 0..1_000 {
        store.insert(entry(&n.to_string(), 10, u64::MAX));
        store.insert(entry_of(other, &n.to_string(), 10, u64::MAX));
    }
    assert_eq!(store.purge(GROUP), 1_000);
    let sweeping = tokio::spawn({
        let store = store.clone();
        async move { store.sweep().await }
    });
    tokio::task::yield_now().await;
    assert!(
        store.len() < 2_000 && !store.is_empty(),
        "it goes in strides"
    );
    // Some of these it has passed already.
    assert_eq!((store.purge(GROUP), store.purge(other)), (0, 1_000));
    store.sweep().await;
    sweeping.await.expect("swept");
    assert!(store.is_empty());
}

#[test]
fn the_reason_why_a_key_left_lately_is_known() {
    let store = Store::new(1 << 20, 1 << 10);
    let (now, late) = (Timestamp(0), Timestamp(10));
    for name in ["removed", "expired", "stays"] {
        let until = if name == "expired" { 5 } else { u64::MAX };
        store.insert(entry(name, 10, until));
    }
    assert!(store.remove(&key("removed")));
    assert!(store.get(&key("expired"), late).is_none());
    assert!(store.get(&key("stays"), now).is_some());
    assert_eq!(store.why_gone(&key("removed")), Some(GoneReason::Dropped));
    assert_eq!(store.why_gone(&key("expired")), Some(GoneReason::Expired));
    assert_eq!(store.why_gone(&key("stays")), None);
    // A key whose entry is replaced has not left.
    store.insert(entry("stays", 20, u64::MAX));
    assert_eq!(store.why_gone(&key("stays")), None);
    for n in 0..20_000 {
        store.insert(entry(&n.to_string(), 500, u64::MAX));
    }
    let evicted = (0..20_000).filter(|n| {
        let why = store.why_gone(&key(&n.to_string()));
        why == Some(GoneReason::Evicted)
    });
    assert!(evicted.count() > 100);
}

#[test]
fn what_an_origin_said_about_a_value_counts_like_its_bytes() {
    let weight = |metadata: &Metadata| {
        let store = Store::new(1 << 20, 1 << 10);
        let record = Record {
            metadata: metadata.clone(),
            ..record(100, 1_000)
        };
        let key = HashedKey::new(GroupId(0), "k");
        assert!(store.insert(Entry::new(&key, &record)));
        store.bytes()
    };
    let said = Metadata::new([("content-type", "text/plain")]).expect("good");
    let more = weight(&said) - weight(&Metadata::NONE);
    assert_eq!(more, said.bytes() as u64);
    assert!(more > 25, "{more}");
}
