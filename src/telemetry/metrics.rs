//! The metrics of one node, in a registry of their own so that several nodes can live in one process.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{
    CounterVec, Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use tokio::runtime::RuntimeMetrics;

use super::{
    names::{self, Metric},
    throttle::Throttle,
};
use crate::{
    core::{cluster::Topology, group::Source, store::Store},
    error::{Error, ErrorKind, Result},
    origin::guarded::LoadObserver,
    ports::{GroupObserver, HandOverObserver, Receipt, Timestamp},
};

/// From 50 µs, a hit on a busy machine, to 30 s, the longest that a load may take.
const SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0,
    30.0,
];

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    peer_requests: IntCounterVec,
    invalidations: IntCounterVec,
    store_items: IntGaugeVec,
    store_bytes: IntGaugeVec,
    store_capacity: IntGaugeVec,
    store_evictions: IntCounterVec,
    store_expirations: IntCounterVec,
    store_refusals: IntCounterVec,
    flight_waits: IntCounterVec,
    hot_copies: IntCounterVec,
    origin_loads: IntCounterVec,
    origin_duration: HistogramVec,
    origin_bytes: IntCounterVec,
    /// By peer and outcome.
    pub peer_fetches: IntCounterVec,
    /// Time of fetches.
    pub peer_fetch_duration: Histogram,
    /// Peers not asked at the moment.
    pub peers_set_aside: IntGauge,
    looks: IntCounterVec,
    hand_over_entries: IntCounterVec,
    hand_over_bytes: IntCounter,
    hand_over_waiting: IntGauge,
    draining_since: Gauge,
    ring_members: IntGauge,
    ring_revision: IntGauge,
    ring_fingerprint: IntGauge,
    ring_share: Gauge,
    ring_changes: IntCounter,
    lease_renewals: IntCounterVec,
    lease_expiry: Gauge,
    registrations: IntCounterVec,
    watch_reconnects: IntCounter,
    registry_heard: Gauge,
    runtime_busy: CounterVec,
    runtime_tasks: IntGaugeVec,
    runtime_queue: IntGaugeVec,
    /// Whose numbers are read at a scrape.
    runtimes: Mutex<Vec<(String, RuntimeMetrics)>>,
    /// 1 while ready.
    pub ready: IntGauge,
    /// By door.
    pub connections: IntGaugeVec,
}

