//! The bytes in flight at a node, within one limit (`cache.in_flight`).

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use gaocache_core::error::{Error, ErrorKind, Result};

/// Values from this size on are counted once, however many answers share their bytes. Smaller ones
/// are counted with every answer, which saves them the lock.
const SHARED_FROM: usize = 64 << 10;
/// Answers up to this size are counted and never refused: those to removals, and errors.
pub(super) const NEVER_REFUSED: usize = 512;
/// At most one line in the log for refusals in this time.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// One part in so many is kept for what is small, so that large values can't shut out the rest.
const SMALL_PART: u64 = 8;
/// What is no larger than the limit divided by this is small.
const SMALL: u64 = 64;
/// What an open request is counted with: the state of its stream, and its task.
pub(super) const REQUEST_BYTES: u64 = 1024;
/// Beside a value: its head, and the state of its stream.
const FRAME: u64 = 64 << 10;

/// The limit, and what of it is in use.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
    refused: AtomicU64,
    /// When a refusal was logged last.
    told: Mutex<Option<Instant>>,
    /// Large values that answers pin, by address: how many answers, and what was taken for them.
    pinned: Mutex<HashMap<usize, (u32, u64)>>,
    /// Loads that wait for room.
    pub(super) waiting: AtomicUsize,
    pub(super) room: Notify,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            told: Mutex::default(),
            pinned: Mutex::default(),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
        })
    }

    /// The smallest limit in which a value of `largest` bytes fits while nothing else is in flight.
    pub fn least(largest: u64) -> u64 {
        (largest.saturating_add(FRAME) / (SMALL_PART - 1)).saturating_mul(SMALL_PART) + SMALL_PART
    }

    /// Whether a limit is at least that.
    ///
    /// # Errors
    /// Why not.
    pub fn check(limit: u64, largest: u64) -> std::result::Result<(), String> {
        let least = Self::least(largest);
        let reason = || format!("a value of the largest max_value needs {least} bytes");
        (limit >= least).then_some(()).ok_or_else(reason)
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How many requests it has room for that take nothing else.
    pub fn requests(&self) -> u64 {
        self.limit / REQUEST_BYTES
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How often something was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn fits(&self, bytes: u64) -> bool {
        let kept = if bytes > self.limit / SMALL {
            self.limit / SMALL_PART
        } else {
            0
        };
        let before = self.used.fetch_add(bytes, Ordering::SeqCst);
        let fits = before.saturating_add(bytes) <= self.limit - kept;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::SeqCst);
        }
        fits
    }

    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        if self.fits(bytes) {
            return Ok(());
        }
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= BETWEEN_LINES) {
            *told = Some(Instant::now());
            let (used, limit) = (self.used(), self.limit);
            tracing::warn!(
                bytes,
                used,
                limit,
                refused,
                "refused as overloaded: the bytes in flight have reached their limit"
            );
        }
        drop(told);
        let what = "the bytes in flight at this node have reached their limit; try again later";
        Err(Error::new(ErrorKind::Overloaded, what))
    }

    /// Counts without a limit: what must not be refused.
    pub(super) fn take_anyway(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.room.notify_waiters();
        }
    }

    /// Takes room for what an answer pins. Returns what to tell [`Budget::unpin`].
    pub(super) fn pin(&self, value: &Bytes) -> Result<Pinned> {
        if value.len() <= NEVER_REFUSED {
            self.take_anyway(value.len() as u64);
            return Ok(Pinned::Own(value.len() as u64));
        }
        if value.len() < SHARED_FROM {
            self.take(value.len() as u64)?;
            return Ok(Pinned::Own(value.len() as u64));
        }
        let address = value.as_ptr() as usize;
        match self.pinned.lock().entry(address) {
            Entry::Occupied(mut answers) => answers.get_mut().0 += 1,
            Entry::Vacant(none) => {
                self.take(value.len() as u64)?;
                none.insert((1, value.len() as u64));
            }
        }
        Ok(Pinned::Shared(address))
    }

    pub(super) fn unpin(&self, pinned: Pinned) {
        let address = match pinned {
            Pinned::Own(bytes) => return self.give_back(bytes),
            Pinned::Shared(address) => address,
        };
        // The answer still holds the bytes, so nothing else has come to this address.
        if let Entry::Occupied(mut answers) = self.pinned.lock().entry(address) {
            answers.get_mut().0 -= 1;
            if let (0, taken) = *answers.get() {
                answers.remove();
                self.give_back(taken);
            }
        }
    }
}

/// How the bytes that an answer pins are counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pinned {
    /// So many for this answer.
    Own(u64),
    /// Once for all answers with the value at this address.
    Shared(usize),
}

/// Bytes, and what counts them. That goes first: once the bytes are gone, their address may be
/// another value's.
pub(super) struct Held<T, C> {
    pub(super) _counted: C,
    pub(super) bytes: T,
}

impl<T: AsRef<[u8]>, C> AsRef<[u8]> for Held<T, C> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[derive(Debug)]
    struct Taken(Arc<Budget>, u64);
    impl Drop for Taken {
        fn drop(&mut self) {
            self.0.give_back(self.1);
        }
    }

    fn taken(budget: &Arc<Budget>, bytes: u64) -> Result<Taken> {
        budget.take(bytes).map(|()| Taken(budget.clone(), bytes))
    }

    #[test]
    fn a_largest_value_fits_and_leaves_room_for_small_ones() {
        for largest in [1, 1_000, 8 * MIB, 1 << 40] {
            let budget = Budget::new(Budget::least(largest));
            let charge = taken(&budget, largest + FRAME).expect("it fits");
            let small = taken(&budget, budget.limit() / SMALL).expect("room");
            assert!(taken(&budget, largest).is_err() || largest <= budget.limit() / SMALL);
            drop((charge, small));
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn large_values_can_t_take_the_last_part_and_what_is_refused_is_counted() {
        let budget = Budget::new(64 * MIB);
        let large: Vec<_> = (0..).map_while(|_| taken(&budget, 4 * MIB).ok()).collect();
        assert_eq!(large.len(), 14);
        assert_eq!(budget.refused(), 1);
        let error = taken(&budget, 4 * MIB).expect_err("full");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        let small: Vec<_> = (0..).map_while(|_| taken(&budget, MIB).ok()).collect();
        assert_eq!(small.len(), 8);
        assert_eq!(budget.used(), budget.limit());
        drop((large, small));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_large_value_is_counted_once_however_many_answers_share_it() {
        let budget = Budget::new(64 * MIB);
        let value = Bytes::from(vec![0; MIB as usize]);
        let first = budget.pin(&value).expect("room");
        let second = budget.pin(&value.clone()).expect("room");
        assert_eq!(budget.used(), MIB);
        let other = budget
            .pin(&Bytes::from(vec![0; MIB as usize]))
            .expect("room");
        assert_eq!(budget.used(), 2 * MIB);
        budget.unpin(first);
        assert_eq!(budget.used(), 2 * MIB, "the second still pins it");
        budget.unpin(second);
        budget.unpin(other);
        assert_eq!(budget.used(), 0);
    }
}
