//! How far members have got in giving away entries that they no longer own. Once a member has given
//! all of them away, no member needs to ask it for them.
//!
//! Each member reports how far it has come in its answers to peeks, as the revision of the newest
//! ring in which everything it holds is its own. So what is known here is learned by asking, and
//! a member that was not asked yet may hold anything.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::topology::Topology;
use crate::membership::IdHash;

/// How far the members have come.
#[derive(Debug, Default)]
pub(super) struct SettledMembers {
    /// This node.
    mine: AtomicU64,
    others: Mutex<HashMap<IdHash, u64>>,
    /// No other member holds what this node owns: all that were there before it joined have given
    /// it away, and none is leaving.
    quiet: AtomicBool,
}

impl SettledMembers {
    /// This node has given away what is another's in that ring.
    pub(super) fn this_node(&self, ring: &Topology) {
        if ring.view.members.is_empty() {
            // No ring has been seen yet.
            return;
        }
        let revision = match ring.view.revision {
            // Where there are no revisions, there is never another ring.
            0 => u64::MAX,
            revision => revision,
        };
        self.mine.fetch_max(revision, Ordering::AcqRel);
    }

    pub(super) fn of_this_node(&self) -> u64 {
        self.mine.load(Ordering::Acquire)
    }

    /// A member reported how far it has come.
    pub(super) fn heard(&self, member: IdHash, settled: u64, ring: &Topology) {
        let mut others = self.others.lock();
        let known = others.entry(member).or_default();
        if *known < settled {
            *known = settled;
            self.judge(&others, ring);
        }
    }

    /// The ring has changed. What is known of members that are not in it any more is forgotten,
    /// and what is known of all if the revisions begin anew.
    pub(super) fn ring_changed(&self, before: &Topology, after: &Topology) {
        let mut others = self.others.lock();
        if after.view.revision < before.view.revision {
            others.clear();
            self.mine.store(0, Ordering::Release);
        }
        others.retain(|member, _| after.by_incarnation(*member).is_some());
        self.judge(&others, after);
    }

    fn judge(&self, others: &HashMap<IdHash, u64>, ring: &Topology) {
        let (since, mut elders) = ring.former().elders();
        let settled = |at: u32| {
            let member = ring.view.members[at as usize].incarnation();
            others.get(&member).is_some_and(|it| *it >= since)
        };
        let quiet = !ring.former().some_leave() && elders.all(settled);
        self.quiet.store(quiet, Ordering::Release);
    }

    /// Whether no other member can hold what this node owns.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }

    /// Tells whether a member may still hold what became another's at that revision.
    pub(super) fn unsettled(&self) -> impl Fn(IdHash, u64) -> bool {
        let others = self.others.lock();
        move |member, until| others.get(&member).is_none_or(|settled| *settled < until)
    }
}
