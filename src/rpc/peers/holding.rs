//! Which members have had nearly all keys of the last batch in memory, by group. The next batch
//! asks them for that first (`held`).

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use gaocache_core::membership::{Member, View};

/// This part of a batch, at least: the rest of the next costs a second message.
const MOST: (usize, usize) = (9, 10);

/// Where the member was asked for that first and had less, so many further results of batches tell
/// nothing, the first of them that of the same batch's rest: it may be an older release that
/// doesn't know the call, or the values together are too large for one message.
const IN_VAIN: u32 = 16;

/// What is known of a member and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Most,
    /// It was asked first in vain; so many results are yet to be ignored.
    InVain(u32),
}

/// By the name of the group.
type Groups = HashMap<Box<str>, Known>;

/// By the id of the member.
#[derive(Default)]
pub(super) struct Holding(Mutex<HashMap<Arc<str>, Groups>>);

impl Holding {
    /// Whether the member has had nearly all of the last batch.
    pub(super) fn most(&self, member: &Member, group: &str) -> bool {
        let members = self.0.lock();
        let known = members.get(&member.id).and_then(|it| it.get(group));
        known == Some(&Known::Most)
    }

    /// Of a batch that was not asked for first, the member has had so many keys, with values that
    /// are small.
    pub(super) fn had(&self, member: &Member, group: &str, keys: usize, of: usize) {
        self.update(member, group, |known| match known {
            Some(Known::InVain(left)) => left.checked_sub(1).map(Known::InVain),
            Some(Known::Most) | None => is_most(keys, of).then_some(Known::Most),
        });
    }

    /// Asked for a batch first, it brought so many keys.
    pub(super) fn brought(&self, member: &Member, group: &str, keys: usize, of: usize) {
        let known = match is_most(keys, of) {
            true => Known::Most,
            false => Known::InVain(IN_VAIN),
        };
        self.update(member, group, |_| Some(known));
    }

    fn update(
        &self,
        member: &Member,
        group: &str,
        next: impl FnOnce(Option<Known>) -> Option<Known>,
    ) {
        let mut members = self.0.lock();
        let groups = members.get_mut(&member.id);
        let known = groups.as_ref().and_then(|it| it.get(group)).copied();
        let next = next(known);
        if next == known {
            return;
        }
        match (groups, next) {
            (Some(groups), Some(next)) => {
                groups.insert(group.into(), next);
            }
            (Some(groups), None) => {
                groups.remove(group);
            }
            (None, Some(next)) => {
                let groups = HashMap::from([(group.into(), next)]);
                members.insert(member.id.clone(), groups);
            }
            (None, None) => {}
        }
    }

    /// Forgets those that are no members any more.
    pub(super) fn keep_only(&self, members: &View) {
        let mut known = self.0.lock();
        known.retain(|id, _| members.member(id).is_some());
    }
}

fn is_most(keys: usize, of: usize) -> bool {
    keys * MOST.1 >= of * MOST.0
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

    #[test]
    fn where_it_was_asked_first_in_vain_the_next_batches_tell_nothing() {
        let holding = Holding::default();
        let member = Member::new("n1", "h:1");
        holding.had(&member, "a", 10, 10);
        holding.brought(&member, "a", 9, 10);
        assert!(holding.most(&member, "a"), "it was worth it");
        holding.brought(&member, "a", 8, 10);
        for round in 0..=IN_VAIN {
            holding.had(&member, "a", 10, 10);
            assert!(!holding.most(&member, "a"), "{round}");
        }
        holding.had(&member, "a", 10, 10);
        assert!(holding.most(&member, "a"), "tried once more");
    }
}
