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
//! A lookup computes a draw for every member. That is fast: the draws are independent 32-bit
//! integers in flat arrays, which the compiler vectorizes (`benches/ring.rs`; figures in
//! ARCHITECTURE.md).

use xxhash_rust::xxh3::xxh3_64;

/// Draws are made this many at a time, so that the compiler can keep them in vector registers.
const LANES: usize = 8;

/// A key's place in hash space, from [`hash_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub u64);

/// The place of `key` in a group whose name hashed to `group_seed` (see [`group_seed`]).
pub fn hash_key(group_seed: u64, key: &str) -> KeyHash {
    KeyHash(xxhash_rust::xxh3::xxh3_64_with_seed(
        key.as_bytes(),
        group_seed,
    ))
}

/// Separates the keys of one group from the same keys of another.
pub fn group_seed(group: &str) -> u64 {
    xxh3_64(group.as_bytes())
}

/// What the ring needs to know of a member.
#[derive(Clone, Debug)]
pub struct Slot<'a> {
    /// The stable id; it alone decides the member's draws.
    pub id: &'a str,
    /// The share relative to the others' weights, at least 1.
    pub weight: u32,
}

/// An immutable ring. Members are named by their index in the slice that it was built from.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    /// Members of equal weight together: within a class the larger draw wins, so a logarithm is
    /// needed once a class only.
    classes: Vec<Class>,
    /// Sum of all weights.
    total_weight: u64,
    len: usize,
}

#[derive(Clone, Debug)]
struct Class {
    weight: u32,
    /// The low and high halves of xxh3(id), in blocks of streams; the last block repeats the last
    /// member, whose equal draw can't win against itself.
    low: Vec<[u32; LANES]>,
    high: Vec<[u32; LANES]>,
    /// Index of each member of the class in the slice the ring was built from, ordered by id.
    members: Vec<u32>,
}

