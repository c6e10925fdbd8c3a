//! The metrics of one group. They count what its service, the core and its origin report.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, proto::LabelPair,
};

use super::{hits::Hits, registrar::Registrar};
use crate::telemetry::{
    line, names,
    recent::Recent,
    throttle::Throttle,
    trace::{self, SpanAttributes},
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::Source,
    ports::{BreakerState, GroupObserver, LoadObserver},
};

/// Values of the gauge of the circuit breaker.
const CLOSED: i64 = 0;
const HALF_OPEN: i64 = 1;
const OPEN: i64 = 2;

/// Where answers come from, then the kinds of errors.
pub(super) const OUTCOMES: [&str; SOURCES.len() + ErrorKind::ALL.len()] = {
    let mut names = [""; SOURCES.len() + ErrorKind::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = match at.checked_sub(SOURCES.len()) {
            None => SOURCES[at].name(),
            Some(kind) => ErrorKind::ALL[kind].name(),
        };
        at += 1;
    }
    names
};

/// What memory answers: found, and not.
const FROM_MEMORY: [&str; 2] = [Source::Hit.name(), ErrorKind::NotFound.name()];

const SOURCES: [Source; 4] = [Source::Hit, Source::Peer, Source::Origin, Source::Stale];

pub(super) fn outcome_index(outcome: Result<Source, ErrorKind>) -> usize {
    fn place<T: PartialEq>(all: &[T], one: &T) -> usize {
        let at = all.iter().position(|known| known == one);
        at.unwrap_or(all.len() - 1)
    }
    match outcome {
        Ok(source) => place(&SOURCES, &source),
        Err(kind) => SOURCES.len() + place(ErrorKind::ALL, &kind),
    }
}

/// The metrics of all groups.
pub(super) struct GroupFamilies {
    requests: IntCounterVec,
    request_duration: HistogramVec,
    peer_requests: IntCounterVec,
    invalidations: IntCounterVec,
    refusals: IntCounterVec,
    flight_waits: IntCounterVec,
    hot_copies: IntCounterVec,
    peeks: IntCounterVec,
    origin_loads: IntCounterVec,
    origin_duration: HistogramVec,
    origin_bytes: IntCounterVec,
    breaker_state: IntGaugeVec,
    breaker_refusals: IntCounterVec,
    renewals: IntCounterVec,
    saved: IntCounterVec,
    hedges: IntCounterVec,
    made: Arc<Made>,
}

/// One for each group, so that everything is counted in the same place.
type Made = Mutex<HashMap<Arc<str>, Arc<GroupMetrics>>>;

/// What memory answered, of the group and the outcome that these labels name; of both outcomes if
/// they name none.
fn from_memory(made: &Made, labels: &[LabelPair]) -> Vec<Arc<Hits>> {
    let label = |name: &str| {
        labels
            .iter()
            .find(|it| it.name() == name)
            .map(LabelPair::value)
    };
    let group = label("group").and_then(|name| made.lock().get(name).cloned());
    let both = group.iter().flat_map(|it| &it.from_memory);
    let wanted = both.filter(|(name, _)| label("outcome").is_none_or(|it| it == *name));
    wanted.map(|(_, answers)| answers.clone()).collect()
}

impl GroupFamilies {
    pub(super) fn register(registrar: &Registrar<'_>) -> prometheus::Result<Self> {
        let made = Arc::<Made>::default();
        let answered = || {
            let made = made.clone();
            move |labels: &[LabelPair]| from_memory(&made, labels)
        };
        Ok(Self {
            requests: registrar.counters_with_memory(names::REQUESTS, answered())?,
            request_duration: registrar
                .histograms_with_memory(names::REQUEST_DURATION, answered())?,
            peer_requests: registrar.counters(names::PEER_REQUESTS)?,
            invalidations: registrar.counters(names::INVALIDATIONS)?,
            refusals: registrar.counters(names::STORE_REFUSALS)?,
            flight_waits: registrar.counters(names::FLIGHT_WAITS)?,
            hot_copies: registrar.counters(names::HOT_COPIES)?,
            peeks: registrar.counters(names::PEEKS)?,
            origin_loads: registrar.counters(names::ORIGIN_LOADS)?,
            origin_duration: registrar.histograms(names::ORIGIN_DURATION)?,
            origin_bytes: registrar.counters(names::ORIGIN_BYTES)?,
            breaker_state: registrar.gauges(names::BREAKER_STATE)?,
            breaker_refusals: registrar.counters(names::BREAKER_REFUSALS)?,
            renewals: registrar.counters(names::ORIGIN_RENEWALS)?,
            saved: registrar.counters(names::ORIGIN_SAVED)?,
            hedges: registrar.counters(names::ORIGIN_HEDGES)?,
            made,
        })
    }

