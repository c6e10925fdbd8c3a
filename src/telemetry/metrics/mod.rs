//! The metrics of one node. They have their own Prometheus registry, so that several nodes can run
//! in one process.

mod group;
mod handoff;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{
    CounterVec, Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use tokio::runtime::RuntimeMetrics;

pub use group::{GroupMetrics, GroupSummary};
pub use handoff::HandoffMetrics;

use super::{
    names::{self, Metric},
    spans::SPANS,
    throttle::Throttle,
};
use crate::clock::unix_seconds;
use gaocache_core::{
    cluster::Topology,
    error::{Error, ErrorKind, Result},
    ports::Fate,
    store::GroupStats,
};
use group::OUTCOMES;

/// Buckets from 50 µs (a hit on a busy machine) to 30 s (the longest load).
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
    /// Peers that are currently ejected.
    pub peers_ejected: IntGauge,
    peeks: IntCounterVec,
    handoff_entries: IntCounterVec,
    handoff_bytes: IntCounter,
    handoff_waiting: IntGauge,
    draining_since: Gauge,
    ring_members: IntGauge,
    ring_revision: IntGauge,
    ring_fingerprint: IntGauge,
    ring_share: Gauge,
    ring_changes: IntCounter,
    lease_renewals: IntCounterVec,
    lease_expiry: Gauge,
    expulsions: IntCounter,
    registrations: IntCounterVec,
    watch_reconnects: IntCounter,
    registry_heard: Gauge,
    runtime_busy: CounterVec,
    runtime_tasks: IntGaugeVec,
    runtime_queue: IntGaugeVec,
    spans: IntCounterVec,
    /// The runtimes whose numbers are read at each scrape.
    runtimes: Mutex<Vec<(String, RuntimeMetrics)>>,
    /// 1 while ready.
    pub ready: IntGauge,
    connections: IntGaugeVec,
    /// Connections that the listeners for clients and peers accept together.
    pub connections_limit: IntGauge,
    /// By listener and reason.
    pub connection_refusals: IntCounterVec,
    /// By listener and reason.
    pub connection_cuts: IntCounterVec,
    in_flight: IntGauge,
    in_flight_limit: IntGauge,
    in_flight_refusals: IntCounter,
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn failed(error: prometheus::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("metrics: {error}")).with_source(error)
}

/// Raises a counter to a total that is maintained elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn opts(metric: Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

