use super::*;

const GROUP: GroupId = GroupId(1);

fn entry(bytes: usize, expires_at: u64) -> Arc<Entry> {
    Arc::new(Entry::owned(
        Some(&vec![7; bytes]),
        Timestamp(expires_at),
        0,
    ))
}

#[test]
fn nothing_is_served_from_its_expiry_on() {
    let store = Store::new(1 << 20, 1 << 10, 3);
    store.insert(GROUP, "k", entry(10, 1_000));
    assert!(store.get(GROUP, "k", Timestamp(999)).is_some());
    assert!(store.get(GROUP, "k", Timestamp(1_000)).is_none());
    assert!(
        store.is_empty(),
        "what has expired is dropped when it is found"
    );
    assert_eq!(store.stats(GROUP).expired, 1);
}

#[test]
fn it_stays_within_its_capacity_and_counts_what_it_pushes_out() {
    let capacity = 1 << 20;
    let store = Store::new(capacity, 1 << 10, 3);
    for n in 0..10_000 {
        store.insert(GROUP, &n.to_string(), entry(100, u64::MAX));
    }
    assert!(store.bytes() <= capacity, "{} bytes", store.bytes());
    assert!(store.bytes() > capacity / 2, "{} bytes", store.bytes());
    assert_eq!(store.stats(GROUP).evicted as usize + store.len(), 10_000);
}

#[test]
fn a_value_as_large_as_allowed_fits_and_a_larger_one_replaces_nothing_by_nothing_stale() {
    let store = Store::new(64 << 20, 8 << 20, 3);
    assert!(store.insert(GROUP, "k", entry(8 << 20, u64::MAX)));
    assert!(
        !store.insert(GROUP, "k", entry(70 << 20, u64::MAX)),
        "over a shard's share"
    );
    assert!(
        store.get(GROUP, "k", Timestamp(0)).is_none(),
        "the old value must not stay"
    );
}

#[test]
fn groups_are_apart() {
    let store = Store::new(1 << 20, 1 << 10, 3);
    for group in [GroupId(1), GroupId(2)] {
        for n in 0..10 {
            store.insert(group, &n.to_string(), entry(10, u64::MAX));
        }
    }
    assert!(store.remove(GroupId(1), "3"));
    assert!(!store.remove(GroupId(1), "3"));
    assert!(store.get(GroupId(2), "3", Timestamp(0)).is_some());
    assert_eq!(store.purge(GroupId(1)), 9);
    assert_eq!(store.len(), 10);
}

/// The sum of the groups' numbers is what quick_cache says of the whole, whatever was done.
#[test]
fn each_group_is_counted_apart() {
    let store = Store::new(1 << 20, 1 << 10, 3);
    let mut random = fastrand::Rng::with_seed(7);
    for step in 0..50_000u64 {
        let group = GroupId(random.u16(0..3));
        let key = random.u32(0..5_000).to_string();
        match random.u8(0..10) {
            0 => _ = store.remove(group, &key),
            1 => _ = store.get(group, &key, Timestamp(step)),
            2 => _ = store.offer(group, &key, entry(100, step + 1_000), Timestamp(step)),
            3 if step % 5_000 == 0 => _ = store.purge(group),
            4 => {
                if let Some(entry) = store.peek(group, &key, Timestamp(step)) {
                    store.remove_exactly(&Found {
                        group,
                        key: key.into(),
                        entry,
                    });
                }
            }
            _ => _ = store.insert(group, &key, entry(random.usize(0..900), step + 1_000)),
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
    let store = Store::new(1 << 20, 1 << 10, 3);
    for _ in 0..2 {
        store.insert(GROUP, "k", entry(10, u64::MAX));
    }
    let stats = store.stats(GROUP);
    assert_eq!((stats.items, stats.evicted), (1, 0));
}

#[test]
fn a_kept_value_pins_no_larger_buffer() {
    let network_buffer = Bytes::from(vec![7u8; 8192]);
    let value = network_buffer.slice(100..200);
    let entry = Entry::owned(Some(&value), Timestamp::NEVER, 0);
    let kept = entry.value.as_ref().expect("a value");
    assert_eq!(kept.as_ref(), value.as_ref());
    drop(value);
    // Only a unique handle to the whole buffer can be turned back: nothing kept refers to it any
    // more.
    assert!(network_buffer.is_unique());
}

#[test]
fn a_full_store_takes_over_what_was_asked_for_and_nothing_else() {
    let store = Store::new(1 << 20, 1 << 10, 3);
    let offer = |key: &str, use_count: u32| {
        let entry = Entry::owned(Some(&[7; 1000]), Timestamp::NEVER, 0).with_use_count(use_count);
        store.offer(GROUP, key, Arc::new(entry), Timestamp(0))
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
    let store = Store::new(1 << 20, 1 << 10, 3).under(fence.clone());
    store.insert(GROUP, "k", entry(10, u64::MAX));
    assert!(store.get(GROUP, "k", Timestamp(0)).is_none());
    fence.extend(Timestamp(0), Timestamp(10_000));
    assert!(store.get(GROUP, "k", Timestamp(9_999)).is_some());
    assert!(store.get(GROUP, "k", Timestamp(10_000)).is_none());
    assert!(store.peek(GROUP, "k", Timestamp(10_000)).is_none());
    assert_eq!(store.len(), 1);
}