    /// Those of one group, with the labels already resolved.
    pub(super) fn of(&self, name: &str) -> Arc<GroupMetrics> {
        let mut made = self.made.lock();
        if let Some(known) = made.get(name) {
            return known.clone();
        }
        let metrics = self.make(name);
        made.insert(name.into(), metrics.clone());
        metrics
    }

    fn make(&self, name: &str) -> Arc<GroupMetrics> {
        let outcomes = |counters: &IntCounterVec| {
            OUTCOMES.map(|outcome| counters.with_label_values(&[name, outcome]))
        };
        let of = |counters: &IntCounterVec| counters.with_label_values(&[name]);
        Arc::new(GroupMetrics {
            name: name.into(),
            requests: outcomes(&self.requests),
            request_duration: self.request_duration.with_label_values(&[name]),
            from_memory: FROM_MEMORY.map(|it| (it, Arc::new(Hits::new()))),
            peer_requests: outcomes(&self.peer_requests),
            invalidations: self.invalidations.clone(),
            refusals: of(&self.refusals),
            flight_waits: of(&self.flight_waits),
            hot_copies: of(&self.hot_copies),
            peeks: ["found", "missing"].map(|it| self.peeks.with_label_values(&[name, it])),
            origin_loads: self.origin_loads.clone(),
            origin_duration: self.origin_duration.with_label_values(&[name]),
            origin_bytes: of(&self.origin_bytes),
            breaker_state: self.breaker_state.with_label_values(&[name]),
            breaker_refusals: of(&self.breaker_refusals),
            renewals: of(&self.renewals),
            saved: of(&self.saved),
            hedges: ["won", "lost"].map(|it| self.hedges.with_label_values(&[name, it])),
            throttle: Throttle::default(),
            loads: Recent::default(),
            misses: Recent::default(),
        })
    }
}

/// The metrics of one group. The group "" counts requests for groups that don't exist, since
/// callers choose those names.
pub struct GroupMetrics {
    name: Arc<str>,
    requests: [IntCounter; OUTCOMES.len()],
    request_duration: Histogram,
    /// What this node's memory answered, which the two above don't have: by outcome.
    from_memory: [(&'static str, Arc<Hits>); FROM_MEMORY.len()],
    peer_requests: [IntCounter; OUTCOMES.len()],
    invalidations: IntCounterVec,
    refusals: IntCounter,
    flight_waits: IntCounter,
    hot_copies: IntCounter,
    /// Found, missing.
    peeks: [IntCounter; 2],
    origin_loads: IntCounterVec,
    origin_duration: Histogram,
    origin_bytes: IntCounter,
    breaker_state: IntGauge,
    breaker_refusals: IntCounter,
    renewals: IntCounter,
    saved: IntCounter,
    /// Won, lost.
    hedges: [IntCounter; 2],
    throttle: Throttle,
    /// The latest loads.
    pub loads: Recent,
    /// The latest gets that this node's memory did not answer.
    pub misses: Recent,
}

impl GroupMetrics {
    /// Records a client's get.
    pub fn request(&self, took: Duration, outcome: Result<Source, ErrorKind>) {
        self.requests[outcome_index(outcome)].inc();
        self.request_duration.observe(took.as_secs_f64());
    }

    /// Records a client's get that memory answered, with a value or with the knowledge that there
    /// is none; `took` if it was timed.
    pub fn answered_from_memory(&self, took: Option<Duration>, found: bool) {
        self.from_memory[usize::from(!found)].1.add(took);
    }

    /// Records another node's fetch.
    pub fn peer_request(&self, outcome: Result<Source, ErrorKind>) {
        self.peer_requests[outcome_index(outcome)].inc();
    }

    /// Records a client's removal or purge.
    pub fn invalidation(&self, outcome: Result<(), ErrorKind>) {
        let outcome = outcome.map_or_else(ErrorKind::name, |()| "ok");
        self.invalidations
            .with_label_values(&[&self.name, outcome])
            .inc();
    }
}

/// A summary of one group's numbers, for the admin page.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GroupSummary {
    /// The group.
    pub name: String,
    /// Gets from clients.
    pub gets: u64,
    /// Gets that were answered from this node's or another member's memory.
    pub hits: u64,
    /// Gets that failed, other than for a missing key.
    pub failed: u64,
    /// Loads from the origin by this node.
    pub origin_loads: u64,
    /// Total duration of these loads.
    pub origin_seconds: f64,
}

impl GroupMetrics {
    /// The current numbers.
    pub fn summary(&self) -> GroupSummary {
        let count = |outcome| self.requests[outcome_index(outcome)].get();
        let [(_, held), (_, missing)] = &self.from_memory;
        let (held, missing) = (held.count(), missing.count());
        let failed = ErrorKind::ALL.iter().copied();
        let failed = failed.filter(|kind| *kind != ErrorKind::NotFound);
        GroupSummary {
            name: self.name.to_string(),
            gets: self.requests.iter().map(IntCounter::get).sum::<u64>() + held + missing,
            hits: [Source::Hit, Source::Peer, Source::Stale]
                .map(|source| count(Ok(source)))
                .iter()
                .sum::<u64>()
                + held,
            failed: failed.map(|kind| count(Err(kind))).sum(),
            origin_loads: self.origin_duration.get_sample_count(),
            origin_seconds: self.origin_duration.get_sample_sum(),
        }
    }
}

impl GroupObserver for GroupMetrics {
    fn waited_for_flight(&self) {
        self.flight_waits.inc();
        trace::event("joined a load in flight", None);
    }

