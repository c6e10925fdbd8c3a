//! The log: `tracing` to standard output, as text or JSON, with trace ids. Its level can be changed
//! while the process runs.

use std::{
    fmt::{self, Write},
    io::{IsTerminal, stdout},
};

use tracing::{Event, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    Layer, Registry,
    field::MakeExt,
    filter::{FilterExt, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{Format, Writer, debug_fn},
    },
    layer::Filter,
    registry::LookupSpan,
    reload,
};

use super::{filter::filter, level::LogLevel, line, output::Output, requests::RequestLog, trace};
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
    /// Which requests have a line.
    pub requests: RequestLog,
}

/// The error for a level that is set, which names the setting.
fn refused(level: &str, error: Error) -> Error {
    let shown: String = level.chars().take(64).collect();
    Error::new(
        ErrorKind::Configuration,
        format!("log.level = {shown:?}: {error}"),
    )
    .with_source(error)
}

/// Whether a level can be set.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(level: &str) -> Result<()> {
    filter(level).map(drop)
}

pub(super) type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// The layer that writes log lines, and the handle that sets its level.
///
/// # Errors
/// As [`LogLevel::set`].
pub(super) fn layer(rules: &LogRules, output: Output) -> Result<(Lines, LogLevel)> {
    let read = |level: &str| filter(level).map_err(|error| refused(level, error));
    let (shown, handle) = reload::Layer::new(read(&rules.level)?);
    // A log line has the ids of its trace. The other span fields are only in the trace.
    let shown = shown.and(filter_fn(|it: &Metadata<'_>| !it.is_span()));
    let lines = if rules.json {
        json(move || output.clone(), shown)
    } else {
        text(move || output.clone(), is_coloured(), shown)
    };
    let level = LogLevel::new(&rules.level, move |text| {
        handle
            .reload(read(text)?)
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).with_source(error))
    });
    Ok((lines, level))
}

/// Colours are for terminals whose users don't mind them (<https://no-color.org>).
fn is_coloured() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    stdout().is_terminal() && !unwanted
}

fn json<W>(writer: W, filter: impl Filter<Registry> + Send + Sync + 'static) -> Lines
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .json()
        .event_format(WithTrace(Format::default().json().flatten_event(true)))
        .with_filter(filter)
        .boxed()
}

fn text<W>(writer: W, ansi: bool, filter: impl Filter<Registry> + Send + Sync + 'static) -> Lines
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(ansi)
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .event_format(WithTrace(Format::default().with_target(false)))
        .with_filter(filter)
        .boxed()
}

/// Writes a field of a text line. Keys, groups and errors contain what clients and origins sent: a
/// line break there would forge a line, and an escape sequence may rule the reader's terminal.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    write!(Escaping(writer), "{value:?}")
}

/// Writes control characters, and those that change the direction of text, as escapes.
struct Escaping<'a, 'b>(&'a mut Writer<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, odd)) = rest.char_indices().find(|(_, it)| rules_a_terminal(*it)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", odd.escape_default())?;
            rest = &rest[at + odd.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

fn rules_a_terminal(it: char) -> bool {
    it.is_control() || matches!(it, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The value is no regular expression: with one it would match.
    #[test]
    fn values_in_a_filter_are_compared_as_text() {
        let filter = filter("off,[load{key=a.*}]=info").expect("a good filter");
        assert!(filter.to_string().contains("a.*"));
        let (writer, written) = sink();
        let lines = text(writer, false, filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info_span!("load", key = "abc").in_scope(|| tracing::info!("matched"));
        });
        assert_eq!(written(), "");
    }

    #[test]
    fn what_comes_from_outside_forges_no_line_and_rules_no_terminal() {
        let odd = "no such key '\nFORGED \r\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}é'";
        for ansi in [false, true] {
            let (writer, written) = sink();
            let lines = text(writer, ansi, LevelFilter::INFO);
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
                tracing::warn!(group = odd, error = %odd, "the message {odd}");
            });
            let line = written();
            assert_eq!(line.lines().count(), 1, "{line:?}");
            assert!(line.ends_with('\n') && line.contains('é'), "{line:?}");
            let ours = ["\u{1b}[0m", "\u{1b}[2m", "\u{1b}[33m"];
            let text = ours.iter().fold(line, |line, it| line.replace(it, ""));
            let odd = text
                .trim_end_matches('\n')
                .chars()
                .find(|it| rules_a_terminal(*it));
            assert_eq!(odd, None, "{text:?}");
        }
    }

    type Written = Box<dyn Fn() -> String>;

    /// A place to write to, and what was written there.
    fn sink() -> (impl for<'a> MakeWriter<'a> + Send + Sync + 'static, Written) {
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let read = bytes.clone();
        let written = move || String::from_utf8(read.lock().clone()).expect("text");
        (move || Sink(bytes.clone()), Box::new(written))
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
