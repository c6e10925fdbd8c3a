//! Moves entries to where they belong, so that a changed ring costs the origin nothing.
//!
//! Each ring change makes some entries of this node another's. They are sent there in batches, the
//! hottest first: to a node that joined, by a node that leaves, to the new holder of a copy; one
//! plan ([`plan()`]) decides for each entry, and a second walk over the store finds nothing left to
//! do. Meanwhile, on a miss, a node first asks the members that may still hold the key
//! (`group::transfer`), so the background may take its time.
//!
//! It must never move an entry on its own account: only a ring change or a departure starts it. So
//! two nodes whose rings disagree don't send an entry back and forth.

mod copies;
mod parts;
mod plan;
mod receipts;
mod settling;
mod streams;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use parts::{BREATH, Pace, STRIDE};
pub use parts::{HandoffParts, HandoffRules, Moved};
pub use plan::{Plan, plan};
use receipts::How;
use settling::Settling;
pub use streams::MAX_BATCH_ENTRIES;
use streams::Streams;

use super::{
    cluster::Topology,
    copy_queue::{QueuedKeys, WAITING_COPIES},
    store::Entry,
};

/// Least uses of the entries that go in each walk over the store: the hottest first, without a list
/// of all.
const USE_COUNT_STEPS: [u32; 4] = [64, 8, 1, 0];
/// How often a node announces which of the entries that others have copies of are in use.
const SWEEP: Duration = Duration::from_secs(5);
/// While leaving there is less time.
const LEAVING_RETRY: Duration = Duration::from_millis(20);

/// Moves a node's entries.
pub struct Handoff {
    parts: HandoffParts,
    rules: HandoffRules,
    /// One at a time: the background, or leaving.
    turn: Mutex<()>,
}

/// Entries that a walk left to a later one.
#[derive(Clone, Copy, Debug, Default)]
struct Colder {
    count: usize,
    hottest: u32,
}

impl Handoff {
    /// Of these parts.
    pub fn new(parts: HandoffParts, rules: HandoffRules) -> Self {
        Self {
            parts,
            rules,
            turn: Mutex::new(()),
        }
    }

