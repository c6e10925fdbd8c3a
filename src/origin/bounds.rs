//! The limits on the loads from an origin, as plain values.

use std::time::Duration;

use super::breaker::BreakerRules;
use gaocache_core::error::{Error, ErrorKind, Result};

/// Bound on what a load can take with all its waiting, whatever the limits say: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Limits on the loads from an origin.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Maximum number of running loads.
    pub max_concurrency: usize,
    /// Maximum number of waiting loads.
    pub max_queue: usize,
    /// Time limit for a load once it runs, all its attempts included.
    pub load_timeout: Duration,
    /// The time, from the first load on, in which the concurrency grows from a tenth to all of
    /// `max_concurrency`; zero means no ramp.
    pub ramp: Duration,
    /// When the origin is not asked for a while; `None`: it always is.
    pub breaker: Option<BreakerRules>,
    /// Whether a load that runs is cancelled, too, when all callers have gone.
    pub cancel_abandoned: bool,
    /// Whether a load that takes longer than nearly all others is begun a second time.
    pub hedge: bool,
    /// From how many bytes on values are compressed, where that pays; 0: not at all.
    pub compress_min_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_concurrency: 64,
            max_queue: 10_000,
            load_timeout: Duration::from_secs(30),
            ramp: Duration::ZERO,
            breaker: None,
            cancel_abandoned: false,
            hedge: false,
            compress_min_bytes: 0,
        }
    }
}

impl Bounds {
    /// How long a load can take at most, if it is the last in a full queue of loads that all take
    /// as long as they may.
    pub fn longest_load(&self) -> Duration {
        let rounds = self.max_queue.div_ceil(self.max_concurrency.max(1));
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1);
        let running = self.load_timeout.saturating_mul(rounds);
        running.saturating_add(self.ramp).min(LONGEST)
    }

    /// What can't work.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`].
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Configuration, what));
        if self.max_concurrency == 0 {
            return wrong("max_concurrency must not be 0: no load could ever begin");
        }
        if self.load_timeout.is_zero() {
            return wrong("load_timeout must not be 0: no load could ever end in time");
        }
        self.breaker.map_or(Ok(()), |rules| rules.check())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_load_is_the_last_of_a_full_queue() {
        let bounds = |max_concurrency, max_queue| Bounds {
            max_concurrency,
            max_queue,
            load_timeout: Duration::from_secs(4),
            ramp: Duration::from_secs(10),
            ..Bounds::default()
        };
        assert_eq!(bounds(10, 0).longest_load().as_secs(), 14);
        assert_eq!(bounds(10, 21).longest_load().as_secs(), 4 * 4 + 10);
        assert_eq!(bounds(1, usize::MAX).longest_load(), LONGEST);
    }
}
