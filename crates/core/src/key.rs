//! A key as the tables of a node know it: hashed once for every table that it is looked up in.
//!
//! The hash is seeded at random in each process. The ring's hash (`KeyHash`) must be the same on
//! every node, so anybody can compute keys that collide in it; tables must never use it.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::LazyLock,
};

#[cfg(test)]
use foldhash::quality::FixedState;
#[cfg(not(test))]
use foldhash::quality::RandomState;
use quick_cache::Equivalent;

#[cfg(not(test))]
static SEEDED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
/// The number of a group within this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupId(pub u16);

/// Simulations meet entries in the same order in each run of a seed.
#[cfg(test)]
static SEEDED: LazyLock<FixedState> = LazyLock::new(FixedState::default);

/// A key of a group, hashed.
#[derive(Clone, Copy, Debug)]
pub struct HashedKey<'a> {
    group: GroupId,
    text: &'a str,
    hash: u64,
}

impl<'a> HashedKey<'a> {
    /// Hashes the key.
    pub fn new(group: GroupId, text: &'a str) -> Self {
        let hash = SEEDED.hash_one((group, text));
        Self { group, text, hash }
    }

    /// The number of its group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The key itself.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Its hash, for tables of this process.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn kept(self) -> OwnedKey {
        OwnedKey {
            group: self.group,
            text: self.text.into(),
        }
    }
}

impl Hash for HashedKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A key as it is kept in a table. Its hash is not kept beside it, which would cost eight bytes an
/// entry: it is computed when the entry comes, and when the table grows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OwnedKey {
    pub(crate) group: GroupId,
    pub(crate) text: Box<str>,
}

impl OwnedKey {
    pub(crate) fn hashed(&self) -> HashedKey<'_> {
        HashedKey::new(self.group, &self.text)
    }
}

impl Hash for OwnedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Hash::hash(&self.hashed(), state);
    }
}

impl Equivalent<OwnedKey> for HashedKey<'_> {
    fn equivalent(&self, key: &OwnedKey) -> bool {
        self.group == key.group && *self.text == *key.text
    }
}

/// Passes a hash on that was computed before.
#[derive(Clone, Default)]
pub(crate) struct Hashed;

/// See [`Hashed`].
#[derive(Default)]
pub(crate) struct HashedHasher(u64);

impl BuildHasher for Hashed {
    type Hasher = HashedHasher;

    fn build_hasher(&self) -> HashedHasher {
        HashedHasher::default()
    }
}

impl Hasher for HashedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys write one u64. Whatever else came would still be hashed.
        self.0 = SEEDED.hash_one((self.0, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_kept_is_found_by_its_hash_and_groups_are_apart() {
        let (one, other) = (GroupId(1), GroupId(2));
        let key = HashedKey::new(one, "k");
        assert_eq!(Hashed.hash_one(key.kept()), key.hash());
        assert!(key.equivalent(&key.kept()));
        assert!(!key.equivalent(&HashedKey::new(other, "k").kept()));
        assert_ne!(key.hash(), HashedKey::new(other, "k").hash());
    }
}
