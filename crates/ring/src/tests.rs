use proptest::prelude::*;

use super::*;

fn slots(members: &[(String, u32)]) -> Vec<Slot<'_>> {
    members
        .iter()
        .map(|(id, weight)| Slot::new(id, *weight))
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
    assert_eq!(key(0), KeyHash(GOLDEN_HASH));
    let first_two = |members: &[(String, u32)], from: u64| -> Vec<(usize, usize)> {
        let ring = Ring::new(&slots(members));
        let of = |n| {
            let mut ranked = ring.ranked(key(n));
            (ranked.next().unwrap(), ranked.next().unwrap())
        };
        (from..from + 12).map(of).collect()
    };
    assert_eq!(first_two(&pods("gaocache", 5, 100), 0), GOLDEN_5);
    assert_eq!(first_two(&pods("gaocache", 1000, 100), 0), GOLDEN_1000);
    let weights = [10, 10, 70, 100, 1000];
    let weighted = pods("gaocache", 5, 0).into_iter().zip(weights);
    let weighted: Vec<_> = weighted.map(|((id, _), weight)| (id, weight)).collect();
    assert_eq!(first_two(&weighted, 100), GOLDEN_WEIGHTED);
}

const GOLDEN_HASH: u64 = 0x99CA_0684_D1AB_E36E;
const GOLDEN_5: [(usize, usize); 12] = [
    (1, 4),
    (1, 4),
    (3, 4),
    (3, 2),
    (1, 2),
    (3, 2),
    (4, 2),
    (0, 3),
    (1, 3),
    (3, 0),
    (0, 4),
    (4, 0),
];
const GOLDEN_1000: [(usize, usize); 12] = [
    (330, 177),
    (550, 336),
    (324, 829),
    (873, 920),
    (784, 314),
    (486, 623),
    (173, 964),
    (623, 10),
    (367, 393),
    (404, 297),
    (867, 262),
    (46, 187),
];
const GOLDEN_WEIGHTED: [(usize, usize); 12] = [
    (4, 1),
    (2, 4),
    (4, 1),
    (2, 4),
    (3, 2),
    (4, 3),
    (4, 2),
    (4, 2),
    (4, 3),
    (4, 3),
    (4, 3),
    (4, 3),
];

#[test]
fn the_logarithm_is_within_1e_9_rising_and_never_below_the_draw() {
    let whole = (1u64 << 48) - 1;
    let mut draws: Vec<u64> = (0..=48).map(|shift| whole >> shift).collect();
    draws.extend((0..=32).map(|shift| whole - (1 << shift)));
    draws.extend((0..100_000u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16));
    draws.sort_unstable();
    draws.dedup();
    let mut before = 0.0;
    for draw in draws {
        let u = (draw as f64 + 0.5) / (1u64 << 48) as f64;
        let arrives = arrival(draw);
        let exact = -(-u).ln_1p();
        assert!((arrives / exact - 1.0).abs() < 1e-9, "{draw}: {arrives}");
        assert!(arrives * ROUNDING > u, "{draw}: {arrives}");
        // Two neighbours may be nearer to each other than the error.
        assert!(arrives * (1.0 + 1e-9) > before, "{draw}: {arrives}");
        before = arrives;
    }
}

/// All members in order by the definition: the least draw, or with unequal weights the least time.
fn by_definition(members: &[(String, u32)], key: KeyHash) -> Vec<usize> {
    let equal = members.iter().all(|it| it.1 == members[0].1);
    let time = |at: usize| {
        let (id, weight) = &members[at];
        let draw = draw(key, xxh3_64(id.as_bytes()));
        if equal {
            draw as f64
        } else {
            arrival(draw) / f64::from(*weight)
        }
    };
    let mut all: Vec<usize> = (0..members.len()).collect();
    all.sort_by(|&a, &b| {
        (time(a), &members[a].0)
            .partial_cmp(&(time(b), &members[b].0))
            .unwrap()
    });
    all
}

#[test]
fn a_search_finds_who_wins_by_the_definition() {
    // Around the sizes at which blocks and groups begin, and where upper bits tie often.
    for count in [
        1, 2, 12, 13, 31, 32, 33, 64, 65, 127, 128, 129, 200, 1000, 3000,
    ] {
        let equal = pods("gaocache", count, 100);
        let mut three = equal.clone();
        let mut distinct = equal.clone();
        let mut steep = equal.clone();
        for at in 0..count {
            three[at].1 = [50, 100, 200][at % 3];
            distinct[at].1 = at as u32 + 1;
            steep[at].1 = 1 << (at % 32);
        }
        for members in [equal, three, distinct, steep] {
            let ring = Ring::new(&slots(&members));
            for n in 0..150_000 / (count as u64 + 100) {
                let all = by_definition(&members, key(n));
                assert_eq!(ring.owner(key(n)), Some(all[0]), "{count} members, key {n}");
                let first: Vec<usize> = ring.ranked(key(n)).take(3).collect();
                assert_eq!(first, all[..count.min(3)], "{count} members, key {n}");
            }
            assert_eq!(
                ring.ranked(key(7)).collect::<Vec<_>>(),
                by_definition(&members, key(7))
            );
        }
    }
}

#[test]
fn a_thousand_members_get_even_shares_and_so_do_their_stand_ins() {
    // By the sum of squared deviations, whose mean is the number of members and whose standard
    // deviation is 45.
    let members = pods("gaocache", 1000, 100);
    let ring = Ring::new(&slots(&members));
    let keys = 1_000_000;
    let mut counts = [vec![0u32; 1000], vec![0u32; 1000]];
    for n in 0..keys {
        for (counts, at) in counts.iter_mut().zip(ring.ranked(key(n))) {
            counts[at] += 1;
        }
    }
    for counts in counts {
        let mean = keys as f64 / 1000.0;
        let squares = counts
            .iter()
            .map(|&it| (f64::from(it) - mean).powi(2) / mean);
        let squares: f64 = squares.sum();
        println!("1000 members: {squares:.0} for an ideal of 1000");
        assert!((800.0..1200.0).contains(&squares), "{squares}");
    }
}

#[test]
fn who_stands_in_is_independent_of_who_owns() {
    let members = pods("gaocache", 10, 100);
    let ring = Ring::new(&slots(&members));
    let keys = 900_000;
    let mut counts = [[0u32; 10]; 10];
    for n in 0..keys {
        let first: Vec<usize> = ring.ranked(key(n)).take(2).collect();
        counts[first[0]][first[1]] += 1;
    }
    for (owner, counts) in counts.iter().enumerate() {
        for (second, &count) in counts.iter().enumerate() {
            // 10,000 each; their standard deviation is 100.
            let expected = if owner == second { 0 } else { 10_000 };
            assert!(count.abs_diff(expected) < 500, "{owner}, {second}: {count}");
        }
    }
}

#[test]
fn an_empty_ring_owns_nothing() {
    let ring = Ring::new(&[]);
    assert_eq!(ring.owner(key(1)), None);
    assert_eq!(ring.ranked(key(1)).count(), 0);
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
            let ranked: Vec<usize> = ring.ranked(key(n)).collect();
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