impl Ring {
    /// The ring of these members, in any order. Their ids must be distinct.
    pub fn new(slots: &[Slot<'_>]) -> Self {
        let mut order: Vec<usize> = (0..slots.len()).collect();
        order.sort_by(|&a, &b| (slots[a].weight, slots[a].id).cmp(&(slots[b].weight, slots[b].id)));
        let classes = order
            .chunk_by(|&a, &b| slots[a].weight == slots[b].weight)
            .map(|members| Class::new(slots, members))
            .collect();
        Self {
            classes,
            total_weight: slots.iter().map(|slot| u64::from(slot.weight)).sum(),
            len: slots.len(),
        }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the ring has no members.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The share of all keys, 0 to 1, that a member of `weight` owns.
    pub fn share(&self, weight: u32) -> f64 {
        if self.total_weight == 0 {
            return 0.0;
        }
        f64::from(weight) / self.total_weight as f64
    }

    /// The index of the key's owner; `None` only for an empty ring.
    pub fn owner(&self, key: KeyHash) -> Option<usize> {
        if let [class] = self.classes.as_slice() {
            return Some(class.best(key).1);
        }
        self.classes
            .iter()
            .map(|class| {
                let (draw, member) = class.best(key);
                (race(draw, class.weight), member)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, member)| member)
    }

    /// All members, the owner first; each is followed by the member that would own the key without
    /// it.
    ///
    /// Draws, sorts and allocates for every member, so use it after a failure, not for every
    /// request.
    pub fn ranked(&self, key: KeyHash) -> Vec<usize> {
        let mut all: Vec<(f64, usize)> = Vec::with_capacity(self.len);
        for class in &self.classes {
            for (at, &member) in class.members.iter().enumerate() {
                all.push((race(class.draw(key, at), class.weight), member as usize));
            }
        }
        // Stable: where two members tie, the order of classes and ids decides, as in `owner`.
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.into_iter().map(|(_, member)| member).collect()
    }
}

impl Class {
    fn new(slots: &[Slot<'_>], members: &[usize]) -> Self {
        let hashes: Vec<u64> = members
            .iter()
            .map(|&member| xxh3_64(slots[member].id.as_bytes()))
            .collect();
        let block = |half: fn(u64) -> u32| {
            hashes
                .chunks(LANES)
                .map(|chunk| std::array::from_fn(|stream| half(chunk[stream.min(chunk.len() - 1)])))
                .collect::<Vec<[u32; LANES]>>()
        };
        Self {
            weight: slots[members[0]].weight,
            low: block(|hash| hash as u32),
            high: block(|hash| (hash >> 32) as u32),
            members: members.iter().map(|&member| member as u32).collect(),
        }
    }

    /// The best draw of the class, and its member's index in the whole ring.
    fn best(&self, key: KeyHash) -> (u32, usize) {
        let (key_low, key_high) = halves(key);
        let mut best = [0u32; LANES];
        let mut block_of_best = [0u32; LANES];
        for (block, (low, high)) in self.low.iter().zip(&self.high).enumerate() {
            for stream in 0..LANES {
                let drawn = draw(key_low, key_high, low[stream], high[stream]);
                // Strictly greater: of equal draws the first member, by id, wins.
                let better = drawn > best[stream];
                best[stream] = if better { drawn } else { best[stream] };
                block_of_best[stream] = if better {
                    block as u32
                } else {
                    block_of_best[stream]
                };
            }
        }
        // The larger draw, and of equal draws the first member: one comparison of both packed
        // together.
        let mut winner = 0u64;
        for stream in 0..LANES {
            let at = block_of_best[stream] * LANES as u32 + stream as u32;
            winner = winner.max(u64::from(best[stream]) << 32 | u64::from(u32::MAX - at));
        }
        let at = (u32::MAX - winner as u32) as usize;
        // Past the end is the last block's padding, which repeats the last member.
        let at = at.min(self.members.len() - 1);
        ((winner >> 32) as u32, self.members[at] as usize)
    }

    fn draw(&self, key: KeyHash, at: usize) -> u32 {
        let (key_low, key_high) = halves(key);
        draw(
            key_low,
            key_high,
            self.low[at / LANES][at % LANES],
            self.high[at / LANES][at % LANES],
        )
    }
}

fn halves(key: KeyHash) -> (u32, u32) {
    (key.0 as u32, (key.0 >> 32) as u32)
}

/// A member's draw for a key: uniform over 32 bits and independent between members.
///
/// Both inputs are well mixed already (xxh3), so two rounds of multiply and shift, with the
/// constants of xxh32 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>), suffice
/// to make the draws of two members independent; the halves that come in between make all 128 bits
/// of key and member count. Only the order of draws matters, so the low bits, which a last shift
/// would mend, may stay as they are.
#[inline(always)]
fn draw(key_low: u32, key_high: u32, member_low: u32, member_high: u32) -> u32 {
    let mut x = (key_low ^ member_low).wrapping_mul(0x9E37_79B1);
    x ^= x >> 15;
    x.wrapping_add(key_high ^ member_high)
        .wrapping_mul(0x85EB_CA77)
}

/// The exponential race: `-ln(u) / weight` for the uniform `u` in (0, 1) of a draw. The smallest
/// wins, with a probability in proportion to its weight.
fn race(draw: u32, weight: u32) -> f64 {
    negative_ln(draw) / f64::from(weight)
}

/// `-ln((draw + 0.5) / 2^32)`, within 1e-9, strictly falling in `draw`.
///
/// Not the platform's `ln`: its last digits differ between C libraries, and members must agree on
/// every digit. Addition, multiplication and division are exact by IEEE 754 everywhere.
fn negative_ln(draw: u32) -> f64 {
    let mut u = (f64::from(draw) + 0.5) / 4_294_967_296.0;
    let mut halvings = 0u32;
    while u < 0.5 {
        u *= 2.0;
        halvings += 1;
    }
    // -ln(1 - v) = 2 atanh(v / (2 - v)), with v at most 1/2, so the argument is at most 1/3 and the
    // series falls fast.
    let v = 1.0 - u;
    let s = v / (2.0 - v);
    let square = s * s;
    let mut term = s;
    let mut sum = 0.0;
    let mut odd = 1.0;
    while odd < 20.0 {
        sum += term / odd;
        term *= square;
        odd += 2.0;
    }
    f64::from(halvings) * std::f64::consts::LN_2 + 2.0 * sum
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
