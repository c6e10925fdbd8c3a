//! Up to when members have given away what became another's: then nobody needs to ask them for it.
//!
//! Each member tells how far it has come in its answers to peeks, as the revision of the newest
//! ring in which everything it holds is its own. So what is known here is learned by asking, and
//! who was not asked yet counts as one that may hold anything.

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
    /// Nobody else holds what this node owns: all who were there before it came have given it away,
    /// and nobody is leaving.
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

    /// A member told how far it has come.
    pub(super) fn heard(&self, member: IdHash, settled: u64, ring: &Topology) {
        let mut others = self.others.lock();
        let known = others.entry(member).or_default();
        if *known < settled {
            *known = settled;
            self.judge(&others, ring);
        }
    }

    /// Another ring is in force. What is known of those who are not in it any more is forgotten,
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

    /// Whether nobody else can hold what this node owns.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }

    /// Tells whether a member may still hold what became another's at that revision.
    pub(super) fn unsettled(&self) -> impl Fn(IdHash, u64) -> bool {
        let others = self.others.lock();
        move |member, until| others.get(&member).is_none_or(|settled| *settled < until)
    }
}
