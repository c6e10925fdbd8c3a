//! A key's place in hash space.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A key's place in hash space, from [`hash_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(pub u64);

/// The place of `key` in a group whose name hashed to `group_seed` (see [`group_seed`]).
///
/// ```
/// use gaocache_ring::{group_seed, hash_key};
///
/// let (users, orders) = (group_seed("users"), group_seed("orders"));
/// assert_eq!(hash_key(users, "42"), hash_key(users, "42"));
/// assert_ne!(hash_key(users, "42"), hash_key(orders, "42"));
/// ```
pub fn hash_key(group_seed: u64, key: &str) -> KeyHash {
    KeyHash(xxh3_64_with_seed(key.as_bytes(), group_seed))
}

/// Separates the keys of one group from the same keys of another.
pub fn group_seed(group: &str) -> u64 {
    xxh3_64(group.as_bytes())
}
