//! What the core needs from its environment, as traits that the edges implement and tests replace.

mod answers;
mod load_queue;
mod origin;
mod peers;
mod registry;

use std::time::Duration;

use futures::future::BoxFuture;

pub use crate::time::{Clock, Reading, Timestamp};
pub use answers::{Course, Fetched, KeyAsked, Peeked, PeerAnswer, PeerError, Source, all_given_up};
pub use load_queue::{Asked, LoadQueue, LoadTurn, load_or_reload};
pub use origin::{Freshness, Loaded, Origin, Reloaded, loader};
pub use peers::{
    Fate, Handed, HandoffStream, MANY_AT_ONCE, MAX_BATCH_KEYS, Parcel, Peers, Receipt, Removal,
    Removed, Sender, TRANSFER_TIMEOUT, Voucher,
};
pub use registry::{HeldLease, Notice, NoticeId, Notices, Registry, RegistryHealth, Session};

use crate::error::{Error, Result};

/// Wraps a task that is about to be spawned, so that it continues the trace of its spawner.
pub type TaskWrapper = fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;

/// Is notified of events in a group, which telemetry counts. Calls must be cheap and must not
/// block.
pub trait GroupObserver: Send + Sync + 'static {
    /// A caller joined a load in flight.
    fn waited_for_flight(&self);
    /// A value was not kept because it is too large for the store.
    fn refused_by_store(&self);
    /// A hot copy of a key that another member owns was kept.
    fn kept_hot_copy(&self);
    /// Before a load, other members were asked for the key. `found` if one had it.
    fn asked_previous_owners(&self, found: bool);
}

/// Is notified of every load from an origin. Calls must be cheap and must not block.
pub trait LoadObserver: Send + Sync + 'static {
    /// The load of a key ended: the bytes it brought, or what went wrong.
    fn loaded(&self, key: &str, took: Duration, outcome: Result<usize, &Error>);
    /// A load that has ended found the value unchanged.
    fn renewed(&self);
    /// A load that took long was begun a second time, and has ended. `won` if the second brought
    /// the answer.
    fn hedged(&self, won: bool);
    /// A value takes so many bytes less than the origin sent, since it is compressed.
    fn saved(&self, bytes: u64);
    /// A load was refused because the circuit breaker is open.
    fn refused_by_breaker(&self);
    /// The circuit breaker changed its state.
    fn breaker(&self, state: BreakerState);
}

/// The state of a group's circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Loads run.
    Closed,
    /// One load finds out whether the origin is back; others are refused.
    HalfOpen,
    /// Loads are refused.
    Open,
}

/// Is notified of the progress of handoffs. Calls must be cheap and must not block.
pub trait HandoffObserver: Send + Sync + 'static {
    /// A batch was answered: the bytes sent, and the outcome for its entries.
    fn sent(&self, bytes: usize, receipt: &Receipt);
    /// Entries could not be sent yet.
    fn failed(&self, entries: usize);
    /// Entries that are still to be sent, as far as known; 0 when a pass has ended.
    fn waiting(&self, entries: usize);
}
