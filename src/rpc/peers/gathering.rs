//! Fetches that are about to leave together over one connection. `fetch_held` sends them.
//!
//! Nobody waits here: what is added leaves once the worker has begun what is ready.

use std::{collections::HashMap, mem};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use gaocache_core::ports::{Fetched, KeyAsked, PeerError};

/// Where less than half of a message was brought, so many fetches go alone: the values are large,
/// or the member has to load them, or it doesn't know the call.
const ALONE: u32 = 256;

/// Fetches that are about to leave over one connection, by group.
#[derive(Default)]
pub(super) struct Gathered(Mutex<HashMap<Box<str>, OfGroup>>);

#[derive(Default)]
struct OfGroup {
    keys: Vec<KeyAsked>,
    /// So many more go alone.
    alone: u32,
}

type Answered = oneshot::Receiver<Result<Fetched, PeerError>>;

impl Gathered {
    /// Where the answer comes, and whether the key is the first of its message; `None` if it is to
    /// go alone.
    pub(super) fn add(&self, group: &str, key: &str) -> Option<(Answered, bool)> {
        let mut groups = self.0.lock();
        let of_group = match groups.get_mut(group) {
            Some(of_group) => of_group,
            None => groups.entry(group.into()).or_default(),
        };
        if let Some(left) = of_group.alone.checked_sub(1) {
            of_group.alone = left;
            return None;
        }
        let (asked, answered) = KeyAsked::new(key);
        of_group.keys.push(asked);
        Some((answered, of_group.keys.len() == 1))
    }

    /// The keys that leave now.
    pub(super) fn leave(&self, group: &str) -> Vec<KeyAsked> {
        let mut groups = self.0.lock();
        let of_group = groups.get_mut(group);
        of_group
            .map(|it| mem::take(&mut it.keys))
            .unwrap_or_default()
    }

    /// So many keys of a message were answered.
    pub(super) fn brought(&self, group: &str, answered: usize, of: usize) {
        if answered * 2 < of
            && let Some(of_group) = self.0.lock().get_mut(group)
        {
            of_group.alone = ALONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_little_is_brought_the_next_fetches_go_alone() {
        let gathered = Gathered::default();
        let add = |group| gathered.add(group, "key").map(|(_, is_first)| is_first);
        assert_eq!(
            (add("a"), add("a"), add("b")),
            (Some(true), Some(false), Some(true))
        );
        assert_eq!(gathered.leave("a").len(), 2);
        assert_eq!(gathered.leave("a").len(), 0);
        gathered.brought("a", 5, 10);
        assert_eq!(add("a"), Some(true), "half of it was worth it");
        gathered.brought("a", 4, 10);
        for _ in 0..ALONE {
            assert_eq!(add("a"), None);
        }
        assert_eq!(add("b"), Some(false), "the other group");
        assert_eq!(add("a"), Some(false), "tried once more");
    }
}
