//! Who changed what, and who was refused, as JSON lines on a stream of their own.
//!
//! It must never hold up a call: lines that the stream doesn't take are dropped and counted. A
//! flood of refused calls must not fill a disk, so only so many of them have a line.

use std::{io::Write, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::IntCounter;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use super::{audit_file::AuditFile, call::Call, caller::Entry, rules::AuditTo, who::Who};
use crate::telemetry::line_writer::LineWriter;
use gaocache_core::error::{ErrorKind, Result};

/// Lines that wait to be written.
const MAX_WAITING: usize = 1_024;
/// Lines about refused calls, per second.
const MAX_REFUSALS_PER_SECOND: u32 = 100;
/// The most bytes of a key, or of another word of a caller's, in a line.
const MAX_WORD: usize = 1_024;

/// Takes lines, and never waits.
pub(super) struct Audit {
    sink: Option<Sink>,
    dropped: IntCounter,
}

struct Sink {
    node: Arc<str>,
    lines: LineWriter,
    /// When the second began, and how many lines about refusals it has.
    refusals: Mutex<(Instant, u32)>,
}

/// How a call ended.
pub(super) enum Outcome<'a> {
    Ok,
    Failed(ErrorKind),
    /// It did not begin.
    Refused(&'a str),
    /// A token that a client logged in with doesn't count.
    RefusedLogin,
}

impl Audit {
    /// Lines of this node.
    ///
    /// # Errors
    /// A file that can't be written to, or a thread that can't be started.
    pub(super) fn start(to: &AuditTo, node: &str, dropped: IntCounter) -> Result<Self> {
        let out: Box<dyn Write + Send> = match to {
            AuditTo::Off => {
                return Ok(Self {
                    sink: None,
                    dropped,
                });
            }
            AuditTo::Stdout => Box::new(std::io::stdout()),
            AuditTo::Stderr => Box::new(std::io::stderr()),
            AuditTo::File(path) => Box::new(AuditFile::open(path)?),
        };
        let lost = dropped.clone();
        let lines = LineWriter::start("gaocache-audit", MAX_WAITING, out, move || lost.inc())?;
        Ok(Self {
            sink: Some(Sink::new(node, lines)),
            dropped,
        })
    }

    /// Whether anybody reads it.
    pub(super) fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Tells of a call.
    pub(super) fn tell(&self, entry: Entry, who: &Who, call: &Call<'_>, outcome: &Outcome<'_>) {
        let Some(sink) = &self.sink else { return };
        let is_refused = matches!(outcome, Outcome::Refused(_) | Outcome::RefusedLogin);
        let is_due = !is_refused || sink.has_room_for_a_refusal();
        if is_due {
            let line = line(&sink.node, entry, who, call, outcome);
            sink.lines.send(line.into_bytes());
        } else {
            self.dropped.inc();
        }
    }

    /// Returns when all lines are written, or the time for it is over.
    pub(super) async fn flush(&self) {
        let Some(sink) = &self.sink else { return };
        let lines = sink.lines.clone();
        let _ = tokio::task::spawn_blocking(move || lines.flush()).await;
    }
}

impl Sink {
    fn new(node: &str, lines: LineWriter) -> Self {
        Self {
            node: node.into(),
            lines,
            refusals: Mutex::new((Instant::now(), 0)),
        }
    }

    fn has_room_for_a_refusal(&self) -> bool {
        let mut refusals = self.refusals.lock();
        if refusals.0.elapsed() >= Duration::from_secs(1) {
            *refusals = (Instant::now(), 0);
        }
        refusals.1 += 1;
        refusals.1 <= MAX_REFUSALS_PER_SECOND
    }
}

fn line(node: &str, entry: Entry, who: &Who, call: &Call<'_>, outcome: &Outcome<'_>) -> String {
    let time = OffsetDateTime::now_utc().format(&Rfc3339);
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| drop(line.insert(name.to_owned(), value));
    put("audit", call.name.into());
    put("time", time.unwrap_or_default().into());
    put("node", node.into());
    put("who", who_as_json(who));
    match entry {
        Entry::Network(from) => put("from", from.to_string().into()),
        Entry::Socket { uid } => {
            put("from", "socket".into());
            put("uid", json!(uid));
        }
        Entry::Process(what) => put("from", what.into()),
    }
    if !call.group.is_empty() {
        put("group", cut(call.group).into());
    }
    if let Some((name, value)) = call.detail {
        put(name, cut(value).into());
    }
    match outcome {
        Outcome::Ok => put("outcome", "ok".into()),
        Outcome::Failed(kind) => put("outcome", kind.name().into()),
        Outcome::Refused(reason) => {
            put("outcome", "refused".into());
            put("reason", (*reason).into());
            put("role", call.action.name().into());
        }
        Outcome::RefusedLogin => {
            put("outcome", "refused".into());
            put("reason", "unauthenticated".into());
        }
    }
    let mut line = escaped(&Value::Object(line).to_string());
    line.push('\n');
    line
}

fn who_as_json(who: &Who) -> Value {
    match who {
        Who::Nobody => json!({ "kind": "anonymous" }),
        Who::Socket => json!({ "kind": "socket" }),
        Who::Operator => json!({ "kind": "operator" }),
        Who::Token(name) => json!({ "kind": "token", "name": cut(name) }),
        Who::Certificate(name) => json!({ "kind": "certificate", "name": cut(name) }),
        Who::Subject(name) => json!({ "kind": "jwt", "name": cut(name) }),
    }
}

/// The beginning of a word that a caller chose.
fn cut(word: &str) -> String {
    if word.len() <= MAX_WORD {
        return word.to_owned();
    }
    let end = (0..=MAX_WORD).rev().find(|at| word.is_char_boundary(*at));
    format!("{}…", &word[..end.unwrap_or(0)])
}

/// JSON escapes what ends a line. What else may rule a terminal, or turn a line around, has escapes
/// too.
fn escaped(json: &str) -> String {
    let odd = |it: char| {
        it.is_control() || matches!(it, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(json.len() + 1);
    for it in json.chars() {
        if odd(it) {
            out.push_str(&format!("\\u{:04x}", u32::from(it)));
        } else {
            out.push(it);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Action, telemetry::line_writer::QueuedLines};

    fn call(key: &str) -> Call<'_> {
        Call {
            action: Action::Remove,
            name: "remove",
            group: "users",
            detail: Some(("key", key)),
        }
    }

    /// An audit whose lines stay in the queue, which has room for so many.
    fn queue(room: usize) -> (Audit, QueuedLines, IntCounter) {
        let dropped = IntCounter::new("dropped", "lines").expect("a counter");
        let lost = dropped.clone();
        let (lines, waiting) = LineWriter::new(room, move || lost.inc());
        let audit = Audit {
            sink: Some(Sink::new("n", lines)),
            dropped: dropped.clone(),
        };
        (audit, waiting, dropped)
    }

    #[test]
    fn a_key_forges_no_line_and_is_cut() {
        let entry = Entry::Socket { uid: Some(0) };
        let of = |key: &str| line("n", entry, &Who::Socket, &call(key), &Outcome::Ok);
        let odd = "a\n{\"audit\":\"x\"}\u{1b}[2J\u{9b}\u{202e}";
        let line = of(odd);
        assert_eq!(line.lines().count(), 1, "{line:?}");
        let rules = |it: char| it.is_control() || it == '\u{202e}';
        assert!(!line.trim_end().chars().any(rules), "{line:?}");
        let read: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&read["key"], &read["who"]["kind"]),
            (&json!(odd), &json!("socket"))
        );
        let long = of(&"é".repeat(MAX_WORD));
        assert!(long.len() < 2 * MAX_WORD, "{}", long.len());
    }

    #[test]
    fn a_stream_that_nobody_reads_holds_up_nothing_and_what_is_dropped_is_counted() {
        let (audit, _unread, dropped) = queue(2);
        let entry = Entry::Socket { uid: None };
        for _ in 0..10 {
            audit.tell(entry, &Who::Nobody, &call("k"), &Outcome::Ok);
        }
        assert_eq!(dropped.get(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refused_calls_has_only_so_many_lines() {
        let (audit, written, dropped) = queue(MAX_WAITING);
        let entry = Entry::Socket { uid: None };
        for _ in 0..MAX_REFUSALS_PER_SECOND + 50 {
            let refused = Outcome::Refused("denied");
            audit.tell(entry, &Who::Nobody, &call("k"), &refused);
        }
        audit.tell(entry, &Who::Nobody, &call("k"), &Outcome::Ok);
        let lines = written.take();
        assert_eq!(lines, MAX_REFUSALS_PER_SECOND as usize + 1);
        assert_eq!(dropped.get(), 50);
        tokio::time::advance(Duration::from_secs(1)).await;
        let refused = Outcome::Refused("denied");
        audit.tell(entry, &Who::Nobody, &call("k"), &refused);
        assert_eq!(written.take(), 1, "the next second has its own");
    }
}
