//! The log: `tracing` to standard output, as text or JSON, with trace ids. Its level can be changed
//! while the process runs.

use std::{
    fmt,
    io::{IsTerminal, stdout},
};

use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    registry::LookupSpan,
    reload,
};

use super::{level::LogLevel, line, trace};
use gaocache_core::error::{Error, ErrorKind, Result};

/// What the log shows, and how.
#[derive(Clone, Debug)]
pub struct LogRules {
    /// A filter in the syntax of tracing's `EnvFilter`.
    pub level: String,
    /// One JSON object a line; else text for people.
    pub json: bool,
    /// Whether lines may name keys.
    pub keys: bool,
}

fn filter(text: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(text).map_err(|error| {
        let what = format!("log.level = {text:?}: {error}");
        Error::new(ErrorKind::Configuration, what).with_source(error)
    })
}

pub(super) type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// The layer that writes log lines, and the handle that sets its level.
///
/// # Errors
/// As [`LogLevel::set`].
pub(super) fn layer(rules: &LogRules) -> Result<(Lines, LogLevel)> {
    let (filter, handle) = reload::Layer::new(filter(&rules.level)?);
    // A log line has the ids of its trace. The other span fields are only in the trace.
    let filter = filter.and(filter_fn(|it: &Metadata<'_>| !it.is_span()));
    let layer = tracing_subscriber::fmt::layer().with_writer(stdout);
    let lines = if rules.json {
        layer
            .json()
            .event_format(WithTrace(Format::default().json().flatten_event(true)))
            .with_filter(filter)
            .boxed()
    } else {
        layer
            .with_ansi(stdout().is_terminal())
            .event_format(WithTrace(Format::default().with_target(false)))
            .with_filter(filter)
            .boxed()
    };
    let level = LogLevel::new(&rules.level, move |text| {
        handle
            .reload(self::filter(text)?)
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).with_source(error))
    });
    Ok((lines, level))
}

/// A format whose lines end with the ids of their trace: `trace_id` and `span_id`, as OpenTelemetry
/// specifies for logs in other formats than OTLP.
struct WithTrace<F>(F);

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (ids, node) = (trace::ids(), line::node_of_this_thread());
        if ids.is_none() && node.is_none() {
            return self.0.format_event(context, writer, event);
        }
        let mut text = String::new();
        self.0
            .format_event(context, Writer::new(&mut text), event)?;
        if let Some(node) = node {
            text = line::append(&text, &[("node", &node)]);
        }
        if let Some(ids) = ids {
            text = with_ids(&text, &ids);
        }
        writer.write_str(&text)
    }
}

fn with_ids(line: &str, (trace, span): &(String, String)) -> String {
    line::append(line, &[("trace_id", trace), ("span_id", span)])
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_level_that_is_no_filter_is_told_with_its_cause() {
        let error = filter("x=loud").expect_err("no level");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.source().is_some());
    }

    #[test]
    fn a_line_ends_with_its_trace() {
        let ids = ("t".to_owned(), "s".to_owned());
        let text = with_ids("2026-01-01 WARN {odd} text\n", &ids);
        assert_eq!(text, "2026-01-01 WARN {odd} text trace_id=t span_id=s\n");
        let json: serde_json::Value =
            serde_json::from_str(&with_ids("{\"message\":\"m\"}\n", &ids)).expect("JSON");
        assert_eq!(json["trace_id"], "t");
        assert_eq!(json["span_id"], "s");
        assert_eq!(json["message"], "m");
    }
}
