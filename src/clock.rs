//! The machine's clocks.
//!
//! Decisions are made by the monotonic clock alone. The wall clock is for people and metrics: it
//! may jump, and differs between nodes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gaocache_core::ports::{Clock, Timestamp};

/// The monotonic clock of this machine. It counts the time for which the machine was suspended, in
/// which a lease runs out too.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Timestamp {
        use rustix::time::{ClockId, clock_gettime};
        let since_boot = clock_gettime(ClockId::Boottime);
        let millis = since_boot.tv_sec * 1000 + since_boot.tv_nsec / 1_000_000;
        Timestamp(u64::try_from(millis).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Timestamp {
        use std::sync::LazyLock;
        use tokio::time::Instant;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let millis = START.elapsed().as_millis();
        Timestamp(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// The wall clock: seconds since the Unix epoch.
#[allow(clippy::disallowed_methods)] // the one place where the wall clock is read
pub fn unix_seconds() -> f64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_and_never_back() {
        let start = MonotonicClock.now();
        let mut last = start;
        while last == start {
            let now = MonotonicClock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(
            last.since(start) < Duration::from_secs(3600),
            "milliseconds"
        );
    }
}
