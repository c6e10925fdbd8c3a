use proptest::prelude::*;

use super::*;

fn slots(members: &[(String, u32)]) -> Vec<Slot<'_>> {
    members
        .iter()
        .map(|(id, weight)| Slot {
            id,
            weight: *weight,
        })
        .collect()
}

fn pods(prefix: &str, count: usize, weight: u32) -> Vec<(String, u32)> {
    (0..count)
        .map(|n| (format!("{prefix}-{n}"), weight))
        .collect()
}

fn key(n: u64) -> KeyHash {
    hash_key(group_seed("users"), &format!("user/{n}"))
}

/// Keys owned by each member, of `keys` sequential ones.
fn owned(members: &[(String, u32)], keys: u64) -> Vec<u64> {
    let ring = Ring::new(&slots(members));
    let mut counts = vec![0; members.len()];
    for n in 0..keys {
        counts[ring.owner(key(n)).unwrap()] += 1;
    }
    counts
}

#[test]
fn the_fullest_of_3_10_and_100_equal_members_has_at_most_1_05_of_the_mean() {
    // More keys for more members, so that the sample's own spread stays well under the bound.
    for (count, keys) in [(3, 200_000), (10, 400_000), (100, 2_000_000)] {
        for prefix in ["gaocache", "10.0.0", "node-in-zone-b"] {
            let counts = owned(&pods(prefix, count, 100), keys);
            let mean = keys as f64 / count as f64;
            let fullest = *counts.iter().max().unwrap() as f64 / mean;
            println!("{count} members '{prefix}': fullest/mean {fullest:.4}");
            assert!(fullest <= 1.05, "{count} members: {fullest}");
        }
    }
}

#[test]
fn weights_are_honoured_within_5_percent() {
    let weights = [50, 100, 100, 200, 300, 1000];
    let members: Vec<_> = weights
        .iter()
        .enumerate()
        .map(|(n, &weight)| (format!("gaocache-{n}"), weight))
        .collect();
    let keys = 1_000_000;
    let total: u32 = weights.iter().sum();
    let ring = Ring::new(&slots(&members));
    for (&weight, count) in weights.iter().zip(owned(&members, keys)) {
        let ideal = keys as f64 * f64::from(weight) / f64::from(total);
        let ratio = count as f64 / ideal;
        println!("weight {weight}: {ratio:.4} of its share");
        assert!((0.95..=1.05).contains(&ratio), "weight {weight}: {ratio}");
        assert!((ring.share(weight) - f64::from(weight) / f64::from(total)).abs() < 1e-12);
    }
}

#[test]
fn a_join_moves_at_most_1_02_of_the_ideal_share_and_only_to_who_joins() {
    for (count, keys) in [(3, 400_000u64), (10, 1_000_000), (100, 4_000_000)] {
        let after = pods("gaocache", count + 1, 100);
        let (small, large) = (
            Ring::new(&slots(&after[..count])),
            Ring::new(&slots(&after)),
        );
        let mut moved = 0u64;
        for n in 0..keys {
            let (from, to) = (small.owner(key(n)).unwrap(), large.owner(key(n)).unwrap());
            if from != to {
                assert_eq!(to, count, "a key moved between two who were there before");
                moved += 1;
            }
        }
        let ratio = moved as f64 / (keys as f64 / (count + 1) as f64);
        println!("{count} + 1: moved {ratio:.4} of the ideal");
        assert!(ratio <= 1.02, "{count} members: {ratio}");
    }
}

#[test]
fn golden_owners() {
    // Frozen: a release that computes others would split a rolling cluster in two. Never edit the
    // expectations.
    let equal = pods("gaocache", 5, 100);
    let ring = Ring::new(&slots(&equal));
    let owners: Vec<usize> = (0..16).map(|n| ring.owner(key(n)).unwrap()).collect();
    assert_eq!(owners, GOLDEN_EQUAL);

    let weighted: Vec<_> = [10, 10, 70, 100, 1000]
        .iter()
        .enumerate()
        .map(|(n, &weight)| (format!("gaocache-{n}"), weight))
        .collect();
    let ring = Ring::new(&slots(&weighted));
    let owners: Vec<usize> = (100..116).map(|n| ring.owner(key(n)).unwrap()).collect();
    assert_eq!(owners, GOLDEN_WEIGHTED);
    assert_eq!(key(0), KeyHash(GOLDEN_HASH));
}

