//! A circuit breaker: while an origin fails or is slow, its group doesn't ask it, except for one
//! load at a time that finds out whether it is back.
//!
//! *Closed*: loads run, and their outcomes of the last seconds are counted. *Open*: loads are
//! refused at once. *Half-open*: one load, the probe, runs; the others are refused. Its outcome
//! closes the breaker or opens it again.
//!
//! It must never stay half-open without a probe: one that is dropped counts as not begun.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::outcomes::{Counts, Outcomes};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    ports::{BreakerState, LoadObserver},
};

/// When a breaker opens, and for how long.
///
/// ```
/// use std::time::Duration;
/// use gaocache::{BoxError, BreakerRules, GroupDefinition, loader};
///
/// let mut rules = BreakerRules::default();
/// rules.slow_ratio = Some(0.8);
/// rules.slow = Duration::from_secs(2);
/// let users = loader(async |key: String| Ok::<_, BoxError>(key));
/// let users = GroupDefinition::new("users", users).breaker(rules);
/// # drop(users);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BreakerRules {
    /// It opens when this share of the loads failed; `None`: however many fail.
    pub failure_ratio: Option<f64>,
    /// It opens when this share of the loads took longer than `slow`; `None`: however many do.
    pub slow_ratio: Option<f64>,
    /// What is slow.
    pub slow: Duration,
    /// It stays closed while there were fewer loads than this.
    pub min_loads: u32,
    /// How long it stays open before a load may find out whether the origin is back.
    pub open: Duration,
}

impl Default for BreakerRules {
    /// Opens for a second when half of at least twenty loads failed, however long they take.
    fn default() -> Self {
        Self {
            failure_ratio: Some(0.5),
            slow_ratio: None,
            slow: Duration::from_secs(1),
            min_loads: 20,
            open: Duration::from_secs(1),
        }
    }
}

/// The breaker of one group.
pub(super) struct Breaker {
    rules: BreakerRules,
    inner: Mutex<Inner>,
    /// Told under the lock, so that it hears of the states in their order.
    observer: Arc<dyn LoadObserver>,
}

struct Inner {
    state: State,
    /// Counts how often the state changed: a load that began in another state decides nothing.
    era: u64,
}

enum State {
    Closed(Counts),
    Open { until: Instant },
    HalfOpen,
}

/// Permission to load. Dropped without [`Pass::ended`], the load counts as not begun.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    era: u64,
    /// Whether this load finds out if the origin is back, and has not done so yet.
    probe: bool,
}

impl BreakerRules {
    /// What can't work.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`].
    pub(super) fn check(&self) -> Result<()> {
        let ratios = [self.failure_ratio, self.slow_ratio];
        let wrong = |ratio: f64| !(ratio > 0.0 && ratio <= 1.0);
        if ratios.into_iter().flatten().any(wrong) {
            let what = "a breaker's ratios must be above 0 and at most 1";
            return Err(Error::new(ErrorKind::Configuration, what));
        }
        Ok(())
    }

    fn opens(&self, outcomes: Outcomes) -> bool {
        let reaches = |ratio: Option<f64>, count: u32| {
            ratio.is_some_and(|ratio| f64::from(count) >= ratio * f64::from(outcomes.loads))
        };
        outcomes.loads >= self.min_loads.max(1)
            && (reaches(self.failure_ratio, outcomes.failed)
                || reaches(self.slow_ratio, outcomes.slow))
    }

    fn outcome(&self, took: Duration, failed: bool) -> Outcomes {
        Outcomes {
            loads: 1,
            failed: failed.into(),
            slow: (self.slow_ratio.is_some() && took > self.slow).into(),
        }
    }
}

impl Breaker {
    pub(super) fn new(rules: BreakerRules, observer: Arc<dyn LoadObserver>) -> Self {
        Self {
            rules,
            inner: Mutex::new(Inner {
                state: State::Closed(Counts::default()),
                era: 0,
            }),
            observer,
        }
    }

    /// Fails while loads are refused: there is no point in waiting for a turn.
    ///
    /// # Errors
    /// [`ErrorKind::BreakerOpen`].
    pub(super) fn check(&self, now: Instant) -> Result<()> {
        match self.inner.lock().refused_for(self.rules, now) {
            Some(left) => Err(refusal(left)),
            None => Ok(()),
        }
    }

    /// Whether nothing is wrong with the origin.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.inner.lock().state, State::Closed(_))
    }

    /// Permission to load.
    ///
    /// # Errors
    /// [`ErrorKind::BreakerOpen`].
    pub(super) fn admit(&self, now: Instant) -> Result<Pass<'_>> {
        let mut inner = self.inner.lock();
        if let Some(left) = inner.refused_for(self.rules, now) {
            return Err(refusal(left));
        }
        let probe = matches!(inner.state, State::Open { .. });
        if probe {
            self.turn(&mut inner, State::HalfOpen);
        }
        Ok(Pass {
            breaker: self,
            era: inner.era,
            probe,
        })
    }

    fn turn(&self, inner: &mut Inner, state: State) {
        self.observer.breaker(match state {
            State::Closed(_) => BreakerState::Closed,
            State::HalfOpen => BreakerState::HalfOpen,
            State::Open { .. } => BreakerState::Open,
        });
        inner.state = state;
        inner.era += 1;
    }
}

impl Inner {
    /// How long loads are refused; `None` if the next one is admitted.
    fn refused_for(&self, rules: BreakerRules, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed(_) => None,
            State::Open { until } => (now < until).then(|| until - now),
            // The probe ends soon, one way or the other.
            State::HalfOpen => Some(rules.open),
        }
    }
}

