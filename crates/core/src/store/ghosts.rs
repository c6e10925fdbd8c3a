//! Which keys were evicted lately after a short stay: one that comes back soon is hot.
//!
//! Of each, half a hash is kept, in buckets of four in which a later one takes the place of the
//! oldest. So it takes four bytes a key, has nothing to be kept in order, and may forget some too
//! early, or take one key for another, which costs a bit of the hit ratio.

const BUCKET: usize = 4;

/// Hashes of keys that were evicted lately.
pub(super) struct Ghosts(Vec<[u32; BUCKET]>);

/// What is kept of a hash; never 0, which is an empty place.
fn short(hash: u64) -> u32 {
    ((hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32).max(1)
}

impl Ghosts {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    fn bucket(&mut self, hash: u64) -> Option<&mut [u32; BUCKET]> {
        let mask = self.0.len().checked_sub(1)?;
        self.0.get_mut((hash >> 8) as usize & mask)
    }

    /// A key is evicted from a shard of so many entries. A quarter to a half as many are
    /// remembered: with more, what is rarely asked for would be taken for hot.
    pub(super) fn add(&mut self, hash: u64, entries: usize) {
        let buckets = 1 << (entries / (2 * BUCKET)).max(1).ilog2();
        if buckets > self.0.len() {
            self.0 = vec![[0; BUCKET]; buckets];
        }
        if let Some(bucket) = self.bucket(hash) {
            bucket.rotate_right(1);
            bucket[0] = short(hash);
        }
    }

    /// Whether the key was evicted lately. It is forgotten.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        let short = short(hash);
        let Some(bucket) = self.bucket(hash) else {
            return false;
        };
        let Some(at) = bucket.iter().position(|it| *it == short) else {
            return false;
        };
        bucket[at..].rotate_left(1);
        bucket[BUCKET - 1] = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_once_each() {
        let mut ghosts = Ghosts::new();
        assert!(!ghosts.take(7));
        let hashes: Vec<u64> = {
            let mut random = fastrand::Rng::with_seed(1);
            (0..10_000).map(|_| random.u64(..)).collect()
        };
        for hash in &hashes {
            ghosts.add(*hash, 2_000);
        }
        assert!(hashes[..5_000].iter().all(|hash| !ghosts.take(*hash)));
        let latest = &hashes[9_850..];
        let known = latest.iter().filter(|hash| ghosts.take(**hash)).count();
        assert!(known > latest.len() * 9 / 10, "{known}");
        assert!(!latest.iter().any(|hash| ghosts.take(*hash)));
    }
}
