//! Which members have had nearly all keys of the last batch in memory, by group. The next batch
//! asks them for that first (`held`).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

use gaocache_core::membership::{Member, View};

/// This part of a batch, at least: the rest of the next costs a second message.
const MOST: (usize, usize) = (9, 10);

/// Groups by the id of the member.
#[derive(Default)]
pub(super) struct Holding(Mutex<HashMap<Arc<str>, HashSet<Box<str>>>>);

impl Holding {
    /// Whether the member has had nearly all of the last batch.
    pub(super) fn most(&self, member: &Member, group: &str) -> bool {
        let members = self.0.lock();
        members.get(&member.id).is_some_and(|it| it.contains(group))
    }

    /// The member has had so many keys of a batch, with values that are small.
    pub(super) fn had(&self, member: &Member, group: &str, keys: usize, of: usize) {
        let had_most = keys * MOST.1 >= of * MOST.0;
        let mut members = self.0.lock();
        match members.get_mut(&member.id) {
            Some(groups) if !had_most => {
                groups.remove(group);
            }
            Some(groups) if !groups.contains(group) => {
                groups.insert(group.into());
            }
            None if had_most => {
                members.insert(member.id.clone(), HashSet::from([group.into()]));
            }
            Some(_) | None => {}
        }
    }

    /// Forgets those that are no members any more.
    pub(super) fn keep_only(&self, members: &View) {
        let mut known = self.0.lock();
        known.retain(|id, _| members.member(id).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batch_decides_for_each_member_and_group() {
        let holding = Holding::default();
        let [n1, n2] = ["n1", "n2"].map(|id| Member::new(id, "h:1"));
        assert!(!holding.most(&n1, "a"), "nothing is known yet");
        for (keys, of, most) in [(9, 10, true), (89, 100, false), (0, 1, false), (1, 1, true)] {
            holding.had(&n1, "a", keys, of);
            assert_eq!(holding.most(&n1, "a"), most, "{keys} of {of}");
        }
        assert!(!holding.most(&n1, "b") && !holding.most(&n2, "a"));
        holding.had(&n2, "a", 1, 1);
        holding.keep_only(&View::new(2, [n2.clone()]));
        assert!(!holding.most(&n1, "a") && holding.most(&n2, "a"));
    }
}