fn refusal(left: Duration) -> Error {
    let what =
        "the origin has failed or been slow recently, so it is not asked for now (circuit breaker)";
    Error::new(ErrorKind::BreakerOpen, what).with_retry_after(left)
}

impl Pass<'_> {
    /// The load ended `now`; `failed` if that was the origin's fault. Returns true if it found that
    /// the origin is back.
    pub(super) fn ended(mut self, took: Duration, failed: bool, now: Instant) -> bool {
        self.probe = false;
        let (breaker, rules) = (self.breaker, self.breaker.rules);
        let mut inner = breaker.inner.lock();
        if inner.era != self.era {
            return false;
        }
        let outcome = rules.outcome(took, failed);
        let open = State::Open {
            until: now + rules.open,
        };
        match &mut inner.state {
            State::Closed(counts) => {
                counts.add(outcome, now);
                if rules.opens(counts.total()) {
                    breaker.turn(&mut inner, open);
                }
                false
            }
            State::HalfOpen => {
                let back = !failed && outcome.slow == 0;
                let closed = State::Closed(Counts::default());
                breaker.turn(&mut inner, if back { closed } else { open });
                back
            }
            State::Open { .. } => false,
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.probe {
            return;
        }
        let mut inner = self.breaker.inner.lock();
        if inner.era == self.era {
            // The next load is the probe.
            let until = Instant::now();
            self.breaker.turn(&mut inner, State::Open { until });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{guarded::tests::Nobody, outcomes::WINDOW};

    const MS: Duration = Duration::from_millis(1);
    const RULES: BreakerRules = BreakerRules {
        failure_ratio: Some(0.5),
        slow_ratio: Some(0.8),
        slow: Duration::from_secs(1),
        min_loads: 4,
        open: Duration::from_secs(1),
    };

    fn closed() -> (Breaker, Instant) {
        (Breaker::new(RULES, Arc::new(Nobody)), Instant::now())
    }

    fn opened() -> (Breaker, Instant) {
        let (breaker, now) = closed();
        for _ in 0..4 {
            assert!(!is_open(&breaker, now), "too few to tell");
            load(&breaker, MS, true, now);
        }
        assert!(is_open(&breaker, now));
        (breaker, now)
    }

    /// Whether the origin was found to be back.
    fn load(breaker: &Breaker, took: Duration, failed: bool, now: Instant) -> bool {
        let pass = breaker.admit(now).expect("admitted");
        pass.ended(took, failed, now)
    }

    fn is_open(breaker: &Breaker, now: Instant) -> bool {
        breaker.check(now).is_err()
    }

    #[test]
    fn it_opens_at_the_share_of_failures_and_asks_with_one_probe_at_a_time() {
        let (breaker, now) = opened();
        let error = breaker.admit(now + 400 * MS).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::BreakerOpen);
        assert_eq!(error.retry_after(), Some(600 * MS));
        let later = now + 1000 * MS;
        let probe = breaker.admit(later).expect("the probe");
        assert!(is_open(&breaker, later), "one at a time");
        assert!(!probe.ended(MS, true, later));
        assert!(is_open(&breaker, later + 999 * MS));
        let again = later + 1000 * MS;
        assert!(load(&breaker, MS, false, again), "it is back");
        assert!(!is_open(&breaker, again));
        // What failed before is forgotten.
        load(&breaker, MS, true, again);
        assert!(!is_open(&breaker, again));
    }

    #[test]
    fn slow_loads_open_it_and_a_slow_probe_does_not_close_it() {
        let (breaker, now) = closed();
        let slow = 1001 * MS;
        for took in [1000 * MS, slow, slow, slow, slow] {
            assert!(!is_open(&breaker, now));
            load(&breaker, took, false, now);
        }
        assert!(is_open(&breaker, now));
        let later = now + RULES.open;
        assert!(!load(&breaker, slow, false, later));
        assert!(is_open(&breaker, later));
    }

    #[test]
    fn half_of_the_loads_failing_is_enough_and_fewer_are_not() {
        let (breaker, now) = closed();
        for failed in [false, false, true, false, false, true, true, true] {
            assert!(!is_open(&breaker, now));
            load(&breaker, MS, failed, now);
        }
        assert!(is_open(&breaker, now), "four of eight");
    }

    #[test]
    fn outcomes_of_long_ago_don_t_count() {
        let (breaker, now) = closed();
        for _ in 0..3 {
            load(&breaker, MS, true, now);
        }
        let later = now + 2 * WINDOW;
        load(&breaker, MS, true, later);
        assert!(!is_open(&breaker, later));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_leaves_its_place_to_the_next() {
        let (breaker, _) = opened();
        tokio::time::advance(RULES.open).await;
        let probe = breaker.admit(Instant::now()).expect("the probe");
        drop(probe);
        assert!(load(&breaker, MS, false, Instant::now()), "a probe too");
    }

    #[test]
    fn a_load_that_began_before_it_opened_does_not_close_it() {
        let (breaker, now) = closed();
        let early = breaker.admit(now).expect("admitted");
        for _ in 0..4 {
            load(&breaker, MS, true, now);
        }
        let later = now + RULES.open;
        let _probe = breaker.admit(later).expect("the probe");
        assert!(!early.ended(MS, false, later));
        assert!(is_open(&breaker, later));
    }
}
