//! Who may fetch over a connection: a bounded number of fetches per group, and in all.
//!
//! A fetch may be answered from memory at once or wait for a slow origin; the caller can't know.
//! HTTP/2 bounds the calls under way on a connection, so without bounds per group, the loads of one
//! group would hold up everybody's hits. A fetch that finds no slot free first asks for what the
//! peer has in memory, which needs none, and waits for a slot only if that brings nothing. Clients
//! take turns.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fairness::{ClientId, Turn, Turns};
use gaocache_core::{
    askers::FollowedAskers,
    error::{Error, ErrorKind, Result},
};

/// Fetches under way on one connection. A node accepts 1,024 calls on a connection, so room is left
/// for calls that are answered from memory.
const ON_A_CONNECTION: usize = 768;
/// Fetches of one group under way on a connection: at least so many, and at most half of all.
const OF_A_GROUP: usize = 256;

/// What bounds the loads of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadBounds {
    /// How long a load may take at most, its time in the queue and its retries included.
    pub longest: Duration,
    /// How many of them a node runs at once.
    pub max_concurrency: usize,
    /// How many may wait.
    pub max_queue: usize,
}

/// The slots on one connection.
pub(super) struct Slots {
    all: Semaphore,
    groups: Mutex<HashMap<Arc<str>, Arc<Queue>>>,
}

/// The slots of one group, and the calls that wait for them.
pub(super) struct Queue {
    made_for: LoadBounds,
    slots: Turns,
    /// Calls with a slot, and those that wait, at most.
    most: usize,
}

/// Held while a fetch is under way.
pub(super) struct Slot<'a> {
    _of_group: Turn<'a>,
    _of_all: SemaphorePermit<'a>,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self {
            all: Semaphore::new(ON_A_CONNECTION),
            groups: Mutex::default(),
        }
    }

    /// The queue of a group.
    pub(super) fn queue(&self, group: &str, bounds: &LoadBounds) -> Arc<Queue> {
        let mut groups = self.groups.lock();
        if let Some(queue) = groups.get(group)
            && queue.made_for == *bounds
        {
            return queue.clone();
        }
        let slots = bounds
            .max_concurrency
            .clamp(OF_A_GROUP, ON_A_CONNECTION / 2);
        let queue = Arc::new(Queue {
            made_for: *bounds,
            slots: Turns::new(slots),
            most: slots.saturating_add(bounds.max_queue),
        });
        groups.insert(group.into(), queue.clone());
        queue
    }

    /// A slot if one is free.
    pub(super) fn try_take<'a>(&'a self, queue: &'a Queue) -> Option<Slot<'a>> {
        Some(Slot {
            _of_group: queue.slots.try_take(ClientId::current())?,
            _of_all: self.all.try_acquire().ok()?,
        })
    }

    /// Waits for a slot, for these. A call that gives up frees its place in the queue.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] if too many wait already.
    pub(super) async fn take<'a>(
        &'a self,
        queue: &'a Queue,
        askers: FollowedAskers,
    ) -> Result<Slot<'a>> {
        let turn = queue.slots.take(askers, queue.most).await;
        let turn = turn.map_err(|_| {
            let what = "too many requests already wait for the key's owner (max_queue)";
            Error::new(ErrorKind::Overloaded, what)
        })?;
        let closed =
            |error| Error::new(ErrorKind::Internal, "a connection was closed").with_source(error);
        Ok(Slot {
            _of_group: turn,
            _of_all: self.all.acquire().await.map_err(closed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::{FutureExt, poll};

    use super::*;

    const BOUNDS: LoadBounds = LoadBounds {
        longest: Duration::MAX,
        max_concurrency: 1,
        max_queue: 1,
    };

    fn nobody() -> FollowedAskers {
        FollowedAskers::of([])
    }

    #[tokio::test]
    async fn one_group_s_fetches_leave_slots_for_all_others() {
        let slots = Slots::new();
        let (slow, fast) = (slots.queue("slow", &BOUNDS), slots.queue("fast", &BOUNDS));
        let mut taken = Vec::new();
        while let Some(slot) = slots.try_take(&slow) {
            taken.push(slot);
        }
        assert_eq!(taken.len(), OF_A_GROUP);
        assert!(slots.try_take(&fast).is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_the_next_slot_and_who_gives_up_frees_its_slot_in_the_queue() {
        let slots = Slots::new();
        let queue = slots.queue("slow", &BOUNDS);
        let mut taken: Vec<_> = std::iter::from_fn(|| slots.try_take(&queue)).collect();
        {
            let mut first = pin!(slots.take(&queue, nobody()));
            assert!(poll!(first.as_mut()).is_pending());
            let refused = slots
                .take(&queue, nobody())
                .now_or_never()
                .expect("at once");
            let kind = refused.err().map(|error| error.kind());
            assert_eq!(kind, Some(ErrorKind::Overloaded));
        }
        let mut second = pin!(slots.take(&queue, nobody()));
        assert!(
            poll!(second.as_mut()).is_pending(),
            "the queue is free again"
        );
        taken.pop();
        assert!(second.now_or_never().expect("its turn").is_ok());
    }
}