fn opts(metric: Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

/// Registers a collector. Names are distinct and valid, which `tests` see to, so this can't fail in a build that passed them.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    built: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = built?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// Fresh metrics.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the table of names is wrong.
    pub fn new() -> Result<Arc<Self>> {
        Self::build()
            .map(Arc::new)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("metrics: {error}")))
    }

    fn build() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |m: Metric| register(&registry, IntCounterVec::new(opts(m), m.labels));
        let gauges = |m: Metric| register(&registry, IntGaugeVec::new(opts(m), m.labels));
        let gauge = |m: Metric| register(&registry, IntGauge::with_opts(opts(m)));
        let buckets = |m: Metric| HistogramOpts::from(opts(m)).buckets(SECONDS.to_vec());
        let histograms = |m: Metric| register(&registry, HistogramVec::new(buckets(m), m.labels));
        gauges(names::BUILD_INFO)?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Self {
            requests: counters(names::REQUESTS)?,
            request_duration: histograms(names::REQUEST_DURATION)?,
            peer_requests: counters(names::PEER_REQUESTS)?,
            invalidations: counters(names::INVALIDATIONS)?,
            store_items: gauges(names::STORE_ITEMS)?,
            store_bytes: gauges(names::STORE_BYTES)?,
            store_capacity: gauges(names::STORE_CAPACITY)?,
            store_evictions: counters(names::STORE_EVICTIONS)?,
            store_expirations: counters(names::STORE_EXPIRATIONS)?,
            store_refusals: counters(names::STORE_REFUSALS)?,
            flight_waits: counters(names::FLIGHT_WAITS)?,
            hot_copies: counters(names::HOT_COPIES)?,
            origin_loads: counters(names::ORIGIN_LOADS)?,
            origin_duration: histograms(names::ORIGIN_DURATION)?,
            origin_bytes: counters(names::ORIGIN_BYTES)?,
            peer_fetches: counters(names::PEER_FETCHES)?,
            peer_fetch_duration: register(
                &registry,
                Histogram::with_opts(buckets(names::PEER_FETCH_DURATION)),
            )?,
            peers_set_aside: gauge(names::PEERS_SET_ASIDE)?,
            looks: counters(names::LOOKS)?,
            hand_over_entries: counters(names::HAND_OVER_ENTRIES)?,
            hand_over_bytes: register(
                &registry,
                IntCounter::with_opts(opts(names::HAND_OVER_BYTES)),
            )?,
            hand_over_waiting: gauge(names::HAND_OVER_WAITING)?,
            draining_since: register(&registry, Gauge::with_opts(opts(names::DRAINING_SINCE)))?,
            ring_members: gauge(names::RING_MEMBERS)?,
            ring_revision: gauge(names::RING_REVISION)?,
            ring_fingerprint: gauge(names::RING_FINGERPRINT)?,
            ring_share: register(&registry, Gauge::with_opts(opts(names::RING_SHARE)))?,
            ring_changes: register(&registry, IntCounter::with_opts(opts(names::RING_CHANGES)))?,
            lease_renewals: counters(names::LEASE_RENEWALS)?,
            lease_expiry: register(&registry, Gauge::with_opts(opts(names::LEASE_EXPIRY)))?,
            registrations: counters(names::REGISTRATIONS)?,
            watch_reconnects: register(
                &registry,
                IntCounter::with_opts(opts(names::WATCH_RECONNECTS)),
            )?,
            registry_heard: register(&registry, Gauge::with_opts(opts(names::REGISTRY_HEARD)))?,
            runtime_busy: register(
                &registry,
                CounterVec::new(opts(names::RUNTIME_BUSY), names::RUNTIME_BUSY.labels),
            )?,
            runtime_tasks: gauges(names::RUNTIME_TASKS)?,
            runtime_queue: gauges(names::RUNTIME_QUEUE)?,
            runtimes: Mutex::default(),
            ready: gauge(names::READY)?,
            connections: gauges(names::CONNECTIONS)?,
            registry,
        })
    }

    /// The metrics of one group, with their labels looked up once.
    pub fn group(&self, name: &str) -> Arc<GroupMetrics> {
        let outcomes = |counters: &IntCounterVec| {
            OUTCOMES.map(|outcome| counters.with_label_values(&[name, outcome]))
        };
        let of = |counters: &IntCounterVec| counters.with_label_values(&[name]);
        Arc::new(GroupMetrics {
            name: name.into(),
            requests: outcomes(&self.requests),
            request_duration: self.request_duration.with_label_values(&[name]),
            peer_requests: outcomes(&self.peer_requests),
            invalidations: self.invalidations.clone(),
            refusals: of(&self.store_refusals),
            flight_waits: of(&self.flight_waits),
            hot_copies: of(&self.hot_copies),
            looks: ["found", "missing"].map(|it| self.looks.with_label_values(&[name, it])),
            origin_loads: self.origin_loads.clone(),
            origin_duration: self.origin_duration.with_label_values(&[name]),
            origin_bytes: of(&self.origin_bytes),
            throttle: Throttle::default(),
        })
    }

    /// The metrics of hand-overs, with their labels looked up once.
    pub fn hand_over(&self) -> Arc<HandOverMetrics> {
        let entries = |direction: &str, outcome: &str| {
            self.hand_over_entries
                .with_label_values(&[direction, outcome])
        };
        let four =
            |direction| ["kept", "known", "full", "refused"].map(|it| entries(direction, it));
        Arc::new(HandOverMetrics {
            sent: four("sent"),
            received: four("received"),
            failed: entries("sent", "failed"),
            bytes: self.hand_over_bytes.clone(),
            waiting: self.hand_over_waiting.clone(),
        })
    }

    /// This node begins to leave.
    pub fn draining_since(&self, moment: Timestamp) {
        self.draining_since.set(moment.0 as f64 / 1000.0);
    }

    /// Takes the numbers of a newly installed ring.
    pub fn ring_changed(&self, topology: &Topology) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.ring_members.set(gauge(topology.ring_len() as u64));
        self.ring_revision.set(gauge(topology.view.revision));
        // Prometheus keeps doubles, which hold 53 bits exactly.
        let fingerprint = topology.view.fingerprint().0 >> 16;
        self.ring_fingerprint.set(gauge(fingerprint));
        let mine = topology
            .view
            .members
            .iter()
            .position(|member| topology.me().is_some_and(|me| me.id == member.id));
        self.ring_share
            .set(mine.map_or(0.0, |at| topology.share(at)));
        self.ring_changes.inc();
    }

    /// A renewal of the lease ended: `ok`, `failed` or `lost`.
    pub fn lease_renewed(&self, outcome: &str) {
        self.lease_renewals.with_label_values(&[outcome]).inc();
    }

    /// The lease lives until `moment`.
    pub fn lease_expires(&self, moment: Timestamp) {
        self.lease_expiry.set(moment.0 as f64 / 1000.0);
    }

    /// When the lease ends, in seconds since the Unix epoch; 0: there is none.
    pub fn lease_expires_at(&self) -> f64 {
        self.lease_expiry.get()
    }

    /// Entries that are on their way to other members.
    pub fn hand_over_waiting(&self) -> i64 {
        self.hand_over_waiting.get()
    }

    /// The node's key was written, and why.
    pub fn registered(&self, reason: &str) {
        self.registrations.with_label_values(&[reason]).inc();
    }

    /// The watch had to begin anew.
    pub fn watch_reconnected(&self) {
        self.watch_reconnects.inc();
    }

    /// The registry gave a sign of life.
    pub fn registry_heard(&self, moment: Timestamp) {
        self.registry_heard.set(moment.0 as f64 / 1000.0);
    }

    /// Takes the numbers of a store; called before a scrape.
    pub fn store(&self, tier: &str, store: &Store) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let tier = &[tier];
        self.store_items
            .with_label_values(tier)
            .set(gauge(store.len() as u64));
        self.store_bytes
            .with_label_values(tier)
            .set(gauge(store.bytes()));
        self.store_capacity
            .with_label_values(tier)
            .set(gauge(store.capacity()));
        let departures = store.departures();
        for (counters, total) in [
            (&self.store_evictions, departures.evicted),
            (&self.store_expirations, departures.expired),
        ] {
            let counter = counters.with_label_values(tier);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Shows the numbers of a runtime of one thread from now on.
    pub fn watch_runtime(&self, name: &str, runtime: RuntimeMetrics) {
        self.runtimes.lock().push((name.to_owned(), runtime));
    }

    fn read_runtimes(&self) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (name, runtime) in self.runtimes.lock().iter() {
            let name = &[name.as_str()];
            let busy = self.runtime_busy.with_label_values(name);
            let total = runtime.worker_total_busy_duration(0).as_secs_f64();
            busy.inc_by((total - busy.get()).max(0.0));
            self.runtime_tasks
                .with_label_values(name)
                .set(gauge(runtime.num_alive_tasks()));
            self.runtime_queue
                .with_label_values(name)
                .set(gauge(runtime.global_queue_depth()));
        }
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if encoding fails.
    pub fn render(&self) -> Result<Vec<u8>> {
        self.read_runtimes();
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("metrics: {error}")))?;
        Ok(out)
    }
}

