//! Counts what a node's memory answers, which is most of what it does: each thread in a place of
//! its own, since threads that write to the same line of memory wait for each other.
//!
//! Reading the clock takes as long as all the rest of a hit, so one answer in [`TIMED`] of a thread
//! is timed, and the others count as if they had taken as long as the latest that was.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily},
};

use gaocache_core::per_thread::{own_place, places};

/// Buckets of histograms from 50 µs (a hit on a busy machine) to 30 s (the longest load).
pub(super) const SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0,
    30.0,
];

/// One answer in so many is timed.
const TIMED: u32 = 16;

/// Threads past that share a place.
const MOST_PLACES: usize = 32;

/// What a thread knows.
#[derive(Clone, Copy)]
struct Thread {
    /// Counts its answers.
    turn: u32,
    /// How long the latest took that was timed.
    latest: Duration,
}

thread_local! {
    static THREAD: Cell<Thread> = const {
        Cell::new(Thread { turn: 0, latest: Duration::ZERO })
    };
}

/// Whether this thread's next answer is one that is timed.
pub(crate) fn is_timed() -> bool {
    let mut thread = THREAD.get();
    let timed = thread.turn.is_multiple_of(TIMED);
    thread.turn = thread.turn.wrapping_add(1);
    THREAD.set(thread);
    timed
}

/// The counts of some threads, by how long an answer took; past the last bound, too. On two lines
/// of their own.
#[repr(align(128))]
#[derive(Default)]
struct Place {
    by_bucket: [AtomicU64; SECONDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// Answers of one kind from memory.
pub(super) struct Hits(Box<[Place]>);

impl Hits {
    pub(super) fn new() -> Self {
        Self((0..places(MOST_PLACES)).map(|_| Place::default()).collect())
    }

    /// Counts an answer; `took` if it was timed.
    pub(super) fn add(&self, took: Option<Duration>) {
        let mut thread = THREAD.get();
        if let Some(took) = took {
            thread.latest = took;
            THREAD.set(thread);
        }
        let place = &self.0[own_place(self.0.len())];
        let seconds = thread.latest.as_secs_f64();
        let bucket = SECONDS.iter().position(|bound| seconds <= *bound);
        place.by_bucket[bucket.unwrap_or(SECONDS.len())].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(thread.latest.as_nanos()).unwrap_or(u64::MAX);
        place.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.by_bucket().iter().sum()
    }

    fn by_bucket(&self) -> [u64; SECONDS.len() + 1] {
        let mut sums = [0; SECONDS.len() + 1];
        for place in &self.0 {
            for (sum, count) in sums.iter_mut().zip(&place.by_bucket) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        sums
    }

    fn seconds(&self) -> f64 {
        let nanoseconds = self
            .0
            .iter()
            .map(|it| it.nanoseconds.load(Ordering::Relaxed));
        nanoseconds.sum::<u64>() as f64 / 1e9
    }
}

/// What memory answered, of the labels of a metric.
pub(super) trait Answered:
    Fn(&[LabelPair]) -> Vec<Arc<Hits>> + Send + Sync + 'static
{
}

impl<F> Answered for F where F: Fn(&[LabelPair]) -> Vec<Arc<Hits>> + Send + Sync + 'static {}

/// Adds what memory answered to what a collector counts of all other answers.
pub(super) struct WithHits<C, A> {
    pub(super) others: C,
    pub(super) answered: A,
}

impl<C: Collector, A: Answered> Collector for WithHits<C, A> {
    fn desc(&self) -> Vec<&Desc> {
        self.others.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.others.collect();
        for metric in families.iter_mut().flat_map(MetricFamily::mut_metric) {
            for answered in (self.answered)(metric.get_label()) {
                add(metric, &answered);
            }
        }
        families
    }
}

fn add(metric: &mut Metric, answered: &Hits) {
    let before = metric.get_histogram();
    if before.get_bucket().is_empty() {
        let mut counter = Counter::default();
        counter.set_value(metric.get_counter().get_value() + answered.count() as f64);
        metric.set_counter(counter);
        return;
    }
    let mut sum = 0;
    let counts = answered.by_bucket();
    let buckets = before
        .get_bucket()
        .iter()
        .zip(counts)
        .map(|(before, count)| {
            sum += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(before.upper_bound());
            bucket.set_cumulative_count(before.cumulative_count() + sum);
            bucket
        });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(before.get_sample_count() + counts.iter().sum::<u64>());
    histogram.set_sample_sum(before.get_sample_sum() + answered.seconds());
    metric.set_histogram(histogram);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_in_sixteen_is_timed_and_the_others_count_like_it() {
        let answers = Hits::new();
        let timed = (0..160).filter(|_| {
            let timed = is_timed();
            answers.add(timed.then_some(Duration::from_micros(70)));
            timed
        });
        assert_eq!(timed.count(), 10);
        assert_eq!(answers.count(), 160);
        assert_eq!(answers.by_bucket()[1], 160, "50 to 100 µs");
        assert!((answers.seconds() - 160.0 * 70e-6).abs() < 1e-9);
    }

    #[test]
    fn what_all_threads_count_is_summed() {
        let answers = Hits::new();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..100).for_each(|_| answers.add(Some(Duration::from_secs(60)))));
            }
        });
        assert_eq!(answers.by_bucket()[SECONDS.len()], 4_000);
    }
}
