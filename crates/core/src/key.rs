//! A key as the tables of a node know it: hashed once for every table that it is looked up in.
//!
//! The hash is seeded at random in each process. The ring's hash (`KeyHash`) must be the same on
//! every node, so anybody can compute keys that collide in it; tables must never use it.

use std::{hash::BuildHasher, sync::LazyLock};

#[cfg(test)]
use foldhash::quality::FixedState;
#[cfg(not(test))]
use foldhash::quality::RandomState;

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_hash_and_groups_are_apart() {
        let key = HashedKey::new(GroupId(1), "k");
        assert_eq!(HashedKey::new(GroupId(1), "k").hash(), key.hash());
        assert_ne!(HashedKey::new(GroupId(2), "k").hash(), key.hash());
    }
}
