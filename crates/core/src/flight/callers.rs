//! Who waits for a flight, and whether anybody still does.
//!
//! A flight that is found abandoned is off the table from then on: later callers open a new one. So
//! of flights that are flown together, none may be taken off while another is still waited for.

use std::collections::BTreeMap;

use parking_lot::{RawMutex, lock_api::RawMutex as LockKind};
use tokio::sync::oneshot;

use super::{Flight, FlightKey, Flights, Leader, shard_number};

/// The callers of a flight.
pub struct Callers<T, K: LockKind = RawMutex> {
    flights: Flights<T, K>,
    key: FlightKey,
    number: u64,
}

impl<T, K: LockKind> Leader<T, K> {
    /// The callers of its flight.
    pub fn callers(&self) -> Callers<T, K> {
        Callers {
            flights: self.flights.clone(),
            key: self.key.clone(),
            number: self.number,
        }
    }

    /// Returns when nobody waits for its flight any more; see [`abandoned`].
    pub async fn abandoned(&self) {
        abandoned(&[self.callers()]).await;
    }
}

/// Returns when no caller waits for any of these flights of one group, or for those after them.
/// They have been taken off the table then: later callers open new flights, so these need not be
/// flown.
pub async fn abandoned<T, K: LockKind>(flights: &[Callers<T, K>]) {
    loop {
        for callers in flights {
            while let Some(mut watched) = callers.watch() {
                watched.gave_up().await;
            }
        }
        if end_unless_wanted(flights) {
            return;
        }
    }
}

/// Takes the flights off the table as one step, unless somebody waits for one of them.
pub(super) fn end_unless_wanted<T, K: LockKind>(flights: &[Callers<T, K>]) -> bool {
    // In one order, whoever locks several.
    let mut shards = BTreeMap::new();
    for callers in flights {
        shards.insert(shard_number(callers.key.hash), &callers.flights);
    }
    let locked = shards.into_iter();
    let mut locked: BTreeMap<_, _> = locked
        .map(|(number, flights)| (number, flights.shards[number].lock()))
        .collect();
    for end in [false, true] {
        for Callers { key, number, .. } in flights {
            let Some(shard) = locked.get_mut(&shard_number(key.hash)) else {
                continue;
            };
            if end {
                let _ended = shard.end(key, *number);
            } else if shard.find(key, *number).is_some_and(|it| it.has_callers()) {
                return false;
            }
        }
    }
    true
}

impl<T, K: LockKind> Callers<T, K> {
    /// A caller that waits.
    pub(super) fn watch(&self) -> Option<Watched<'_, T, K>> {
        let mut shard = self.flights.shard(self.key.hash).lock();
        let someone = shard.find(&self.key, self.number)?.someone();
        someone.map(|(queue, waiter)| Watched {
            callers: self,
            queue,
            waiter: Some(waiter),
        })
    }
}

/// Which flight a caller waits for.
#[derive(Clone, Copy)]
enum Queue {
    This,
    Next,
}

impl<T> Flight<T> {
    /// A caller that waits for this flight, or else for the next one, and has not given up.
    fn someone(&mut self) -> Option<(Queue, oneshot::Sender<T>)> {
        for (queue, waiting) in [
            (Queue::This, &mut self.waiting),
            (Queue::Next, &mut self.next),
        ] {
            while let Some(waiter) = waiting.pop() {
                if !waiter.is_closed() {
                    return Some((queue, waiter));
                }
            }
        }
        None
    }

    fn has_callers(&self) -> bool {
        let mut all = self.waiting.iter().chain(&self.next);
        all.any(|it| !it.is_closed())
    }
}

/// A waiter, taken out of its flight to watch for it giving up; returned when dropped.
pub(super) struct Watched<'a, T, K: LockKind> {
    callers: &'a Callers<T, K>,
    queue: Queue,
    /// Present until it is returned.
    waiter: Option<oneshot::Sender<T>>,
}

impl<T, K: LockKind> Watched<'_, T, K> {
    async fn gave_up(&mut self) {
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
        let Callers {
            flights,
            key,
            number,
        } = self.callers;
        let mut shard = flights.shard(key.hash).lock();
        if let Some(flight) = shard.find(key, *number) {
            match self.queue {
                Queue::This => flight.waiting.push(waiter),
                Queue::Next => flight.next.push(waiter),
            }
        }
    }
}