const OUTCOMES: [&str; 13] = [
    "hit",
    "peer",
    "origin",
    ErrorKind::ALL[0].name(),
    ErrorKind::ALL[1].name(),
    ErrorKind::ALL[2].name(),
    ErrorKind::ALL[3].name(),
    ErrorKind::ALL[4].name(),
    ErrorKind::ALL[5].name(),
    ErrorKind::ALL[6].name(),
    ErrorKind::ALL[7].name(),
    ErrorKind::ALL[8].name(),
    ErrorKind::ALL[9].name(),
];

fn outcome_index(outcome: Result<Source, ErrorKind>) -> usize {
    match outcome {
        Ok(Source::Hit) => 0,
        Ok(Source::Peer) => 1,
        Ok(Source::Origin) => 2,
        Err(kind) => {
            3 + ErrorKind::ALL
                .iter()
                .position(|&known| known == kind)
                .unwrap_or(ErrorKind::ALL.len() - 1)
        }
    }
}

/// The metrics of one group. The group "" counts requests for groups that don't exist: their names come from outside.
pub struct GroupMetrics {
    name: Arc<str>,
    requests: [IntCounter; 13],
    request_duration: Histogram,
    peer_requests: [IntCounter; 13],
    invalidations: IntCounterVec,
    refusals: IntCounter,
    flight_waits: IntCounter,
    hot_copies: IntCounter,
    /// Found, missing.
    looks: [IntCounter; 2],
    origin_loads: IntCounterVec,
    origin_duration: Histogram,
    origin_bytes: IntCounter,
    throttle: Throttle,
}

