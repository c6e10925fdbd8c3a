//! Who owns a key: weighted rendezvous hashing over the members.
//!
//! Every member draws a pseudo-random number for the key, and the member with the best draw owns
//! it. This is highest random weight hashing (Thaler and Ravishankar 1998); unequal weights use the
//! exponential race `-ln(u) / weight`. Shares are exact without virtual nodes, a join or leave
//! moves exactly the share of the member that joins or leaves, and the second-best member is the
//! natural stand-in for an owner that is down.
//!
//! The ring is a function of the members' ids and weights alone, with xxh3 and arithmetic whose
//! results are the same on every platform. **The draw must never change**: two releases that roll
//! side by side would disagree. `tests` hold golden values.
//!
//! A lookup computes sixteen bits of a draw for every member, eight or more at a time in vector
//! registers, and whole draws only for the few that these bits don't decide between (`search`;
//! `benches/ring.rs`, figures in ARCHITECTURE.md).

mod draw;
mod key;
mod search;

use xxhash_rust::xxh3::xxh3_64;

use draw::{KeyWords, arrival, draw, member_words};
pub use key::{KeyHash, group_seed, hash_key};
use search::{BLOCK, Block, Equal, Search, Unequal};

/// Up to so many members of equal weight, comparing whole draws is faster than a search.
const FEW: usize = 12;
/// How many members on average the first part of a key's ranking holds. So few as two are wanted
/// usually; in one of 2,000 cases there is only one.
const FIRST_PART: f64 = 10.0;
/// Times, in double precision, grow by this before they are compared with scores in single
/// precision: by more than these are rounded.
const ROUNDING: f64 = 1.0 + 1e-6;

/// The weight of a member that does not specify one.
pub const DEFAULT_WEIGHT: u32 = 100;

/// What the ring needs to know of a member.
///
/// ```
/// use gaocache_ring::{DEFAULT_WEIGHT, Ring, Slot, group_seed, hash_key};
///
/// let ring = Ring::new(&[Slot::new("a", DEFAULT_WEIGHT), Slot::new("b", 3 * DEFAULT_WEIGHT)]);
/// assert_eq!(ring.share(3 * DEFAULT_WEIGHT), 0.75);
/// assert!(ring.owner(hash_key(group_seed("users"), "42")).is_some());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Slot<'a> {
    /// The stable id; it alone decides the member's draws.
    pub id: &'a str,
    /// The share relative to the others' weights, at least 1.
    pub weight: u32,
}

impl<'a> Slot<'a> {
    /// A member with this id and this weight, at least 1.
    pub fn new(id: &'a str, weight: u32) -> Self {
        Self { id, weight }
    }
}

/// An immutable ring. Members are named by their index in the slice that it was built from.
///
/// ```
/// use gaocache_ring::{DEFAULT_WEIGHT, Ring, Slot, group_seed, hash_key};
///
/// let members = ["a", "b", "c"];
/// let ring = Ring::new(&members.map(|id| Slot::new(id, DEFAULT_WEIGHT)));
/// let key = hash_key(group_seed("users"), "42");
/// let ranked: Vec<&str> = ring.ranked(key).map(|at| members[at]).collect();
/// assert_eq!(ring.owner(key).map(|at| members[at]), Some(ranked[0]));
/// // Without the owner, the next one in the ranking owns the key.
/// let left = &ranked[1..];
/// let ring = Ring::new(&[Slot::new(left[0], DEFAULT_WEIGHT), Slot::new(left[1], DEFAULT_WEIGHT)]);
/// assert_eq!(ring.owner(key), Some(0));
/// ```
#[derive(Clone, Debug)]
pub struct Ring {
    /// In the order of ids, as what follows. In case of a tie, the first member wins.
    members: Vec<RingMember>,
    blocks: Blocks,
    /// Sum of all weights.
    total_weight: u64,
}

/// The members as a search needs them. With equal weights the least draw wins, and nothing needs a
/// logarithm.
#[derive(Clone, Debug)]
enum Blocks {
    Equal(Vec<Equal>),
    Unequal(Vec<Unequal>),
}

#[derive(Clone, Copy, Debug)]
struct RingMember {
    hash: u64,
    weight: u32,
    /// Index in the slice that the ring was built from.
    index: u32,
}

