//! Single-flight: one load per key, however many callers there are.
//!
//! A flight is detached from its callers: the load runs in its own task, and callers that give up
//! do not affect it (mailgun/groupcache#30). A removal *grounds* the flights of its keys. Callers
//! that already wait still get the result, because they asked before the removal. But the result is
//! not kept, and the next caller opens a new flight (mailgun/groupcache PR#54, #69).
//!
//! A leader learns when its flight has no callers left ([`Leader::abandoned`]), so that what
//! has not begun yet need not begin.
//!
//! This module must never hold its lock across an await, and it never starts a load by itself.

mod callers;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashTable;
use parking_lot::{
    RawMutex,
    lock_api::{Mutex, RawMutex as LockKind},
};
use tokio::{sync::oneshot, time::Instant};

pub use callers::{Callers, abandoned};

use crate::{
    askers::{Asker, Askers, note},
    key::HashedKey,
};

/// Enough shards that two loads rarely contend for a lock, which is far cheaper than a load anyway.
const SHARDS: usize = 16;

/// The flights of one group. `K` is the type of lock, which tests replace to explore interleavings.
pub struct Flights<T, K: LockKind = RawMutex> {
    shards: Arc<[Mutex<K, Shard<T>>]>,
    /// Those that departed at an earlier stage are shared no more.
    stage: Arc<AtomicU64>,
}

/// Which flight of its key a get may share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// The one under way.
    UnderWay,
    /// The one under way if it departed less than this time ago, else the next: it may have read
    /// the value before this get began and been in transit longer than any tombstone lasts.
    Younger(Duration),
    /// Only one that departs later than now: what is under way may bring a value that was removed
    /// before this get began. At most one flight is in the air and one waits.
    Next,
}

/// What `join` gives: a waiter, and for the first caller the leader, whose holder must load.
pub struct Joined<T, K: LockKind = RawMutex> {
    /// Present for the caller that has to load.
    pub leader: Option<Leader<T, K>>,
    /// Resolves when the flight lands. Resolves to an error if the flight was abandoned because the
    /// loading task panicked.
    pub waiter: oneshot::Receiver<T>,
}

/// The obligation to load one key. If it is dropped without [`Leader::land`], it frees the key and
/// notifies the waiting callers.
pub struct Leader<T, K: LockKind = RawMutex> {
    flights: Flights<T, K>,
    key: FlightKey,
    number: u64,
    askers: Askers,
}

struct Shard<T> {
    /// By the hash of their keys.
    in_flight: HashTable<Flight<T>>,
    /// Flights that were grounded: no longer found by key, still owed to those who wait.
    grounded: HashMap<u64, Flight<T>>,
    next_number: u64,
}

/// The key of a flight, with its hash.
#[derive(Clone, PartialEq, Eq)]
struct FlightKey {
    hash: u64,
    text: Arc<str>,
}

struct Flight<T> {
    key: FlightKey,
    number: u64,
    departed: Instant,
    /// The stage at which it departed.
    stage: u64,
    waiting: Vec<oneshot::Sender<T>>,
    askers: Askers,
    /// Those who wait for the flight after this one.
    next: Vec<oneshot::Sender<T>>,
    next_askers: Vec<Asker>,
}

impl<T: Clone, K: LockKind> Flights<T, K> {
    /// No flights yet.
    pub fn new() -> Self {
        let shard = || {
            Mutex::new(Shard {
                in_flight: HashTable::new(),
                grounded: HashMap::new(),
                next_number: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            stage: Arc::default(),
        }
    }

    /// Waits for the key's flight, opening one if there is none to share; `askers` want it.
    pub fn join(&self, key: &HashedKey<'_>, sharing: Sharing, askers: Vec<Asker>) -> Joined<T, K> {
        let (sender, waiter) = oneshot::channel();
        let mut shard = self.shard(key.hash()).lock();
        if let Some(flight) = shard.find_mut(key.hash(), key.text()) {
            let shared = flight.stage == self.stage.load(Ordering::Acquire)
                && match sharing {
                    Sharing::UnderWay => true,
                    Sharing::Younger(age) => flight.departed.elapsed() < age,
                    Sharing::Next => false,
                };
            let waiting = if shared {
                flight.askers.add(&askers);
                &mut flight.waiting
            } else {
                note(&mut flight.next_askers, &askers);
                &mut flight.next
            };
            // Who gave up takes no place: a load that hangs would gather them without a bound.
            if waiting.len() == waiting.capacity() {
                waiting.retain(|it| !it.is_closed());
            }
            waiting.push(sender);
            return Joined {
                leader: None,
                waiter,
            };
        }
        let key = FlightKey {
            hash: key.hash(),
            text: key.text().into(),
        };
        let leader = self.depart(&mut shard, key, vec![sender], askers);
        Joined {
            leader: Some(leader),
            waiter,
        }
    }

    fn depart(
        &self,
        shard: &mut Shard<T>,
        key: FlightKey,
        waiting: Vec<oneshot::Sender<T>>,
        askers: Vec<Asker>,
    ) -> Leader<T, K> {
        let (number, askers) = (shard.next_number, Askers::new(askers));
        shard.next_number += 1;
        let flight = Flight {
            key: key.clone(),
            number,
            departed: Instant::now(),
            stage: self.stage.load(Ordering::Acquire),
            waiting,
            askers: askers.clone(),
            next: Vec::new(),
            next_askers: Vec::new(),
        };
        let hash = |flight: &Flight<T>| flight.key.hash;
        shard.in_flight.insert_unique(key.hash, flight, hash);
        Leader {
            flights: self.clone(),
            key,
            number,
            askers,
        }
    }

    /// These want the key, too, if it is under way; whether it is.
    pub fn also_wanted(&self, key: &HashedKey<'_>, askers: &[Asker]) -> bool {
        let mut shard = self.shard(key.hash()).lock();
        let flight = shard.find_mut(key.hash(), key.text());
        flight.map(|it| it.askers.add(askers)).is_some()
    }

    /// Grounds the key's flight and runs `also` (which drops the key from the store) as one step:
    /// no landing can come between.
    pub fn ground<R>(&self, key: &HashedKey<'_>, also: impl FnOnce() -> R) -> R {
        let mut shard = self.shard(key.hash()).lock();
        let is_key = |flight: &Flight<T>| *flight.key.text == *key.text();
        if let Ok(found) = shard.in_flight.find_entry(key.hash(), is_key) {
            let (flight, _) = found.remove();
            shard.grounded.insert(flight.number, flight);
        }
        also()
    }

    /// Runs `work` while no flight of the key can land or be grounded.
    pub fn hold<R>(&self, key: &HashedKey<'_>, work: impl FnOnce() -> R) -> R {
        let _shard = self.shard(key.hash()).lock();
        work()
    }

    /// From now on, gets share no flight that has departed already, but wait for the next. What is
    /// under way may still be kept.
    pub fn share_no_more(&self) {
        self.stage.fetch_add(1, Ordering::AcqRel);
    }

    /// Grounds every flight. Flights that land after this call keep nothing.
    pub fn ground_all(&self) {
        for shard in self.shards.iter() {
            let shard = &mut *shard.lock();
            for flight in shard.in_flight.drain() {
                shard.grounded.insert(flight.number, flight);
            }
        }
    }

    /// The number of flights that new callers can still join.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().in_flight.len())
            .sum()
    }

    /// Whether there are no such flights.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn shard_number(hash: u64) -> usize {
    // The table of a shard uses the lowest bits and the seven highest.
    (hash >> 32) as usize % SHARDS
}

impl<T, K: LockKind> Flights<T, K> {
    fn shard(&self, hash: u64) -> &Mutex<K, Shard<T>> {
        &self.shards[shard_number(hash)]
    }
}

impl<T: Clone, K: LockKind> Default for Flights<T, K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, K: LockKind> Clone for Flights<T, K> {
    fn clone(&self) -> Self {
        Self {
            shards: self.shards.clone(),
            stage: self.stage.clone(),
        }
    }
}

impl<T: Clone, K: LockKind> Leader<T, K> {
    /// Those for whom it flies.
    pub fn askers(&self) -> &Askers {
        &self.askers
    }

