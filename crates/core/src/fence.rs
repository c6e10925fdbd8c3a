//! Whether this node may answer from memory: only while it can't have been taken off the list of
//! members, because a node that is off the list is not notified of removals.
//!
//! A fence is open until a moment that is moved forward by the lease in the registry, or by
//! vouchers of other members (`standing`). It closes by itself, even while the process is paused.
//! Then it has lapsed, and must never open again before everything was dropped: the node may have
//! been taken off the list meanwhile, and where the registry went back to a backup since, nothing
//! there says so any more. A [`Pass`] shows whether it was open all the time.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::ports::{Clock, Timestamp};

/// The fence of one node.
#[derive(Debug)]
pub struct Fence {
    /// Open before this moment.
    until: AtomicU64,
    /// Opened at this moment, the last time that it was closed before.
    since: AtomicU64,
    /// How often it was closed for a while.
    breaks: AtomicU64,
    /// Never opens again.
    ended: AtomicBool,
    /// Told when it opens, and when it ends.
    changed: Notify,
}

/// Shows that the fence was open at some moment, see [`Fence::still`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(u64);

impl Fence {
    /// A fence that is closed until it is extended.
    pub fn closed() -> Self {
        Self {
            until: AtomicU64::new(0),
            since: AtomicU64::new(0),
            breaks: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// A fence that is always open: for registries that never take a member off their list.
    pub fn open() -> Self {
        Self {
            until: AtomicU64::new(Timestamp::NEVER.0),
            ..Self::closed()
        }
    }

    /// Whether memory may be served now.
    pub fn is_open(&self, now: Timestamp) -> bool {
        // Acquire: a reader that sees it reopened also sees everything dropped before.
        now.0 < self.until.load(Ordering::Acquire)
    }

    /// A pass, if it is open.
    pub fn pass(&self, now: Timestamp) -> Option<Pass> {
        let breaks = self.breaks.load(Ordering::Acquire);
        self.is_open(now).then_some(Pass(breaks))
    }

    /// Whether it is open, and was open all the time since the pass was given.
    pub fn still(&self, pass: Pass, now: Timestamp) -> bool {
        // In this order: `extend` counts the break before it opens.
        self.is_open(now) && self.breaks.load(Ordering::Acquire) == pass.0
    }

    /// Whether it is open, and was open all the time since `earlier`.
    pub fn open_since(&self, earlier: Timestamp, now: Timestamp) -> bool {
        // In this order: `extend` notes the moment before it opens.
        self.is_open(now) && self.since.load(Ordering::Acquire) <= earlier.0
    }

    /// Waits until it is open. Returns false if it never opens again.
    pub async fn opened(&self, clock: &dyn Clock) -> bool {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look: what changes in between must not be missed.
            changed.as_mut().enable();
            if self.is_open(clock.now()) {
                return true;
            }
            if self.ended.load(Ordering::Acquire) {
                return false;
            }
            changed.await;
        }
    }

    /// Whether it closed by itself, and was not [closed](Fence::close) since.
    pub fn has_lapsed(&self, now: Timestamp) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until != 0 && until <= now.0
    }

    /// Keeps it open until `until`, or opens it, unless it has lapsed. Must not be called
    /// concurrently.
    pub fn extend(&self, now: Timestamp, until: Timestamp) {
        if self.ended.load(Ordering::Acquire) || self.has_lapsed(now) {
            return;
        }
        let was_open = self.is_open(now);
        if !was_open {
            self.since.store(now.0, Ordering::Release);
            self.breaks.fetch_add(1, Ordering::AcqRel);
        }
        self.until.fetch_max(until.0, Ordering::AcqRel);
        if !was_open {
            self.changed.notify_waiters();
        }
    }

    /// Closes it until it is extended again. To be called when everything that it guards is worth
    /// nothing, and is about to be dropped.
    pub fn close(&self) {
        self.until.store(0, Ordering::Release);
        self.breaks.fetch_add(1, Ordering::AcqRel);
    }

    /// Closes it permanently: this node leaves.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.close();
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_by_itself_and_a_pass_does_not_outlive_a_gap() {
        let fence = Fence::closed();
        assert_eq!(fence.pass(Timestamp(0)), None);
        fence.extend(Timestamp(0), Timestamp(1_000));
        let pass = fence.pass(Timestamp(500)).expect("open");
        fence.extend(Timestamp(900), Timestamp(2_000));
        assert!(fence.still(pass, Timestamp(1_999)), "extended in time");
        assert!(!fence.still(pass, Timestamp(2_000)));
        assert!(fence.has_lapsed(Timestamp(2_000)) && !fence.has_lapsed(Timestamp(1_999)));
        fence.extend(Timestamp(2_000), Timestamp(3_000));
        assert!(
            !fence.is_open(Timestamp(2_500)),
            "what it guards may be old"
        );
        fence.close();
        fence.extend(Timestamp(2_000), Timestamp(3_000));
        assert!(fence.is_open(Timestamp(2_500)));
        assert!(!fence.still(pass, Timestamp(2_500)), "there was a gap");
        assert!(fence.open_since(Timestamp(2_000), Timestamp(2_500)));
        assert!(!fence.open_since(Timestamp(1_999), Timestamp(2_500)));
        assert!(!fence.open_since(Timestamp(2_000), Timestamp(3_000)));
    }

    #[test]
    fn an_extension_never_shortens_it_and_closing_does() {
        let fence = Fence::closed();
        fence.extend(Timestamp(0), Timestamp(2_000));
        fence.extend(Timestamp(0), Timestamp(1_000));
        let pass = fence.pass(Timestamp(1_500)).expect("open");
        fence.close();
        assert!(!fence.is_open(Timestamp(0)));
        fence.extend(Timestamp(0), Timestamp(2_000));
        assert!(!fence.still(pass, Timestamp(0)));
        fence.end();
        fence.extend(Timestamp(0), Timestamp(9_000));
        assert!(!fence.is_open(Timestamp(0)), "ended for good");
    }

    #[test]
    fn an_open_one_stays_open() {
        let fence = Fence::open();
        assert!(fence.is_open(Timestamp(u64::MAX - 1)));
        assert!(fence.open_since(Timestamp(0), Timestamp(1)));
    }
}