impl Default for Ring {
    /// Without members.
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Ring {
    /// The ring of these members, in any order. Their ids must be distinct.
    pub fn new(slots: &[Slot<'_>]) -> Self {
        let mut order: Vec<usize> = (0..slots.len()).collect();
        order.sort_unstable_by_key(|&at| slots[at].id);
        let members: Vec<RingMember> = order
            .into_iter()
            .map(|at| RingMember {
                hash: xxh3_64(slots[at].id.as_bytes()),
                weight: slots[at].weight.max(1),
                index: at as u32,
            })
            .collect();
        let equal = members
            .windows(2)
            .all(|pair| pair[0].weight == pair[1].weight);
        Self {
            blocks: if equal {
                Blocks::Equal(members.chunks(BLOCK).map(equal_block).collect())
            } else {
                Blocks::Unequal(members.chunks(BLOCK).map(unequal_block).collect())
            },
            total_weight: members.iter().map(|it| u64::from(it.weight)).sum(),
            members,
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the ring has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The share of all keys, 0 to 1, that a member of `weight` owns.
    ///
    /// ```
    /// use gaocache_ring::{Ring, Slot};
    ///
    /// let ring = Ring::new(&[Slot::new("large", 300), Slot::new("small", 100)]);
    /// assert_eq!((ring.len(), ring.share(300)), (2, 0.75));
    /// ```
    pub fn share(&self, weight: u32) -> f64 {
        if self.total_weight == 0 {
            return 0.0;
        }
        f64::from(weight) / self.total_weight as f64
    }

    /// The index of the key's owner; `None` only for an empty ring.
    pub fn owner(&self, key: KeyHash) -> Option<usize> {
        let owner = match &self.blocks {
            Blocks::Equal(_) if self.len() <= FEW => self.least_draw(key),
            Blocks::Equal(blocks) => {
                let search = self.search(blocks, key);
                let leader = search.leader();
                let bound = leader.score;
                let alone = search.alone_within(bound, &leader);
                alone.or_else(|| self.first_within(blocks, bound, key))
            }
            Blocks::Unequal(blocks) => {
                let search = self.search(blocks, key);
                let leader = search.leader();
                let leading = search.alone_within(leader.score, &leader);
                let leading = leading.or_else(|| self.any_within(blocks, leader.score, key))?;
                // A member that arrives before it must have a score within the time that it takes.
                let bound = (self.time(key, leading) * ROUNDING) as f32;
                let alone = search.alone_within(bound, &leader);
                alone.or_else(|| self.first_within(blocks, bound, key))
            }
        };
        owner.map(|at| self.index(at))
    }

    /// All members, the owner first; each is followed by the member that would own the key without
    /// those before it.
    ///
    /// The first few cost little more than [`Ring::owner`]. Going further sorts all members.
    pub fn ranked(&self, key: KeyHash) -> impl Iterator<Item = usize> {
        let first = self.first_part(key);
        let known = first.len();
        let all = move || self.sorted(0..self.len(), key).into_iter().skip(known);
        let rest = std::iter::once_with(all).flatten();
        first.into_iter().chain(rest).map(|at| self.index(at))
    }

    /// Those who arrive first, in order: about [`FIRST_PART`] members.
    fn first_part(&self, key: KeyHash) -> Vec<usize> {
        if self.len() as f64 <= FIRST_PART {
            return self.sorted(0..self.len(), key);
        }
        match &self.blocks {
            Blocks::Equal(blocks) => {
                // The largest 32 bits that the lower part of a draw may have are within the bound.
                let bound = draw::to_coarse((65_536.0 * FIRST_PART / self.len() as f64) as u16);
                let search = self.search(blocks, key);
                self.sorted(search.within(bound), key)
            }
            Blocks::Unequal(blocks) => {
                // Arrivals are a Poisson process, its rate the sum of the weights.
                let bound = FIRST_PART / self.total_weight as f64;
                let search = self.search(blocks, key);
                let candidates = search.within((bound * ROUNDING) as f32);
                let in_time = candidates.filter(|at| self.time(key, *at) <= bound);
                self.sorted(in_time, key)
            }
        }
    }

    fn search<'a, B: Block>(&self, blocks: &'a [B], key: KeyHash) -> Search<'a, B> {
        Search {
            blocks,
            len: self.len(),
            key: KeyWords::of(key),
        }
    }

    fn sorted(&self, members: impl Iterator<Item = usize>, key: KeyHash) -> Vec<usize> {
        let times = members.map(|at| (self.time(key, at), at));
        let mut all: Vec<(f64, usize)> = times.collect();
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.into_iter().map(|(_, at)| at).collect()
    }

    // What is rarely needed makes searches anew, so that those of every lookup stay in registers.
    #[cold]
    #[inline(never)]
    fn any_within<B: Block>(&self, blocks: &[B], bound: B::Score, key: KeyHash) -> Option<usize> {
        self.search(blocks, key).within(bound).next()
    }

    #[cold]
    #[inline(never)]
    fn first_within<B: Block>(&self, blocks: &[B], bound: B::Score, key: KeyHash) -> Option<usize> {
        self.first_of(self.search(blocks, key).within(bound), key)
    }

    fn first_of(&self, candidates: impl Iterator<Item = usize>, key: KeyHash) -> Option<usize> {
        let times = candidates.map(|at| (self.time(key, at), at));
        // Of equal ones the first.
        times.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, at)| at)
    }

    /// Of few members the one with the least draw.
    fn least_draw(&self, key: KeyHash) -> Option<usize> {
        // Draw and place in one number, because a branch on the least could not be predicted.
        let draws = self.members.iter().zip(0u64..);
        let least = draws.map(|(member, at)| draw(key, member.hash) << 16 | at);
        least.min().map(|least| usize::from(least as u16))
    }

    /// When the member arrives in the exponential race; the first to arrive owns the key. With
    /// equal weights it is the draw itself, which orders the members alike.
    fn time(&self, key: KeyHash, at: usize) -> f64 {
        let RingMember { hash, weight, .. } = self.members[at];
        let draw = draw(key, hash);
        match self.blocks {
            Blocks::Equal(_) => draw as f64,
            Blocks::Unequal(_) => arrival(draw) / f64::from(weight),
        }
    }

    fn index(&self, at: usize) -> usize {
        self.members[at].index as usize
    }
}

fn equal_block(members: &[RingMember]) -> Equal {
    let words = |at: usize| member_words(members[at.min(members.len() - 1)].hash);
    Equal {
        first_words: std::array::from_fn(|at| words(at).0),
        second_words: std::array::from_fn(|at| words(at).1),
    }
}

fn unequal_block(members: &[RingMember]) -> Unequal {
    Unequal {
        members: equal_block(members),
        scales: std::array::from_fn(|at| {
            let weight = members[at.min(members.len() - 1)].weight;
            (1.0 / (65_536.0 * f64::from(weight))) as f32
        }),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
