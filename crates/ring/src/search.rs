//! Finds the member that wins a key, without a whole draw for each member.
//!
//! A pass over all members computes a *score* for each, in vector registers: a number that orders
//! them as their times of arrival do, but coarser. Members whose scores are too close to the best
//! for a decision, nearly always one alone, are then compared by their times.

use crate::draw::{KeyWords, coarse, from_zero};

/// Members whose scores are computed at a time. 32 fill four of the narrowest vector registers: as
/// many as are needed for one multiplication not to wait for another.
pub(crate) const BLOCK: usize = 32;
/// Blocks among which the winner is looked for once it is known to be in one of them.
const GROUP: usize = 2;

/// The places in a block.
const PLACES: [i16; BLOCK] = {
    let mut places = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        places[at] = at as i16;
        at += 1;
    }
    places
};

/// A number of members. In a ring's last block, the last member is repeated to fill it.
pub(crate) trait Block {
    /// The smaller one is the better.
    type Score: Copy + PartialOrd;
    /// No score is worse.
    const WORST: Self::Score;
    fn scores(&self, key: KeyWords) -> [Self::Score; BLOCK];
}

/// Members of equal weights. Their scores are their coarse draws.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Equal {
    pub(crate) first_words: [u16; BLOCK],
    pub(crate) second_words: [u16; BLOCK],
}

impl Block for Equal {
    type Score = i16;
    const WORST: i16 = i16::MAX;

    #[inline(always)]
    fn scores(&self, key: KeyWords) -> [i16; BLOCK] {
        std::array::from_fn(|at| coarse(key, self.first_words[at], self.second_words[at]))
    }
}

/// Members of unequal weights. A score is a lower bound of the time of arrival, since `-ln(1 - u)`
/// is at least `u`. For the small draws that win among many it is nearly exact.
#[derive(Clone, Debug)]
pub(crate) struct Unequal {
    pub(crate) members: Equal,
    /// What turns a coarse draw, counted from zero, into a score.
    pub(crate) scales: [f32; BLOCK],
}

impl Block for Unequal {
    type Score = f32;
    const WORST: f32 = f32::INFINITY;

    #[inline(always)]
    fn scores(&self, key: KeyWords) -> [f32; BLOCK] {
        let drawn = self.members.scores(key);
        std::array::from_fn(|at| f32::from(from_zero(drawn[at])) * self.scales[at])
    }
}

/// The best score of all, and the group that it is in.
pub(crate) struct Leader<S> {
    pub(crate) score: S,
    /// The best score in all other groups.
    runner_up: S,
    group: usize,
}

/// A search among `len` members.
pub(crate) struct Search<'a, B> {
    pub(crate) blocks: &'a [B],
    pub(crate) len: usize,
    pub(crate) key: KeyWords,
}

impl<'a, B: Block> Search<'a, B> {
    #[inline(always)]
    pub(crate) fn leader(&self) -> Leader<B::Score> {
        let (mut score, mut runner_up, mut leading) = (B::WORST, B::WORST, 0);
        for (group, blocks) in self.blocks.chunks(GROUP).enumerate() {
            let best = best_of(blocks, self.key);
            // Without a branch: which group is better than those before it can't be predicted.
            let ahead = best < score;
            let behind = if ahead { score } else { best };
            runner_up = lesser(runner_up, behind);
            score = if ahead { best } else { score };
            leading = if ahead { group } else { leading };
        }
        Leader {
            score,
            runner_up,
            group: leading,
        }
    }

    /// The one member whose score is within `bound`, if it is one alone.
    #[inline(always)]
    pub(crate) fn alone_within(&self, bound: B::Score, leader: &Leader<B::Score>) -> Option<usize> {
        if leader.runner_up <= bound {
            return None;
        }
        let first = leader.group * GROUP * BLOCK;
        let mut len = self.len - first;
        // Without a branch: the place of one, if it is one, is the sum of the places of all.
        let (mut counts, mut places) = ([0i16; BLOCK], [0i16; BLOCK]);
        let mut before = 0;
        let group = leader.group * GROUP..self.blocks.len().min((leader.group + 1) * GROUP);
        for block in &self.blocks[group] {
            let scores = block.scores(self.key);
            let len_here = len.min(BLOCK) as i16;
            for at in 0..BLOCK {
                let within = (scores[at] <= bound) & (PLACES[at] < len_here);
                counts[at] += i16::from(within);
                places[at] += if within { PLACES[at] + before } else { 0 };
            }
            before += BLOCK as i16;
            len = len.saturating_sub(BLOCK);
        }
        let (mut count, mut place) = (0, 0);
        for at in 0..BLOCK {
            count += counts[at];
            place += places[at];
        }
        (count == 1).then_some(first + place as usize)
    }

    /// All members whose scores are within `bound`, in order.
    pub(crate) fn within(&self, bound: B::Score) -> impl Iterator<Item = usize> {
        self.blocks
            .iter()
            .enumerate()
            .flat_map(move |(nth, block)| {
                let scores = block.scores(self.key);
                let mut any = false;
                for score in scores {
                    any |= score <= bound;
                }
                let first = nth * BLOCK;
                let len = if any { self.len - first } else { 0 };
                let within = (0..len.min(BLOCK)).filter(move |&at| scores[at] <= bound);
                within.map(move |at| first + at)
            })
    }
}

#[inline(always)]
fn best_of<B: Block>(blocks: &[B], key: KeyWords) -> B::Score {
    let mut best = [B::WORST; BLOCK];
    for block in blocks {
        let scores = block.scores(key);
        for at in 0..BLOCK {
            best[at] = lesser(best[at], scores[at]);
        }
    }
    // In halves, because the compiler may not reorder comparisons of floats to make them so.
    let mut quarter = [best[0], best[1], best[2], best[3]];
    for four in best.chunks_exact(4) {
        for at in 0..4 {
            quarter[at] = lesser(quarter[at], four[at]);
        }
    }
    let [a, b, c, d] = quarter;
    lesser(lesser(a, b), lesser(c, d))
}

#[inline(always)]
fn lesser<T: PartialOrd>(a: T, b: T) -> T {
    if b < a { b } else { a }
}