impl GroupMetrics {
    /// A client's get ended.
    pub fn request(&self, took: Duration, outcome: Result<Source, ErrorKind>) {
        self.requests[outcome_index(outcome)].inc();
        self.request_duration.observe(took.as_secs_f64());
    }

    /// Another node's fetch ended.
    pub fn peer_request(&self, outcome: Result<Source, ErrorKind>) {
        self.peer_requests[outcome_index(outcome)].inc();
    }

    /// A client's removal or purge ended.
    pub fn invalidation(&self, outcome: Result<(), ErrorKind>) {
        let outcome = outcome.map_or_else(ErrorKind::name, |()| "ok");
        self.invalidations
            .with_label_values(&[&self.name, outcome])
            .inc();
    }
}

/// The numbers of one group, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct GroupSummary {
    /// The group.
    pub name: String,
    /// Gets of clients.
    pub gets: u64,
    /// Of those, answered from this node's memory or another member's.
    pub hits: u64,
    /// Of those, errors other than a missing key.
    pub failed: u64,
    /// Loads from the origin by this node.
    pub origin_loads: u64,
    /// Their time, all together.
    pub origin_seconds: f64,
}

impl GroupMetrics {
    /// The numbers as they are now.
    pub fn summary(&self) -> GroupSummary {
        let count = |outcome| self.requests[outcome_index(outcome)].get();
        let failed = ErrorKind::ALL.into_iter();
        let failed = failed.filter(|kind| *kind != ErrorKind::NotFound);
        GroupSummary {
            name: self.name.to_string(),
            gets: self.requests.iter().map(IntCounter::get).sum(),
            hits: count(Ok(Source::Hit)) + count(Ok(Source::Peer)),
            failed: failed.map(|kind| count(Err(kind))).sum(),
            origin_loads: self.origin_duration.get_sample_count(),
            origin_seconds: self.origin_duration.get_sample_sum(),
        }
    }
}

impl GroupObserver for GroupMetrics {
    fn waited_for_flight(&self) {
        self.flight_waits.inc();
    }

    fn refused_by_store(&self) {
        self.refusals.inc();
        if let Some(left_out) = self.throttle.due("refused") {
            tracing::warn!(group = %self.name, left_out, "a value is too large to be kept; raise cache.capacity");
        }
    }

    fn kept_hot_copy(&self) {
        self.hot_copies.inc();
    }

    fn looked_around(&self, found: bool) {
        self.looks[usize::from(!found)].inc();
    }
}

/// The metrics of hand-overs.
pub struct HandOverMetrics {
    /// Kept, known, full, refused.
    sent: [IntCounter; 4],
    received: [IntCounter; 4],
    failed: IntCounter,
    bytes: IntCounter,
    waiting: IntGauge,
}

fn count(counters: &[IntCounter; 4], receipt: Receipt) {
    let Receipt {
        kept,
        known,
        full,
        refused,
    } = receipt;
    for (counter, entries) in counters.iter().zip([kept, known, full, refused]) {
        counter.inc_by(u64::from(entries));
    }
}

impl HandOverMetrics {
    /// A batch of another node's was taken.
    pub fn received(&self, receipt: Receipt) {
        count(&self.received, receipt);
    }
}

impl HandOverObserver for HandOverMetrics {
    fn sent(&self, bytes: usize, receipt: Receipt) {
        self.bytes.inc_by(bytes as u64);
        count(&self.sent, receipt);
    }

