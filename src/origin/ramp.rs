//! Protects a cold origin: the limit on running loads grows linearly from a tenth to the whole.
//!
//! It must never let more loads run than `max_concurrency`.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::fairness::Turns;

/// The places of running loads.
pub(super) struct Ramp {
    running: Turns,
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
        let last = max_concurrency;
        let first = if over.is_zero() {
            last
        } else {
            last.div_ceil(10)
        };
        Self {
            running: Turns::new(first),
            first,
            last,
            over,
            grown: Mutex::new(Grown {
                began: None,
                granted: first,
            }),
        }
    }

    /// The places that there are by now.
    pub(super) fn places(&self) -> &Turns {
        &self.running
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
            grown.granted = target;
            self.running.set_places(target);
        }
    }

    /// Starts over: the origin was down, and all keys that expired meanwhile are wanted at once.
    /// The places of loads that still run stay.
    pub(super) fn restart(&self, now: Instant) {
        let mut grown = self.grown.lock();
        grown.granted = self.first;
        grown.began = Some(now);
        self.running.set_places(self.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::ClientId;

    fn places_after(ramp: &Ramp, now: Instant) -> usize {
        ramp.widen(now);
        ramp.running.free()
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
        let take = |_| ramp.running.try_take(ClientId::NOBODY).expect("a place");
        let busy: Vec<_> = (0..60).map(take).collect();
        ramp.restart(after(20));
        assert_eq!(ramp.running.free(), 0, "sixty still run");
        drop(busy);
        assert_eq!(places_after(&ramp, after(30)), 64);
        ramp.restart(after(40));
        assert_eq!(places_after(&ramp, after(40)), 7);
        assert_eq!(places_after(&ramp, after(45)), 35);
    }
}
