//! The log of requests: a sample of the gets of clients, each a line. Off, it costs a get one load
//! of a byte.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::line;
use gaocache_core::{
    error::{Error, ErrorKind},
    group::{Answer, Source},
};

/// Which gets have a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Deserialize))]
#[cfg_attr(feature = "cli", serde(rename_all = "lowercase"))]
#[cfg_attr(not(feature = "cli"), allow(dead_code))]
pub enum Logged {
    /// None.
    Off,
    /// Those that failed. A missing key is not a failure.
    Errors,
    /// Those that failed, and those that took long.
    Slow,
    /// All.
    All,
}

/// What the log shows of requests.
#[cfg(feature = "cli")]
#[derive(Clone, Copy, Debug)]
pub struct RequestLog {
    /// Which.
    pub logged: Logged,
    /// Gets that take at least this long are slow.
    pub slow: Duration,
    /// Lines a second; what is over is counted.
    pub per_second: u64,
}

static LOGGED: AtomicU8 = AtomicU8::new(Logged::Off as u8);
static SLOW_NANOS: AtomicU64 = AtomicU64::new(0);
static PER_SECOND: AtomicU64 = AtomicU64::new(0);
static WINDOW: Mutex<Option<Window>> = Mutex::new(None);

/// The lines of one second.
struct Window {
    began: Instant,
    lines: u64,
    suppressed: u64,
}

/// From now on, the process logs so.
#[cfg(feature = "cli")]
pub(crate) fn log_so(rules: &RequestLog) {
    let slow = u64::try_from(rules.slow.as_nanos()).unwrap_or(u64::MAX);
    SLOW_NANOS.store(slow, Ordering::Relaxed);
    PER_SECOND.store(rules.per_second, Ordering::Relaxed);
    LOGGED.store(rules.logged as u8, Ordering::Relaxed);
}

/// Whether any gets are logged.
pub(crate) fn is_on() -> bool {
    LOGGED.load(Ordering::Relaxed) != Logged::Off as u8
}

/// Logs a get, if it is to be logged.
pub(crate) fn log(group: &str, key: &str, took: Duration, answer: &Result<Answer, Error>) {
    let logged = LOGGED.load(Ordering::Relaxed);
    if logged != Logged::Off as u8 {
        log_some(logged, (group, key), took, answer);
    }
}

#[cold]
fn log_some(
    logged: u8,
    (group, key): (&str, &str),
    took: Duration,
    answer: &Result<Answer, Error>,
) {
    let failed = answer
        .as_ref()
        .is_err_and(|error| error.kind() != ErrorKind::NotFound);
    let slow = took.as_nanos() >= u128::from(SLOW_NANOS.load(Ordering::Relaxed));
    let wanted = failed || logged == Logged::All as u8 || (logged == Logged::Slow as u8 && slow);
    if !wanted {
        return;
    }
    let Some(suppressed) = due() else { return };
    // The name may be a client's invention.
    let group: String = group.chars().take(64).collect();
    let outcome = match answer {
        Ok(answer) => answer.source.name(),
        Err(error) => error.kind().name(),
    };
    // Who answered instead of this node.
    let peer = answer.as_ref().ok().filter(|it| it.source != Source::Hit);
    tracing::info!(
        group,
        outcome,
        // In whole microseconds: the rest would only be digits.
        milliseconds = took.as_micros() as f64 / 1000.0,
        peer = peer.map(|it| &*it.owner),
        key = line::key(key),
        error = answer.as_ref().err().map(tracing::field::display),
        suppressed,
        "request"
    );
}

/// How many lines were suppressed since the last one, if one is due.
fn due() -> Option<u64> {
    let now = Instant::now();
    let mut window = WINDOW.lock();
    let window = window.get_or_insert(Window {
        began: now,
        lines: 0,
        suppressed: 0,
    });
    if now.duration_since(window.began) >= Duration::from_secs(1) {
        window.began = now;
        window.lines = 0;
    }
    if window.lines >= PER_SECOND.load(Ordering::Relaxed) {
        window.suppressed += 1;
        return None;
    }
    window.lines += 1;
    Some(std::mem::take(&mut window.suppressed))
}
