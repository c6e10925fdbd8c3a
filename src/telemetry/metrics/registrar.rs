//! Registers metrics as the table of names has them.

use prometheus::{
    CounterVec, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result, core::Collector,
};

use super::hits::{Answered, SECONDS, WithHits};
use crate::telemetry::names::Metric;

/// Makes metrics and registers them. `tests` check that all names are distinct and valid, so none
/// of this can fail in a build that passed them.
pub(super) struct Registrar<'a>(pub(super) &'a Registry);

impl Registrar<'_> {
    pub(super) fn counter(&self, metric: Metric) -> Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(metric)))
    }

    pub(super) fn counters(&self, metric: Metric) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(metric), metric.labels))
    }

    /// Counters of seconds.
    pub(super) fn float_counters(&self, metric: Metric) -> Result<CounterVec> {
        self.register(CounterVec::new(opts(metric), metric.labels))
    }

    pub(super) fn gauge(&self, metric: Metric) -> Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(metric)))
    }

    pub(super) fn gauges(&self, metric: Metric) -> Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(opts(metric), metric.labels))
    }

    /// A gauge of seconds or of a share.
    pub(super) fn float_gauge(&self, metric: Metric) -> Result<Gauge> {
        self.register(Gauge::with_opts(opts(metric)))
    }

    pub(super) fn histogram(&self, metric: Metric) -> Result<Histogram> {
        self.register(Histogram::with_opts(buckets(metric)))
    }

    pub(super) fn histograms(&self, metric: Metric) -> Result<HistogramVec> {
        self.register(HistogramVec::new(buckets(metric), metric.labels))
    }

    /// Counters to which memory's answers are added.
    pub(super) fn counters_with_memory(
        &self,
        metric: Metric,
        answered: impl Answered,
    ) -> Result<IntCounterVec> {
        self.with_memory(IntCounterVec::new(opts(metric), metric.labels), answered)
    }

    /// Histograms to which memory's answers are added.
    pub(super) fn histograms_with_memory(
        &self,
        metric: Metric,
        answered: impl Answered,
    ) -> Result<HistogramVec> {
        self.with_memory(HistogramVec::new(buckets(metric), metric.labels), answered)
    }

    fn with_memory<C: Collector + Clone + 'static>(
        &self,
        built: Result<C>,
        answered: impl Answered,
    ) -> Result<C> {
        let others = built?;
        self.0.register(Box::new(WithHits {
            others: others.clone(),
            answered,
        }))?;
        Ok(others)
    }

    fn register<C: Collector + Clone + 'static>(&self, built: Result<C>) -> Result<C> {
        let collector = built?;
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

fn opts(metric: Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

fn buckets(metric: Metric) -> HistogramOpts {
    HistogramOpts::from(opts(metric)).buckets(SECONDS.to_vec())
}

/// A number as a gauge takes it.
pub(super) fn as_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Raises a counter to a total that is maintained elsewhere.
pub(super) fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
