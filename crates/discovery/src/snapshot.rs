//! What a discovery is asked to follow, and what it reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::endpoint::Endpoint;

/// What is known about the prefixes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use gaocache_discovery::{Discovery, EtcdConfig};
///
/// let discovery = Discovery::start(EtcdConfig::new(["http://127.0.0.1:1"]), ["greeter/"]);
/// let snapshot = discovery.changes().borrow().clone();
/// // An etcd that has not answered yet is another thing than an empty list.
/// assert!(!snapshot.known && snapshot.endpoints.is_empty());
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whether etcd has answered at least once.
    pub known: bool,
    /// etcd's revision of the newest change seen.
    pub revision: u64,
    /// All endpoints under the prefixes, by full key.
    pub endpoints: Arc<BTreeMap<Arc<str>, Endpoint>>,
    /// Those of them that an etcd which lost its data doesn't know any more: they are kept for a
    /// while, since they may register again.
    pub held: Arc<BTreeSet<Arc<str>>>,
    /// Why the list may be stale; empty if it is up to date.
    pub problem: Arc<str>,
}

/// An event of a discovery, for metrics and logs.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use gaocache_discovery::{Discovery, DiscoveryEvent, EtcdConfig};
///
/// let etcd = EtcdConfig::new(["http://127.0.0.1:1"]);
/// let discovery = Discovery::start_with(etcd, ["greeter/"], |event| match event {
///     DiscoveryEvent::Disconnected { cause } => eprintln!("etcd is away: {cause}"),
///     DiscoveryEvent::Malformed { key } => eprintln!("{key} is no endpoint"),
///     _ => {}
/// });
/// # drop(discovery);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiscoveryEvent {
    /// etcd answered.
    Heard,
    /// A session broke and is restarted.
    Disconnected {
        /// Why.
        cause: String,
    },
    /// etcd lost its history: it was wiped or restored.
    HistoryLost,
    /// A value that is not an endpoint was ignored.
    Malformed {
        /// Its key.
        key: String,
    },
}

/// A range of keys: from the first, up to and without the second.
///
/// ```
/// use gaocache_discovery::KeyRange;
///
/// // `0` comes after `/`.
/// assert_eq!(KeyRange::prefix("greeter/"), KeyRange::new("greeter/", "greeter0"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl KeyRange {
    /// The keys from `from` up to, and without, `end`.
    pub fn new(from: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self {
            from: from.into(),
            end: end.into(),
        }
    }

    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let from = prefix.into().into_bytes();
        // The next key after all with that prefix: its last byte plus one. UTF-8 has no 0xff.
        let mut end = from.clone();
        match end.last_mut() {
            Some(last) => *last += 1,
            // etcd's own sign for "no end".
            None => end.push(0),
        }
        Self { from, end }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        *self.from <= *key && (self.has_no_end() || *key < *self.end)
    }

    fn has_no_end(&self) -> bool {
        self.end == [0]
    }

    fn covers(&self, other: &Self) -> bool {
        let ends_later = self.has_no_end() || (!other.has_no_end() && other.end <= self.end);
        self.from <= other.from && ends_later
    }

    /// Without those that lie within another: each change would come twice, and once too late.
    pub(crate) fn outermost(ranges: Vec<Self>) -> Vec<Self> {
        let mut kept = Vec::<Self>::new();
        for range in ranges {
            if !kept.iter().any(|it| it.covers(&range)) {
                kept.retain(|it| !range.covers(it));
                kept.push(range);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_within_another_is_followed_once() {
        let all = ["a/", "a/b/", "b/", "a/", "ab"].map(KeyRange::prefix);
        let kept = KeyRange::outermost(all.to_vec());
        assert_eq!(kept, ["a/", "b/", "ab"].map(KeyRange::prefix));
        let whole = KeyRange::prefix("");
        let all = vec![KeyRange::prefix("a/"), whole];
        let kept_of_all = KeyRange::outermost(all);
        let [whole] = &kept_of_all[..] else {
            panic!("{kept_of_all:?}");
        };
        assert_eq!(*whole, KeyRange::prefix(""));
        assert!(whole.contains(b"\xff") && !kept[0].contains(b"a0") && kept[0].contains(b"a/"));
    }
}
