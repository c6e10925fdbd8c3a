//! What a running node tells of itself: metrics, logs and traces.

pub mod exporter;
pub mod log;
pub mod metrics;
pub mod names;
pub mod throttle;
pub mod trace;

use tracing::Level;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{LogSettings, TraceSettings};
use exporter::Exporter;

/// What [`start`] started; [`Telemetry::flush`] ends it.
#[must_use]
pub struct Telemetry {
    exporter: Option<Exporter>,
}

impl Telemetry {
    /// Sends the spans that are left, within [`exporter::FLUSH_TIMEOUT`]. Blocks.
    pub fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.flush();
        }
    }
}

/// Starts the log, and the exporter of spans where there is one, for the whole process. `instance` tells this process from others. Only
/// the first call of a process counts, so that tests may call it too.
///
/// # Errors
/// A level that is no filter, or an exporter that can't work; the message says what is wrong.
pub fn start(
    log: &LogSettings,
    trace: &TraceSettings,
    instance: &str,
) -> Result<Telemetry, String> {
    let (lines, level) = log::layer(log)?;
    let exporter = trace
        .is_on()
        .then(|| Exporter::start(trace, instance))
        .transpose()?;
    let spans = exporter.as_ref().map(|exporter| {
        tracing_opentelemetry::layer()
            .with_tracer(exporter.tracer())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            // Our own spans whatever the log's level, and none of a library's.
            .with_filter(Targets::new().with_target(trace::TARGET, Level::INFO))
    });
    let subscriber = tracing_subscriber::registry().with(lines).with(spans);
    if subscriber.try_init().is_ok() {
        level.becomes_the_process_s();
    }
    Ok(Telemetry { exporter })
}
