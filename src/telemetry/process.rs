//! The log and the exporter of the program's process. A program that embeds a node has its own.

use tracing::Level;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::{
    exporter::{Exporter, ExporterRules},
    line,
    log::{self, Lines, LogRules},
    output::Output,
    requests, trace,
};
use gaocache_core::error::Result;

/// Keeps what [`start`] started, until [`Telemetry::flush`].
#[must_use]
pub struct Telemetry {
    lines: Output,
    exporter: Option<Exporter>,
}

impl Telemetry {
    /// Sends the spans and writes the log lines that are left, each within a time limit. Blocks.
    pub fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.flush();
        }
        self.lines.flush();
    }
}

/// Starts the log, and the exporter of spans where there is one, for the whole process. Only the
/// first call of a process counts, so that tests may call it too.
///
/// # Errors
/// An invalid log filter, or an exporter that can't be set up; the message says what is wrong.
pub fn start(log: &LogRules, spans: Option<&ExporterRules>) -> Result<Telemetry> {
    let output = Output::of_the_process()?;
    let (lines, level) = log::layer(log, output.clone())?;
    let exporter = spans.map(Exporter::start).transpose()?;
    let layers = layers(lines, exporter.as_ref());
    if tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .is_ok()
    {
        level.becomes_that_of_the_process();
        line::allow_keys(log.keys);
        requests::log_so(&log.requests);
    }
    Ok(Telemetry {
        lines: output,
        exporter,
    })
}

/// Returns a list; `.with(spans)` would not do. A `None` there counts as a layer that is interested
/// in everything, so every callsite of every library would be evaluated each time it is reached.
/// That more than doubled the CPU time of a hit (`cargo bench --bench telemetry`).
fn layers(lines: Lines, exporter: Option<&Exporter>) -> Vec<Lines> {
    let spans = exporter.map(|exporter| {
        tracing_opentelemetry::layer()
            .with_tracer(exporter.tracer())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            // Our own spans, regardless of the log level, and none of the libraries'.
            .with_filter(Targets::new().with_target(trace::TARGET, Level::INFO))
            .boxed()
    });
    std::iter::once(lines).chain(spans).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::{
        Dispatch, Metadata,
        callsite::{Callsite, Identifier},
        field::FieldSet,
        metadata::Kind,
        subscriber::Interest,
    };

    use super::*;

    /// A callsite of some library.
    struct Unwanted;

    static UNWANTED: Metadata<'_> = Metadata::new(
        "unwanted",
        "h2",
        Level::TRACE,
        None,
        None,
        None,
        FieldSet::new(&[], Identifier(&Unwanted)),
        Kind::SPAN,
    );

    impl Callsite for Unwanted {
        fn set_interest(&self, _interest: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            &UNWANTED
        }
    }

    /// A callsite that no layer is interested in must be disabled permanently, with an exporter and
    /// without.
    #[test]
    fn trace_points_of_libraries_cost_nothing() {
        let log = LogRules {
            level: "info".into(),
            json: false,
            keys: false,
            requests: requests::RequestLog {
                logged: requests::Logged::Off,
                slow: Duration::ZERO,
                per_second: 1,
            },
        };
        let spans = ExporterRules {
            endpoint: "http://127.0.0.1:4317".into(),
            ca: None,
            service_name: "gaocache".into(),
            instance: "n".into(),
            max_queue: 2048,
            timeout: Duration::from_secs(10),
        };
        for spans in [None, Some(&spans)] {
            let output = Output::of_the_process().expect("starts");
            let (lines, _) = log::layer(&log, output).expect("a good level");
            let exporter = spans.map(|spans| Exporter::start(spans).expect("starts"));
            let layers = layers(lines, exporter.as_ref());
            let subscriber = Dispatch::new(tracing_subscriber::registry().with(layers));
            let interest = subscriber.register_callsite(&UNWANTED);
            assert!(interest.is_never(), "{spans:?}: {interest:?}");
        }
    }
}
