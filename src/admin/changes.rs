//! The latest changes of the ring, which the admin page lists.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;

use crate::clock;
use gaocache_core::membership::{Member, MemberState, View};

/// Maximum number of changes kept.
const REMEMBERED: usize = 30;

/// A change of the ring.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RingChange {
    /// Time of the change, in seconds since the Unix epoch.
    pub at_seconds: f64,
    /// The registry's revision.
    pub revision: u64,
    /// Ids of new members.
    pub joined: Vec<String>,
    /// Ids of members that are gone.
    pub left: Vec<String>,
    /// Ids of members that started to leave.
    pub leaving: Vec<String>,
}

impl RingChange {
    /// The change from one view to the next.
    pub fn between(before: &View, after: &View) -> Self {
        let missing = |from: &View, all: &View| {
            // A joining member counts from when it is serving, a vanished one from when it
            // vanished.
            let was_there = |id| from.member(id).is_some_and(Member::is_admitted);
            let there = all.members.iter().filter(|it| it.is_admitted());
            let missing = there.filter(|it| !was_there(&it.id));
            missing.map(|it| it.id.to_string()).collect()
        };
        let began = after.members.iter().filter(|member| {
            let was = before.member(&member.id).map(|it| it.state);
            member.state == MemberState::Draining && was != Some(MemberState::Draining)
        });
        Self {
            at_seconds: clock::unix_seconds(),
            revision: after.revision,
            joined: missing(before, after),
            left: missing(after, before),
            leaving: began.map(|member| member.id.to_string()).collect(),
        }
    }
}

/// The latest ring changes. Cheap to clone; clones share the same list.
#[derive(Clone, Default)]
pub struct Changes(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    /// Newest first.
    latest: VecDeque<RingChange>,
    /// How many there were altogether.
    count: u64,
}

impl Changes {
    /// Adds a change.
    pub fn add(&self, change: RingChange) {
        let mut log = self.0.lock();
        log.latest.truncate(REMEMBERED - 1);
        log.latest.push_front(change);
        log.count += 1;
    }

    /// The latest changes, unless there were `known` altogether; notes how many there are now.
    pub(super) fn unlike(&self, known: &mut Option<u64>) -> Option<Vec<RingChange>> {
        let log = self.0.lock();
        let is_known = known.replace(log.count) == Some(log.count);
        (!is_known).then(|| log.latest.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(revision: u64, members: &[(&str, MemberState)]) -> View {
        let members = members.iter().map(|(id, state)| Member {
            state: *state,
            ..Member::new(*id, "h:1")
        });
        View::new(revision, members)
    }

    #[test]
    fn a_change_tells_who_came_and_went_and_is_going() {
        use MemberState::{Draining, Serving};
        let before = view(1, &[("a", Serving), ("b", Serving), ("c", Draining)]);
        let after = view(2, &[("a", Draining), ("b", Serving), ("d", Serving)]);
        let change = RingChange::between(&before, &after);
        assert_eq!(change.joined, ["d"]);
        assert_eq!(change.left, ["c"]);
        assert_eq!(change.leaving, ["a"]);
        assert_eq!(change.revision, 2);
        assert!(change.at_seconds > 1e9, "seconds since the Unix epoch");
    }

    #[test]
    fn the_newest_changes_are_remembered() {
        let changes = Changes::default();
        for revision in 0..100 {
            let empty = View::default();
            changes.add(RingChange::between(&empty, &view(revision, &[])));
        }
        let listed = changes.unlike(&mut None).expect("news");
        assert_eq!(listed.len(), REMEMBERED);
        assert_eq!(listed[0].revision, 99);
    }
}