    /// Follows the rings, and copies the keys in `wanted`, until `stop`.
    pub async fn follow(&self, wanted: QueuedKeys, stop: CancellationToken) {
        let _turn = self.turn.lock().await;
        // Broken off at any point, since a leaving node has no time to wait: an entry goes
        // only when its receipt has come.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.follow_on(wanted) => {}
        }
    }

    async fn follow_on(&self, mut wanted: QueuedKeys) {
        let mut rings = self.parts.cluster.rings();
        let copies = self.rules.replicas > 1;
        let mut sweep = tokio::time::interval(SWEEP);
        // A sweep over a large store may take longer.
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keys = Vec::new();
        let mut settling = Settling::default();
        loop {
            let ring = rings.borrow_and_update().clone();
            if settling.is_due(&ring) {
                if settling.broken_off {
                    self.forget_copies().await;
                }
                let moved = self.walk(self.background()).await;
                settling.walked(&ring, moved);
                if settling.broken_off {
                    continue;
                }
            }
            if settling.retry_at.is_none() {
                self.parts.cluster.settled_in(&ring);
            }
            tokio::select! {
                biased;
                changed = rings.changed() => if changed.is_err() { return },
                () = settling.retry() => {}
                _ = sweep.tick(), if copies => self.announce_used().await,
                _ = wanted.recv_many(&mut keys, WAITING_COPIES), if copies => {
                    self.copy_new(&mut wanted, &mut keys).await;
                }
            }
        }
    }

    /// Hands over everything, since this node leaves, and returns when nothing is left. The caller
    /// gives it `bound` and no longer; the pace is such that half of it suffices, and never slower
    /// than the background's.
    ///
    /// Call it once the others have seen that this node is draining. Until then they may hand
    /// entries over to it, which would have to go twice; from here on, all groups refuse them.
    pub async fn leave(&self, bound: Duration) -> Moved {
        self.parts.groups.leave();
        let _turn = self.turn.lock().await;
        let needed = self.parts.store.bytes() as f64 / (bound.as_secs_f64() / 2.0).max(0.001);
        let pace = Pace {
            bytes_per_second: self.rules.bytes_per_second.max(needed as u64),
            patient: false,
        };
        let mut total = Moved::default();
        loop {
            let ring = self.parts.cluster.snapshot();
            let moved = self.walk(pace).await;
            total.add(moved);
            if moved.sent == 0 && moved.failed == 0 && !moved.interrupted {
                self.parts.cluster.settled_in(&ring);
                return total;
            }
            if moved.failed > 0 {
                // A receiver may be leaving too; the ring will show it.
                tokio::time::sleep(LEAVING_RETRY).await;
            }
        }
    }

    fn background(&self) -> Pace {
        Pace {
            bytes_per_second: self.rules.bytes_per_second,
            patient: true,
        }
    }

    /// Sends what is another's, the hottest first.
    async fn walk(&self, pace: Pace) -> Moved {
        let topology = self.parts.cluster.snapshot();
        let mut streams = Streams::new(&self.parts, pace, &topology);
        let mut interrupted = false;
        let mut hottest = u32::MAX;
        for least in USE_COUNT_STEPS {
            if hottest < least {
                continue;
            }
            let colder = self.walk_once(&topology, least, &mut streams).await;
            // Before the next walk, which would find what is on its way once more.
            streams.finish().await;
            match colder {
                Some(Colder { count: 0, .. }) => break,
                Some(colder) => hottest = colder.hottest,
                None => {
                    interrupted = true;
                    break;
                }
            }
        }
        self.parts.observer.waiting(0);
        Moved {
            interrupted,
            ..streams.moved()
        }
    }

    /// One walk, for the entries of at least that use_count. Returns what is left to go; `None` if
    /// it was broken off.
    async fn walk_once(
        &self,
        topology: &Arc<Topology>,
        least: u32,
        streams: &mut Streams<'_>,
    ) -> Option<Colder> {
        let mut colder = Colder::default();
        let mut seen = topology.clone();
        for (step, entry) in self.parts.store.walk().enumerate() {
            if step % STRIDE == STRIDE - 1 {
                if streams.is_patient() {
                    // A walk computes without a pause otherwise, and would take a core from those
                    // who serve.
                    tokio::time::sleep(BREATH).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            // At each entry: one with a large value may take its time.
            if !Arc::ptr_eq(&seen, &self.parts.cluster.topology()) {
                // Compared once for each view that comes: many change nothing of the ring.
                seen = self.parts.cluster.snapshot();
                if !topology.same_ring(&seen) {
                    return None;
                }
            }
            let use_count = entry.use_count();
            if !self.step(topology, entry, least, streams).await {
                colder.count += 1;
                colder.hottest = colder.hottest.max(use_count);
            }
        }
        streams.left_to_go(colder.count);
        Some(colder)
    }

    /// Carries out the plan for one entry; false if it has to be sent in a later walk.
    async fn step(
        &self,
        topology: &Topology,
        entry: Entry,
        least: u32,
        streams: &mut Streams<'_>,
    ) -> bool {
        let Some(group) = self.parts.groups.numbered(entry.group()) else {
            return true;
        };
        if !entry.is_usable(self.parts.clock.now()) {
            return true;
        }
        match plan(topology, group.hash(entry.key()), &entry, self.rules) {
            Plan::Stay => true,
            Plan::Send { .. } if entry.use_count() < least => false,
            Plan::Send { to, copy } => {
                let how = if copy { How::Copied } else { How::Moved };
                streams.add(to, entry, how).await;
                true
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
mod copies_tests;
#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod pace_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod simulation_tests;