    fn refused_by_store(&self) {
        self.refusals.inc();
        if let Some(suppressed) = self.throttle.due("refused") {
            tracing::warn!(group = %self.name, suppressed, "a value is too large to keep; increase cache.capacity");
        }
    }

    fn kept_hot_copy(&self) {
        self.hot_copies.inc();
    }

    fn asked_previous_owners(&self, found: bool) {
        self.peeks[usize::from(!found)].inc();
        let outcome = if found { "found" } else { "missing" };
        trace::event("asked previous owners", Some(("outcome", outcome)));
    }
}

impl LoadObserver for GroupMetrics {
    fn loaded(&self, key: &str, took: Duration, outcome: Result<usize, &Error>) {
        self.origin_duration.observe(took.as_secs_f64());
        self.loads.add(key, took, outcome.map(|_| "ok"));
        let label = match outcome {
            Ok(bytes) => {
                self.origin_bytes.inc_by(bytes as u64);
                "ok"
            }
            Err(error) => {
                self.log_load(key, error);
                error.kind().name()
            }
        };
        self.origin_loads
            .with_label_values(&[&self.name, label])
            .inc();
        trace::ended(
            outcome.map(|_| label),
            SpanAttributes {
                group: &self.name,
                bytes: outcome.ok(),
                ..SpanAttributes::default()
            },
        );
    }

    fn renewed(&self) {
        self.renewals.inc();
    }

    fn hedged(&self, won: bool) {
        self.hedges[usize::from(!won)].inc();
    }

    fn saved(&self, bytes: u64) {
        self.saved.inc_by(bytes);
    }

    fn refused_by_breaker(&self) {
        self.breaker_refusals.inc();
        trace::event("refused by the circuit breaker", None);
    }

    fn breaker(&self, state: BreakerState) {
        self.log_breaker(state);
        self.breaker_state.set(match state {
            BreakerState::Closed => CLOSED,
            BreakerState::HalfOpen => HALF_OPEN,
            BreakerState::Open => OPEN,
        });
    }
}

impl GroupMetrics {
    /// The state of the circuit breaker, for people.
    pub fn breaker_name(&self) -> &'static str {
        match self.breaker_state.get() {
            HALF_OPEN => "half_open",
            OPEN => "open",
            _ => "closed",
        }
    }

    fn log_breaker(&self, state: BreakerState) {
        let group = &self.name;
        match state {
            BreakerState::Open => {
                if let Some(suppressed) = self.throttle.due("breaker") {
                    tracing::warn!(%group, suppressed, "the circuit breaker is open");
                }
            }
            BreakerState::HalfOpen => {}
            BreakerState::Closed if self.breaker_state.get() == CLOSED => {}
            BreakerState::Closed => tracing::info!(%group, "the circuit breaker has closed"),
        }
    }

    fn log_load(&self, key: &str, error: &Error) {
        if error.kind() == ErrorKind::NotFound {
            return;
        }
        if let Some(suppressed) = self.throttle.due(error.kind().name()) {
            tracing::warn!(
                group = %self.name, key = line::key(key), kind = error.kind().name(), %error,
                suppressed,
                "loading from the origin failed"
            );
        }
    }
}
