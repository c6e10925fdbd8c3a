//! Hedged loads: one that takes longer than nearly all of its group's is begun a second time, and
//! the first answer counts (Dean and Barroso, "The Tail at Scale", CACM 2013).
//!
//! It must never add more than one load to twenty, whatever the origin does.

use std::{pin::Pin, time::Duration};

use parking_lot::Mutex;

use super::pause;
use gaocache_core::error::{Error, ErrorKind};

/// So many loads allow one more.
const LOADS_PER_HEDGE: u32 = 20;
/// At most so many that were not needed are saved up: an origin that becomes slow all at once is
/// not asked twice by everybody.
const MOST_SAVED: u32 = 10;
/// The quantile is that of so many loads that have ended.
const WINDOW: usize = 100;
/// With fewer, it says little.
const FEWEST: usize = 20;

/// When loads of a group are begun a second time.
#[derive(Default)]
pub(super) struct Hedging(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// In twentieths of a load.
    saved: u32,
    /// How long the last loads took, in microseconds, in no order.
    recent: Vec<u64>,
    oldest: usize,
}

impl Hedging {
    /// A load begins. After so long it may be begun a second time; `None`: not at all, since it is
    /// not known what is long.
    pub(super) fn begun(&self) -> Option<Duration> {
        let mut inner = self.0.lock();
        inner.saved = (inner.saved + 1).min(MOST_SAVED * LOADS_PER_HEDGE);
        inner.p95()
    }

    /// A load was answered after so long.
    pub(super) fn answered(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut inner = self.0.lock();
        if inner.recent.len() < WINDOW {
            inner.recent.push(took);
            return;
        }
        let oldest = inner.oldest;
        inner.recent[oldest] = took;
        inner.oldest = (oldest + 1) % WINDOW;
    }

    /// Whether another load fits the twentieth; it is counted if so.
    pub(super) fn spend(&self) -> bool {
        let mut inner = self.0.lock();
        let left = inner.saved.checked_sub(LOADS_PER_HEDGE);
        inner.saved = left.unwrap_or(inner.saved);
        left.is_some()
    }
}

impl Inner {
    /// Of the loads in the window, 95 % took no longer.
    fn p95(&self) -> Option<Duration> {
        if self.recent.len() < FEWEST {
            return None;
        }
        let mut sorted = self.recent.clone();
        let rank = (sorted.len() * 95).div_ceil(100) - 1;
        let (_, p95, _) = sorted.select_nth_unstable(rank);
        Some(Duration::from_micros(*p95))
    }
}

/// Which of two loads of a key brought the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Won {
    First,
    Second,
}

/// The first answer of two loads; the other load is dropped. A failure of the origin is no answer
/// as long as the other load runs.
pub(super) async fn first_answer<T>(
    mut first: Pin<&mut impl Future<Output = Result<T, Error>>>,
    second: impl Future<Output = Result<T, Error>>,
) -> (Result<T, Error>, Won) {
    let mut second = std::pin::pin!(pause::beside(second));
    tokio::select! {
        biased;
        ended = &mut first => match ended {
            Err(error) if is_origins_fault(&error) => {
                pause::ended();
                (second.await, Won::Second)
            }
            answer => (answer, Won::First),
        },
        ended = &mut second => match ended {
            Err(error) if is_origins_fault(&error) => (first.await, Won::First),
            answer => (answer, Won::Second),
        },
    }
}

/// Whether a load failed because of the state of the origin. A missing key or a value that is too
/// large say nothing about it, nor does a lack of memory here.
pub(super) fn is_origins_fault(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::OriginFailed | ErrorKind::OriginTimeout
    )
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        pin::pin,
    };

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_load_more_is_allowed_for_twenty_and_few_are_saved_up() {
        let hedging = Hedging::default();
        for _ in 0..2 {
            for _ in 0..19 {
                hedging.begun();
            }
            assert!(!hedging.spend());
            hedging.begun();
            assert!(hedging.spend() && !hedging.spend());
        }
        for _ in 0..100_000 {
            hedging.begun();
        }
        let saved = std::iter::repeat_with(|| hedging.spend());
        assert_eq!(saved.take_while(|it| *it).count(), 10);
    }

    #[test]
    fn what_is_long_follows_the_last_loads_and_one_in_twenty_is_longer() {
        let hedging = Hedging::default();
        for load in 0..20 {
            assert_eq!(hedging.begun(), None, "{load} are too few");
            hedging.answered(MS);
        }
        assert_eq!(hedging.begun(), Some(MS));
        let load = |number: u32| match number % 20 {
            0 => 900 * MS,
            fast => fast * MS,
        };
        for number in 0..100 {
            hedging.answered(load(number));
        }
        for number in 0..100 {
            assert_eq!(hedging.begun(), Some(19 * MS));
            hedging.answered(load(number));
        }
        for _ in 0..10 {
            hedging.answered(900 * MS);
        }
        assert_eq!(hedging.begun(), Some(900 * MS), "it has become slow");
    }

    #[tokio::test]
    async fn the_first_answer_counts_and_a_failure_is_none_while_the_other_load_runs() {
        type Loaded = Result<u8, Error>;
        let failed = || Error::origin_failed("down");
        let missing = || Error::not_found("no such key");
        let of = async |first: Option<Loaded>, second: Option<Loaded>| {
            let ends = async |load: Option<Loaded>| match load {
                Some(ended) => ready(ended).await,
                None => pending().await,
            };
            let (answer, won) = first_answer(pin!(ends(first)), ends(second)).await;
            (answer.map_err(|error| error.kind()), won)
        };
        assert_eq!(of(Some(Ok(1)), None).await, (Ok(1), Won::First));
        assert_eq!(of(None, Some(Ok(2))).await, (Ok(2), Won::Second));
        let absent = (Err(ErrorKind::NotFound), Won::Second);
        assert_eq!(of(None, Some(Err(missing()))).await, absent);
        let second = of(Some(Err(failed())), Some(Ok(2))).await;
        assert_eq!(second, (Ok(2), Won::Second));
        let both = of(Some(Err(failed())), Some(Err(failed()))).await;
        assert_eq!(both.0, Err(ErrorKind::OriginFailed));
        // The second fails before the first answers.
        let late = async {
            tokio::task::yield_now().await;
            Ok::<u8, Error>(1)
        };
        let (answer, won) = first_answer(pin!(late), ready(Err(failed()))).await;
        assert_eq!((answer.ok(), won), (Some(1), Won::First));
    }
}
