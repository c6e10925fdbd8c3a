//! Places that clients take in turns: of those waiting, the one with the fewest places gets the
//! next.
//!
//! Each client has a queue of its own. So one that asks for ten thousand keys delays another by no
//! more than the places that it holds already. When too many wait, the newest of the longest queue
//! is refused, rather than the next to arrive.
//!
//! Nothing here may wait, and nothing may be kept of a client that neither waits nor has a place.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::Pin,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::client::ClientId;
use gaocache_core::askers::{Asker, FollowedAskers};

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
    next: u64,
    queues: HashMap<ClientId, ClientQueue>,
    /// Queues in which somebody waits: by places, then by who had one the longest time ago.
    order: BTreeSet<(usize, u64, ClientId)>,
    /// The same, by how many wait.
    lengths: BTreeSet<(usize, ClientId)>,
}

struct Waiter {
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
                next: 0,
                queues: HashMap::new(),
                order: BTreeSet::new(),
                lengths: BTreeSet::new(),
            }),
        }
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

    /// Waits for a place, with at most `most` places taken or waited for in all. It waits in the
    /// queue of each of `askers`, also of those that come later, and gets the first place that is
    /// due to one of them. May be dropped at any time.
    ///
    /// # Errors
    /// [`Full`], at once, or while it waits.
    pub(crate) async fn take(
        &self,
        mut askers: FollowedAskers,
        most: usize,
    ) -> Result<Turn<'_>, Full> {
        let all = clients(askers.take());
        let client = all.first().copied().unwrap_or_else(ClientId::current);
        let entered = self.inner.lock().enter(client, &all, most)?;
        let client = match entered {
            Entered::Runs => client,
            Entered::Waits(number, place) => {
                let mut waiting = WaitGuard {
                    turns: self,
                    number,
                    place,
                    is_over: false,
                };
                loop {
                    tokio::select! {
                        biased;
                        client = &mut waiting => break client?,
                        further = askers.further() => {
                            self.inner.lock().also_for(number, &clients(further));
                        }
                    }
                }
            }
        };
        Ok(Turn {
            turns: self,
            client,
        })
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        let inner = self.inner.lock();
        inner.places.saturating_sub(inner.taken)
    }
}

fn clients(askers: Vec<Asker>) -> Vec<ClientId> {
    askers.into_iter().map(ClientId::from).collect()
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

    /// A place for `client`, or to wait for one, for all of these.
    fn enter(&mut self, client: ClientId, all: &[ClientId], most: usize) -> Result<Entered, Full> {
        if self.take_free(client) {
            return Ok(Entered::Runs);
        }
        while self.taken + self.waiting.len() >= most {
            self.make_room(client)?;
        }
        let number = self.number();
        let (granted, place) = oneshot::channel();
        let waiter = Waiter {
            granted,
            claims: Vec::new(),
        };
        self.waiting.insert(number, waiter);
        self.also_for(number, &[client]);
        self.also_for(number, all);
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

    /// What waits under this number waits for these, too.
    fn also_for(&mut self, number: u64, clients: &[ClientId]) {
        for client in clients {
            let Some(waiter) = self.waiting.get_mut(&number) else {
                return;
            };
            if !waiter.claims.contains(client) {
                waiter.claims.push(*client);
                self.change(*client, |queue| queue.waiting.insert(number));
            }
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
