//! A word to a person who waits, so that a command that takes long doesn't look like one that
//! hangs.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use super::output::tell;

/// How long a wait needs no explanation.
const UNNOTICED: Duration = Duration::from_secs(2);

/// Does the work; on a terminal, says what it waits for if that takes long.
pub(super) async fn patiently<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(UNNOTICED), if stderr().is_terminal() => {}
    }
    tell(&format!(
        "gaocache: still waiting for {what}; Ctrl-C gives up"
    ));
    work.await
}