    /// Ends the flight: runs `keep` unless the flight was grounded, then sends `result` to all
    /// waiting callers.
    ///
    /// `keep` runs under the same lock that `ground` takes. Storing before that lock, or after it,
    /// would let this happen: the load reads the old value, the origin changes, `Remove` empties
    /// the store and answers OK, and the old value is stored.
    ///
    /// Returns the duty to load once more, if somebody waits for a flight that departs after this.
    #[must_use = "somebody may wait for the next flight"]
    pub fn land(self, result: T, keep: impl FnOnce()) -> Option<Self> {
        let mut shard = self.flights.shard(self.key.hash).lock();
        let flight = match shard.take(&self.key, self.number) {
            Some(flight) => {
                keep();
                Some(flight)
            }
            None => shard.grounded.remove(&self.number),
        };
        let (waiting, next) = match flight {
            Some(it) => (it.waiting, Some((it.next, it.next_askers))),
            None => (Vec::new(), None),
        };
        let again = next.and_then(|(next, askers)| self.fly_again(&mut shard, next, askers));
        drop(shard);
        for waiter in waiting {
            // A caller that gave up before the landing is not an error.
            let _ = waiter.send(result.clone());
        }
        again
    }

    fn fly_again(
        &self,
        shard: &mut Shard<T>,
        mut next: Vec<oneshot::Sender<T>>,
        askers: Vec<Asker>,
    ) -> Option<Self> {
        next.retain(|it| !it.is_closed());
        if next.is_empty() {
            return None;
        }
        if let Some(newer) = shard.find_mut(self.key.hash, &self.key.text) {
            // It departed when this one was grounded, after those had come.
            newer.waiting.append(&mut next);
            newer.askers.add(&askers);
            return None;
        }
        let key = self.key.clone();
        Some(self.flights.depart(shard, key, next, askers))
    }
}

impl<T, K: LockKind> Drop for Leader<T, K> {
    fn drop(&mut self) {
        // After `land`, nothing is left here. Otherwise, dropping the senders notifies the waiting
        // callers.
        let mut shard = self.flights.shard(self.key.hash).lock();
        let _flight = shard.end(&self.key, self.number);
    }
}

impl<T> Shard<T> {
    /// The flight of that number, grounded or not.
    fn find(&mut self, key: &FlightKey, number: u64) -> Option<&mut Flight<T>> {
        let found = self.in_flight.find_mut(key.hash, |it| it.number == number);
        found.or_else(|| self.grounded.get_mut(&number))
    }

    /// Ends the flight of that number, grounded or not.
    fn end(&mut self, key: &FlightKey, number: u64) -> Option<Flight<T>> {
        self.take(key, number)
            .or_else(|| self.grounded.remove(&number))
    }

    fn find_mut(&mut self, hash: u64, key: &str) -> Option<&mut Flight<T>> {
        self.in_flight.find_mut(hash, |it| *it.key.text == *key)
    }

    /// Ends the flight of that number if it is still the key's flight.
    fn take(&mut self, key: &FlightKey, number: u64) -> Option<Flight<T>> {
        let is_it = |flight: &Flight<T>| flight.number == number;
        let found = self.in_flight.find_entry(key.hash, is_it).ok()?;
        Some(found.remove().0)
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
