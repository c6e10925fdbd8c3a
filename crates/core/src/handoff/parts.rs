//! What a handoff works with, how fast it goes, and what it did.

use std::{sync::Arc, time::Duration};

use crate::{
    cluster::Cluster,
    group::Groups,
    ports::{Clock, HandoffObserver, Peers},
    store::Store,
};

/// Entries looked at before others on this thread get their turn.
pub(super) const STRIDE: usize = 1024;
/// The background's rest after so many: a few times as long as they take.
pub(super) const BREATH: Duration = Duration::from_millis(1);

/// How entries are moved.
#[derive(Clone, Copy, Debug)]
pub struct HandoffRules {
    /// Members that hold each key: 1 or 2.
    pub replicas: usize,
    /// Uses from which on an entry is copied.
    pub copy_from_use_count: u32,
    /// Bound on what goes out in the background. A node that leaves may be faster.
    pub bytes_per_second: u64,
}

/// What a handoff works with.
#[derive(Clone)]
pub struct HandoffParts {
    /// The groups.
    pub groups: Groups,
    /// The current ring.
    pub cluster: Arc<Cluster>,
    /// Calls to other members.
    pub peers: Arc<dyn Peers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is handed over.
    pub store: Arc<Store>,
    /// Notified of the progress.
    pub observer: Arc<dyn HandoffObserver>,
}

/// How fast entries go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) bytes_per_second: u64,
    /// Whether there is time to rest when a receiver is busy.
    pub(super) patient: bool,
}

/// What a walk over the store did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Entries that were answered for.
    pub sent: usize,
    /// Entries that could not be sent.
    pub failed: usize,
    /// The ring changed on the way.
    pub(super) interrupted: bool,
}

impl Moved {
    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed = other.failed;
        self.interrupted = other.interrupted;
    }
}