    fn failed(&self, entries: usize) {
        self.failed.inc_by(entries as u64);
    }

    fn waiting(&self, entries: usize) {
        self.waiting.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }
}

impl LoadObserver for GroupMetrics {
    fn loaded(&self, took: Duration, outcome: Result<usize, &Error>) {
        self.origin_duration.observe(took.as_secs_f64());
        let label = match outcome {
            Ok(bytes) => {
                self.origin_bytes.inc_by(bytes as u64);
                "ok"
            }
            Err(error) => {
                self.log_load(error);
                error.kind().name()
            }
        };
        self.origin_loads
            .with_label_values(&[&self.name, label])
            .inc();
    }
}

impl GroupMetrics {
    fn log_load(&self, error: &Error) {
        if error.kind() == ErrorKind::NotFound {
            return;
        }
        if let Some(left_out) = self.throttle.due(error.kind().name()) {
            tracing::warn!(
                group = %self.name, kind = error.kind().name(), %error, left_out,
                "loading from the origin failed"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_name_in_the_table_is_registered_with_its_kind_and_labels() {
        let metrics = Metrics::new().expect("names are valid");
        metrics.watch_runtime("control", tokio::runtime::Handle::current().metrics());
        let group = metrics.group("g");
        group.request(Duration::ZERO, Err(ErrorKind::Internal));
        group.loaded(Duration::ZERO, Ok(1));
        group.invalidation(Ok(()));
        metrics.store("owned", &Store::new(1 << 20, 1 << 10));
        metrics.peer_fetches.with_label_values(&["p", "hit"]).inc();
        metrics.connections.with_label_values(&["grpc"]).set(0);
        metrics.lease_renewed("ok");
        metrics.registered("start");
        metrics.hand_over().received(Receipt::default());
        let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
        for metric in names::ALL {
            let line = format!("# TYPE {} {}", metric.name, metric.kind);
            assert!(text.contains(&line), "missing: {line}");
            for label in metric.labels {
                let sample = text.lines().find(|line| line.starts_with(metric.name));
                assert!(
                    sample.is_some_and(|line| line.contains(&format!("{label}=\""))),
                    "{label} of {}",
                    metric.name
                );
            }
        }
    }

    /// `cargo test --lib -- a_scrape --nocapture` prints the figures; 5 ms is the goal for the time, which a test must not judge.
    #[test]
    fn a_scrape_of_ten_groups_and_a_hundred_peers_has_at_most_300_kb() {
        let metrics = Metrics::new().expect("names are valid");
        for number in 0..10 {
            let group = metrics.group(&format!("group-{number}"));
            for kind in ErrorKind::ALL {
                group.request(Duration::from_millis(1), Err(kind));
                group.loaded(Duration::from_millis(1), Err(&Error::new(kind, "x")));
                group.invalidation(Err(kind));
            }
        }
        for number in 0..100 {
            for outcome in ["hit", "origin", "error", "unreachable", "incompatible"] {
                let peer = format!("cache-gaocache-{number}");
                metrics
                    .peer_fetches
                    .with_label_values(&[peer.as_str(), outcome])
                    .inc();
            }
        }
        let began = tokio::time::Instant::now();
        let bytes = metrics.render().expect("renders").len();
        println!("a scrape: {bytes} bytes in {:?}", began.elapsed());
        assert!(bytes <= 300_000, "{bytes} bytes");
    }

    #[test]
    fn the_table_keeps_to_its_own_rules() {
        for metric in names::ALL {
            assert!(metric.name.starts_with("gaocache_"), "{}", metric.name);
            assert_eq!(
                metric.kind == "counter",
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert_eq!(
                metric.kind == "histogram",
                metric.name.ends_with("_duration_seconds"),
                "{}",
                metric.name
            );
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            assert!(!metric.labels.contains(&"key"));
        }
    }

    #[test]
    fn every_error_is_an_outcome_of_its_own() {
        for kind in ErrorKind::ALL {
            assert_eq!(OUTCOMES[outcome_index(Err(kind))], kind.name());
        }
        assert_eq!(
            OUTCOMES[outcome_index(Ok(Source::Peer))],
            Source::Peer.name()
        );
    }
}
