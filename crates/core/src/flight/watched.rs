//! How a leader learns that its flight has no callers left.
//!
//! The flight must never lose a waiter that is being watched: it is returned when the watch ends.

use parking_lot::lock_api::RawMutex as LockKind;
use tokio::sync::oneshot;

use super::{Leader, Queue};

impl<T, K: LockKind> Leader<T, K> {
    /// Returns when no caller waits for this flight or for the one after it. It has been taken off
    /// the table then: later callers open a new flight, so this one need not be flown.
    pub async fn abandoned(&self) {
        while let Some(mut watched) = self.watch() {
            watched.gave_up().await;
        }
    }

    /// A caller that waits; when none is left, the flight ends under the same lock.
    pub(super) fn watch(&self) -> Option<Watched<'_, T, K>> {
        let mut shard = self.flights.shard(self.key.hash).lock();
        let someone = shard.find(&self.key, self.number)?.someone();
        if someone.is_none() {
            let _ended = shard.end(&self.key, self.number);
        }
        someone.map(|(queue, waiter)| Watched {
            leader: self,
            queue,
            waiter: Some(waiter),
        })
    }
}

/// A waiter, taken out of its flight to watch for it giving up; returned when dropped.
pub(super) struct Watched<'a, T, K: LockKind> {
    leader: &'a Leader<T, K>,
    queue: Queue,
    /// Present until it is returned.
    waiter: Option<oneshot::Sender<T>>,
}

impl<T, K: LockKind> Watched<'_, T, K> {
    pub(super) async fn gave_up(&mut self) {
        if let Some(waiter) = &mut self.waiter {
            waiter.closed().await;
        }
    }
}

impl<T, K: LockKind> Drop for Watched<'_, T, K> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take().filter(|it| !it.is_closed()) else {
            return;
        };
        let Leader {
            flights,
            key,
            number,
        } = self.leader;
        let mut shard = flights.shard(key.hash).lock();
        if let Some(flight) = shard.find(key, *number) {
            match self.queue {
                Queue::This => flight.waiting.push(waiter),
                Queue::Next => flight.next.push(waiter),
            }
        }
    }
}