/// Registers a collector. `tests` check that all names are distinct and valid, so this can't fail
/// in a build that passed them.
fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    built: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let collector = built?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// New metrics.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the table of names is invalid.
    pub fn new() -> Result<Arc<Self>> {
        let metrics = Self::build().map_err(failed)?;
        metrics.begin_with_zero();
        Ok(Arc::new(metrics))
    }

    /// Counters of rare events show from the start: Prometheus doesn't count the first increase of
    /// a series that was absent before.
    fn begin_with_zero(&self) {
        for listener in ["grpc", "http", "peer"] {
            for reason in ["total", "address", "failed"] {
                let refusals = &self.connection_refusals;
                refusals.with_label_values(&[listener, reason]);
            }
            for reason in ["handshake", "idle", "stalled", "flood"] {
                self.connection_cuts.with_label_values(&[listener, reason]);
            }
        }
    }

    fn build() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counters = |m: Metric| register(&registry, IntCounterVec::new(opts(m), m.labels));
        let gauges = |m: Metric| register(&registry, IntGaugeVec::new(opts(m), m.labels));
        let gauge = |m: Metric| register(&registry, IntGauge::with_opts(opts(m)));
        let counter = |m: Metric| register(&registry, IntCounter::with_opts(opts(m)));
        let fraction = |m: Metric| register(&registry, Gauge::with_opts(opts(m)));
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
            peers_ejected: gauge(names::PEERS_EJECTED)?,
            peeks: counters(names::PEEKS)?,
            handoff_entries: counters(names::HANDOFF_ENTRIES)?,
            handoff_bytes: counter(names::HANDOFF_BYTES)?,
            handoff_waiting: gauge(names::HANDOFF_WAITING)?,
            draining_since: fraction(names::DRAINING_SINCE)?,
            ring_members: gauge(names::RING_MEMBERS)?,
            ring_revision: gauge(names::RING_REVISION)?,
            ring_fingerprint: gauge(names::RING_FINGERPRINT)?,
            ring_share: fraction(names::RING_SHARE)?,
            ring_changes: counter(names::RING_CHANGES)?,
            lease_renewals: counters(names::LEASE_RENEWALS)?,
            lease_expiry: fraction(names::LEASE_EXPIRY)?,
            expulsions: counter(names::EXPULSIONS)?,
            registrations: counters(names::REGISTRATIONS)?,
            watch_reconnects: counter(names::WATCH_RECONNECTS)?,
            registry_heard: fraction(names::REGISTRY_HEARD)?,
            runtime_busy: register(
                &registry,
                CounterVec::new(opts(names::RUNTIME_BUSY), names::RUNTIME_BUSY.labels),
            )?,
            runtime_tasks: gauges(names::RUNTIME_TASKS)?,
            runtime_queue: gauges(names::RUNTIME_QUEUE)?,
            spans: counters(names::TRACE_SPANS)?,
            runtimes: Mutex::default(),
            ready: gauge(names::READY)?,
            connections: gauges(names::CONNECTIONS)?,
            connections_limit: gauge(names::CONNECTIONS_LIMIT)?,
            connection_refusals: counters(names::CONNECTION_REFUSALS)?,
            connection_cuts: counters(names::CONNECTION_CUTS)?,
            in_flight: gauge(names::IN_FLIGHT_BYTES)?,
            in_flight_limit: gauge(names::IN_FLIGHT_LIMIT)?,
            in_flight_refusals: counter(names::IN_FLIGHT_REFUSALS)?,
            registry,
        })
    }

    /// The metrics of one group, with the labels already resolved.
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
            peeks: ["found", "missing"].map(|it| self.peeks.with_label_values(&[name, it])),
            origin_loads: self.origin_loads.clone(),
            origin_duration: self.origin_duration.with_label_values(&[name]),
            origin_bytes: of(&self.origin_bytes),
            throttle: Throttle::default(),
        })
    }

    /// The metrics of handoffs, with the labels already resolved.
    pub fn handoff(&self) -> Arc<HandoffMetrics> {
        let entries = |direction: &str, outcome: &str| {
            self.handoff_entries
                .with_label_values(&[direction, outcome])
        };
        let by_fate = |direction| Fate::ALL.map(|fate| entries(direction, fate.name()));
        Arc::new(HandoffMetrics {
            sent: by_fate("sent"),
            received: by_fate("received"),
            failed: entries("sent", "failed"),
            bytes: self.handoff_bytes.clone(),
            waiting: self.handoff_waiting.clone(),
        })
    }

    /// Records that this node begins to leave now.
    pub fn draining(&self) {
        self.draining_since.set(unix_seconds());
    }

    /// Records the numbers of a newly installed ring.
    pub fn ring_changed(&self, topology: &Topology) {
        self.ring_members.set(gauge(topology.ring_len() as u64));
        self.ring_revision.set(gauge(topology.view.revision));
        // Prometheus stores doubles, which represent 53 bits exactly.
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

    /// Records a renewal of the lease: `ok`, `failed` or `lost`.
    pub fn lease_renewed(&self, outcome: &str) {
        self.lease_renewals.with_label_values(&[outcome]).inc();
    }

    /// Records that the lease expires so long from now.
    pub fn lease_expires(&self, left: Duration) {
        self.lease_expiry.set(unix_seconds() + left.as_secs_f64());
    }

    /// When the lease expires, in seconds since the Unix epoch; 0 if there is none.
    pub fn lease_expires_at(&self) -> f64 {
        self.lease_expiry.get()
    }

    /// Entries that are still to be sent to other members.
    pub fn handoff_waiting(&self) -> i64 {
        self.handoff_waiting.get()
    }

    /// Records that the other members took this node off the list.
    pub fn expelled(&self) {
        self.expulsions.inc();
    }

    /// Records a write of the node's key, with its reason.
    pub fn registered(&self, reason: &str) {
        self.registrations.with_label_values(&[reason]).inc();
    }

    /// Records a restart of the watch.
    pub fn watch_reconnected(&self) {
        self.watch_reconnects.inc();
    }

    /// Records that the registry was heard from now.
    pub fn registry_heard(&self) {
        self.registry_heard.set(unix_seconds());
    }

    /// Records the capacity of a store.
    pub fn store_capacity(&self, tier: &str, bytes: u64) {
        self.store_capacity
            .with_label_values(&[tier])
            .set(gauge(bytes));
    }

    /// Records a store's numbers for a group; called before each scrape.
    pub fn store_of_group(&self, group: &str, tier: &str, stats: GroupStats) {
        let labels = &[group, tier];
        self.store_items
            .with_label_values(labels)
            .set(gauge(stats.items));
        self.store_bytes
            .with_label_values(labels)
            .set(gauge(stats.bytes));
        for (counters, total) in [
            (&self.store_evictions, stats.evicted),
            (&self.store_expirations, stats.expired),
        ] {
            raise(&counters.with_label_values(labels), total);
        }
    }

    /// Open connections of a listener.
    pub fn open_connections(&self, listener: &str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    /// Records the bytes in flight, their limit, and how often something was refused; called before
    /// each scrape.
    pub fn in_flight(&self, used: u64, limit: u64, refused: u64) {
        self.in_flight.set(gauge(used));
        self.in_flight_limit.set(gauge(limit));
        raise(&self.in_flight_refusals, refused);
    }

    /// Adds a single-threaded runtime whose numbers are shown from now on.
    pub fn watch_runtime(&self, name: &str, runtime: RuntimeMetrics) {
        self.runtimes.lock().push((name.to_owned(), runtime));
    }

    fn read_runtimes(&self) {
        for (name, runtime) in self.runtimes.lock().iter() {
            let name = &[name.as_str()];
            let busy = self.runtime_busy.with_label_values(name);
            let total = runtime.worker_total_busy_duration(0).as_secs_f64();
            busy.inc_by((total - busy.get()).max(0.0));
            self.runtime_tasks
                .with_label_values(name)
                .set(gauge(runtime.num_alive_tasks() as u64));
            self.runtime_queue
                .with_label_values(name)
                .set(gauge(runtime.global_queue_depth() as u64));
        }
    }

    fn read_spans(&self) {
        for (outcome, total) in SPANS.read() {
            raise(&self.spans.with_label_values(&[outcome]), total);
        }
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if encoding fails.
    pub fn render(&self) -> Result<Vec<u8>> {
        self.read_runtimes();
        self.read_spans();
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .map_err(failed)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
