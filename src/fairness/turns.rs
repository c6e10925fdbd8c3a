//! Places that clients take in turns: of those waiting, the one with the fewest places gets the
//! next.
//!
//! Each client has a queue of its own. So one that asks for ten thousand keys delays another by no
//! more than the places that it holds already. When too many wait, the newest of the longest queue
//! is refused, rather than the next to arrive.
//!
//! Nothing here may wait, and nothing may be kept of a client that neither waits nor has a place.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    pin::Pin,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use xxhash_rust::xxh3::xxh3_64;

use super::client::ClientId;

/// So many clients may wait for one key, each in its own queue. Further ones wait with them.
const MOST_CLAIMS: usize = 8;

/// The places, and those that wait for one.
pub(crate) struct Turns {
    inner: Mutex<Inner>,
}

/// A place. It is free again when this is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    client: ClientId,
}

/// Too many wait already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Who waits for a place. Dropped, it waits no more.
struct WaitGuard<'a> {
    turns: &'a Turns,
    number: u64,
    place: oneshot::Receiver<ClientId>,
    is_over: bool,
}

struct Inner {
    places: usize,
    taken: usize,
    /// Those that wait, by age.
    waiting: BTreeMap<u64, Waiter>,
    /// The same, by their keys.
    by_key: HashMap<u64, u64>,
    next: u64,
    queues: HashMap<ClientId, ClientQueue>,
    /// Queues in which somebody waits: by places, then by who had one the longest time ago.
    order: BTreeSet<(usize, u64, ClientId)>,
    /// The same, by how many wait.
    lengths: BTreeSet<(usize, ClientId)>,
}

struct Waiter {
    key: u64,
    granted: oneshot::Sender<ClientId>,
    /// In whose queues it waits.
    claims: Vec<ClientId>,
}

/// What a client has.
struct ClientQueue {
    taken: usize,
    /// When it got or gave back a place the last time, by the count of such events.
    served: u64,
    waiting: BTreeSet<u64>,
}

enum Entered {
    Runs,
    Waits(u64, oneshot::Receiver<ClientId>),
}

impl Turns {
    /// So many places.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                places,
                taken: 0,
                waiting: BTreeMap::new(),
                by_key: HashMap::new(),
                next: 0,
                queues: HashMap::new(),
                order: BTreeSet::new(),
                lengths: BTreeSet::new(),
            }),
        }
    }

    /// What stands for a key here.
    pub(crate) fn key_of(text: &str) -> u64 {
        xxh3_64(text.as_bytes())
    }

    /// From now on, there are so many places. Those that are taken stay taken.
    pub(crate) fn set_places(&self, places: usize) {
        let mut inner = self.inner.lock();
        inner.places = places;
        inner.grant();
    }

    /// A place, if one is free and nobody waits for it.
    pub(crate) fn try_take(&self, client: ClientId) -> Option<Turn<'_>> {
        let taken = self.inner.lock().take_free(client);
        // Made only then: a turn that is dropped frees a place.
        taken.then(|| Turn {
            turns: self,
            client,
        })
    }

    /// Waits for a place in which `client` does something about `key`, with at most `most` places
    /// taken or waited for in all. May be dropped at any time.
    ///
    /// # Errors
    /// [`Full`], at once, or while it waits.
    pub(crate) async fn take(
        &self,
        client: ClientId,
        key: u64,
        most: usize,
    ) -> Result<Turn<'_>, Full> {
        let entered = self.inner.lock().enter(client, key, most)?;
        let client = match entered {
            Entered::Runs => client,
            Entered::Waits(number, place) => {
                let waiting = WaitGuard {
                    turns: self,
                    number,
                    place,
                    is_over: false,
                };
                waiting.await?
            }
        };
        Ok(Turn {
            turns: self,
            client,
        })
    }

    /// What waits about this key waits for that client, too, and gets the first place that is due
    /// to one of them.
    pub(crate) fn also_for(&self, client: ClientId, key: u64) {
        self.inner.lock().also_for(client, key);
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        let inner = self.inner.lock();
        inner.places.saturating_sub(inner.taken)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.inner.lock().free(self.client);
    }
}

impl Future for WaitGuard<'_> {
    type Output = Result<ClientId, Full>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let place = ready!(Pin::new(&mut self.place).poll(cx));
        self.is_over = true;
        // It was sent away if its sender is gone.
        Poll::Ready(place.map_err(|_| Full))
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut inner = self.turns.inner.lock();
        if inner.remove(self.number).is_none()
            && let Ok(client) = self.place.try_recv()
        {
            // The place came just now.
            inner.free(client);
        }
    }
}