const GOLDEN_EQUAL: [usize; 16] = [3, 4, 0, 4, 1, 3, 1, 0, 3, 0, 1, 3, 1, 4, 3, 3];
const GOLDEN_WEIGHTED: [usize; 16] = [4, 4, 1, 4, 4, 4, 4, 4, 4, 4, 3, 4, 4, 4, 4, 4];
const GOLDEN_HASH: u64 = 0x99CA_0684_D1AB_E36E;

#[test]
fn the_logarithm_is_within_1e_9_and_strictly_falling() {
    let mut draws: Vec<u32> = (0..=32)
        .map(|shift| (u64::from(u32::MAX) >> shift) as u32)
        .collect();
    draws.extend((0..10_000u32).map(|n| n.wrapping_mul(0x9E37_79B1)));
    draws.sort_unstable();
    draws.dedup();
    for pair in draws.windows(2) {
        assert!(negative_ln(pair[0]) > negative_ln(pair[1]), "{pair:?}");
    }
    for draw in draws {
        let exact = -((f64::from(draw) + 0.5) / 4_294_967_296.0).ln();
        assert!((negative_ln(draw) - exact).abs() < 1e-9, "{draw}");
    }
}

#[test]
fn an_empty_ring_owns_nothing() {
    let ring = Ring::new(&[]);
    assert_eq!(ring.owner(key(1)), None);
    assert!(ring.ranked(key(1)).is_empty());
    assert!(ring.is_empty());
}

fn members() -> impl Strategy<Value = Vec<(String, u32)>> {
    let weight = prop_oneof![Just(100u32), 1..1000u32];
    prop::collection::btree_map("[a-z0-9.:-]{1,24}", weight, 1..40)
        .prop_map(|members| members.into_iter().collect())
}

proptest! {
    #[test]
    fn the_order_of_the_members_changes_nothing(members in members(), seed in any::<u64>()) {
        let ring = Ring::new(&slots(&members));
        let mut shuffled = members.clone();
        let length = shuffled.len();
        for at in 0..length {
            shuffled.swap(at, (seed.rotate_left(at as u32) % length as u64) as usize);
        }
        let other = Ring::new(&slots(&shuffled));
        for n in 0..50 {
            let owner = &members[ring.owner(key(n)).unwrap()].0;
            prop_assert_eq!(owner, &shuffled[other.owner(key(n)).unwrap()].0);
        }
    }

    #[test]
    fn without_its_owner_a_key_goes_to_the_next_in_rank(members in members()) {
        let ring = Ring::new(&slots(&members));
        for n in 0..30 {
            let ranked = ring.ranked(key(n));
            prop_assert_eq!(ranked[0], ring.owner(key(n)).unwrap());
            if let Some(&second) = ranked.get(1) {
                let mut left = members.clone();
                let stand_in = members[second].0.clone();
                left.remove(ranked[0]);
                let smaller = Ring::new(&slots(&left));
                prop_assert_eq!(&left[smaller.owner(key(n)).unwrap()].0, &stand_in);
            }
        }
    }

    #[test]
    fn a_leave_moves_only_the_keys_of_who_leaves(members in members(), at in any::<prop::sample::Index>()) {
        let gone = at.index(members.len());
        let ring = Ring::new(&slots(&members));
        let mut left = members.clone();
        left.remove(gone);
        let smaller = Ring::new(&slots(&left));
        for n in 0..100 {
            let owner = ring.owner(key(n)).unwrap();
            if owner != gone {
                prop_assert_eq!(&members[owner].0, &left[smaller.owner(key(n)).unwrap()].0);
            }
        }
    }
}
