//! The metrics of the process: its runtimes, its log, and the spans that it records.

use parking_lot::Mutex;
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec, Result};
#[cfg(feature = "cli")]
use prometheus::{IntCounter, IntGauge};
use tokio::runtime::RuntimeMetrics as TokioMetrics;

use super::registrar::{Registrar, as_gauge, raise};
#[cfg(feature = "cli")]
use crate::telemetry::output;
use crate::telemetry::{names, spans::SPANS};

/// The metrics of the process.
pub struct RuntimeMetrics {
    busy: CounterVec,
    tasks: IntGaugeVec,
    queue: IntGaugeVec,
    spans: IntCounterVec,
    #[cfg(feature = "cli")]
    log_lines_dropped: IntCounter,
    #[cfg(feature = "cli")]
    reloads: IntCounterVec,
    #[cfg(feature = "cli")]
    reload_refused: IntGauge,
    /// The runtimes whose numbers are read at each scrape.
    runtimes: Mutex<Vec<(String, TokioMetrics)>>,
}

impl RuntimeMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        registrar
            .gauges(names::BUILD_INFO)?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        #[cfg(feature = "cli")]
        let reloads = registrar.counters(names::RELOADS)?;
        // From zero on, or the first one would be no increase.
        #[cfg(feature = "cli")]
        for outcome in ["changed", "unchanged", "refused"] {
            reloads.with_label_values(&[outcome]).reset();
        }
        Ok(Self {
            busy: registrar.float_counters(names::RUNTIME_BUSY)?,
            tasks: registrar.gauges(names::RUNTIME_TASKS)?,
            queue: registrar.gauges(names::RUNTIME_QUEUE)?,
            spans: registrar.counters(names::TRACE_SPANS)?,
            #[cfg(feature = "cli")]
            log_lines_dropped: registrar.counter(names::LOG_LINES_DROPPED)?,
            #[cfg(feature = "cli")]
            reloads,
            #[cfg(feature = "cli")]
            reload_refused: registrar.gauge(names::RELOAD_REFUSED)?,
            runtimes: Mutex::default(),
        })
    }

    /// Adds a single-threaded runtime whose numbers are shown from now on.
    pub fn watch(&self, name: &str, runtime: TokioMetrics) {
        self.runtimes.lock().push((name.to_owned(), runtime));
    }

    /// The settings were read again: `changed`, `unchanged` or `refused`.
    #[cfg(feature = "cli")]
    pub fn reloaded(&self, outcome: &str) {
        self.reloads.with_label_values(&[outcome]).inc();
        self.reload_refused.set(i64::from(outcome == "refused"));
    }

    /// Brings the numbers up to date; called before each scrape.
    pub(super) fn read(&self) {
        self.read_runtimes();
        self.read_spans();
    }

    fn read_runtimes(&self) {
        for (name, runtime) in self.runtimes.lock().iter() {
            let name = &[name.as_str()];
            let busy = self.busy.with_label_values(name);
            let total = runtime.worker_total_busy_duration(0).as_secs_f64();
            busy.inc_by((total - busy.get()).max(0.0));
            self.tasks
                .with_label_values(name)
                .set(as_gauge(runtime.num_alive_tasks() as u64));
            self.queue
                .with_label_values(name)
                .set(as_gauge(runtime.global_queue_depth() as u64));
        }
    }

    fn read_spans(&self) {
        for (outcome, total) in SPANS.read() {
            raise(&self.spans.with_label_values(&[outcome]), total);
        }
        #[cfg(feature = "cli")]
        raise(&self.log_lines_dropped, output::dropped());
    }
}