impl Inner {
    fn take_free(&mut self, client: ClientId) -> bool {
        let is_free = self.taken < self.places && self.waiting.is_empty();
        if is_free {
            self.begin(client);
        }
        is_free
    }

    fn enter(&mut self, client: ClientId, key: u64, most: usize) -> Result<Entered, Full> {
        if self.take_free(client) {
            return Ok(Entered::Runs);
        }
        while self.taken + self.waiting.len() >= most {
            self.make_room(client)?;
        }
        let number = self.number();
        let (granted, place) = oneshot::channel();
        let waiter = Waiter {
            key,
            granted,
            claims: vec![client],
        };
        self.waiting.insert(number, waiter);
        self.by_key.insert(key, number);
        self.change(client, |queue| queue.waiting.insert(number));
        Ok(Entered::Waits(number, place))
    }

    /// Takes the newest of the longest queue out of it, unless the newcomer's is as long.
    fn make_room(&mut self, newcomer: ClientId) -> Result<(), Full> {
        let own = self.queues.get(&newcomer).map_or(0, |it| it.waiting.len());
        let &(length, longest) = self.lengths.last().ok_or(Full)?;
        if length <= own + 1 {
            return Err(Full);
        }
        let newest = self.queues.get(&longest);
        let newest = newest.and_then(|it| it.waiting.last()).copied();
        let number = newest.ok_or(Full)?;
        self.change(longest, |queue| queue.waiting.remove(&number));
        if let Some(waiter) = self.waiting.get_mut(&number) {
            waiter.claims.retain(|it| *it != longest);
            if waiter.claims.is_empty() {
                self.remove(number);
            }
        }
        Ok(())
    }

    fn also_for(&mut self, client: ClientId, key: u64) {
        let Some(&number) = self.by_key.get(&key) else {
            return;
        };
        let Some(waiter) = self.waiting.get_mut(&number) else {
            return;
        };
        let claims = &mut waiter.claims;
        if claims.len() < MOST_CLAIMS && !claims.contains(&client) {
            claims.push(client);
            self.change(client, |queue| queue.waiting.insert(number));
        }
    }

    /// Gives free places to those whose turn it is.
    fn grant(&mut self) {
        while self.taken < self.places
            && let Some(&(_, _, client)) = self.order.first()
        {
            let queue = self.queues.get(&client);
            let oldest = queue.and_then(|it| it.waiting.first()).copied();
            let Some(waiter) = oldest.and_then(|number| self.remove(number)) else {
                return;
            };
            self.begin(client);
            // Fails for nobody: who gives up leaves its queue first, under the same lock.
            if waiter.granted.send(client).is_err() {
                self.end(client);
            }
        }
    }

    /// Takes one that waits out of all queues.
    fn remove(&mut self, number: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&number)?;
        if let Entry::Occupied(of_key) = self.by_key.entry(waiter.key)
            && *of_key.get() == number
        {
            of_key.remove();
        }
        for client in &waiter.claims {
            self.change(*client, |queue| queue.waiting.remove(&number));
        }
        Some(waiter)
    }

    fn begin(&mut self, client: ClientId) {
        let served = self.number();
        self.taken += 1;
        self.change(client, |queue| {
            queue.taken += 1;
            queue.served = served;
        });
    }

    fn end(&mut self, client: ClientId) {
        let served = self.number();
        self.taken -= 1;
        self.change(client, |queue| {
            queue.taken -= 1;
            // After those that came while it had the place.
            queue.served = served;
        });
    }

    fn free(&mut self, client: ClientId) {
        self.end(client);
        self.grant();
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Changes a client's queue, and its place among the queues.
    fn change<R>(&mut self, client: ClientId, change: impl FnOnce(&mut ClientQueue) -> R) {
        // Who comes anew is the last of its round: it must not overtake those that wait by coming
        // again and again.
        let next = self.next;
        let queue = self.queues.entry(client).or_insert_with(|| ClientQueue {
            taken: 0,
            served: next,
            waiting: BTreeSet::new(),
        });
        self.order.remove(&(queue.taken, queue.served, client));
        self.lengths.remove(&(queue.waiting.len(), client));
        change(queue);
        if !queue.waiting.is_empty() {
            self.order.insert((queue.taken, queue.served, client));
            self.lengths.insert((queue.waiting.len(), client));
        } else if queue.taken == 0 {
            self.queues.remove(&client);
        }
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
