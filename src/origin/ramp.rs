//! Protects a cold origin: the limit on running loads grows linearly from a tenth to the whole.
//!
//! It must never let more loads run than `max_concurrency`.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{AcquireError, Semaphore, SemaphorePermit},
    time::Instant,
};

/// The places of running loads.
pub(super) struct Ramp {
    running: Semaphore,
    first: usize,
    last: usize,
    over: Duration,
    grown: Mutex<Grown>,
}

/// How far it has grown.
struct Grown {
    /// When the first load came; `None` before that.
    began: Option<Instant>,
    granted: usize,
}

impl Ramp {
    /// Grows to `max_concurrency` within `over`, from the first load on. Zero means at once.
    pub(super) fn new(max_concurrency: usize, over: Duration) -> Self {
        let last = max_concurrency.min(Semaphore::MAX_PERMITS);
        let first = if over.is_zero() {
            last
        } else {
            last.div_ceil(10)
        };
        Self {
            running: Semaphore::new(first),
            first,
            last,
            over,
            grown: Mutex::new(Grown {
                began: None,
                granted: first,
            }),
        }
    }

    /// Waits for a place.
    pub(super) async fn place(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.running.acquire().await
    }

    /// Lets as many more loads run as are due by now. Every load calls this when it begins and when
    /// it ends, so it is called as long as any load waits.
    pub(super) fn widen(&self, now: Instant) {
        let mut grown = self.grown.lock();
        if grown.granted == self.last {
            return;
        }
        let began = *grown.began.get_or_insert(now);
        let done = (now - began).as_secs_f64() / self.over.as_secs_f64();
        let more = ((self.last - self.first) as f64 * done.min(1.0)) as usize;
        let target = self.first + more;
        if target > grown.granted {
            self.running.add_permits(target - grown.granted);
            grown.granted = target;
        }
    }

    /// Starts over: the origin was down, and all keys that expired meanwhile are wanted at once.
    /// The places of loads that still run stay.
    pub(super) fn restart(&self, now: Instant) {
        let mut grown = self.grown.lock();
        let surplus = grown.granted.saturating_sub(self.first);
        grown.granted -= self.running.forget_permits(surplus);
        grown.began = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_after(ramp: &Ramp, now: Instant) -> usize {
        ramp.widen(now);
        ramp.running.available_permits()
    }

    #[test]
    fn it_grants_a_tenth_at_first_and_everything_in_the_end() {
        let ramp = Ramp::new(64, Duration::from_secs(10));
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        for (now, places) in [(began, 7), (after(5), 35), (after(5), 35), (after(60), 64)] {
            assert_eq!(places_after(&ramp, now), places);
        }
        assert_eq!(places_after(&ramp, after(120)), 64);
    }

    #[test]
    fn it_starts_over_and_never_grants_more_than_everything() {
        let ramp = Ramp::new(64, Duration::from_secs(10));
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        ramp.widen(began);
        ramp.widen(after(10));
        let busy = ramp.running.try_acquire_many(60).expect("places");
        ramp.restart(after(20));
        assert_eq!(ramp.running.available_permits(), 0, "sixty still run");
        drop(busy);
        assert_eq!(places_after(&ramp, after(30)), 64);
        ramp.restart(after(40));
        assert_eq!(places_after(&ramp, after(40)), 7);
        assert_eq!(places_after(&ramp, after(45)), 35);
    }
}
