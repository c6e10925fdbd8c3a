//! Bytes of loads that arrive. Loads are bounded in number, so they may wait for room.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::Charge;
use crate::traffic::budget::Budget;
use gaocache_core::error::Result;

/// How long a load waits for room. Loads come in bursts that are over in less.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl Charge {
    /// Takes room for so many bytes, and waits for it for a moment.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if no room came.
    pub async fn in_turn(budget: &Arc<Budget>, bytes: u64) -> Result<Self> {
        let deadline = Instant::now() + LONGEST_WAIT;
        let mut charge = Self::none(budget);
        let _waiting = CountedWait::new(&budget.waiting);
        loop {
            let mut room = pin!(budget.room.notified());
            // Before the try: room that comes between both must not be missed.
            room.as_mut().enable();
            if budget.fits(bytes) {
                charge.bytes = bytes;
                return Ok(charge);
            }
            if timeout_at(deadline, room).await.is_err() {
                return budget.take(bytes).map(|()| {
                    charge.bytes = bytes;
                    charge
                });
            }
        }
    }

    /// Bytes taken.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Increments the counter while it lives.
struct CountedWait<'a>(&'a AtomicUsize);

impl<'a> CountedWait<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for CountedWait<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaocache_core::error::ErrorKind;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_load_waits_for_room_for_a_moment() {
        let budget = Budget::new(64 * MIB);
        let mut full = Charge::none(&budget);
        full.grow(56 * MIB).expect("room");
        let error = Charge::in_turn(&budget, 8 * MIB)
            .await
            .expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        let waits = tokio::spawn({
            let budget = budget.clone();
            async move { Charge::in_turn(&budget, 8 * MIB).await.map(|it| it.bytes()) }
        });
        tokio::task::yield_now().await;
        drop(full);
        assert_eq!(waits.await.expect("no panic").expect("room"), 8 * MIB);
        assert_eq!(budget.used(), 0);
    }
}
