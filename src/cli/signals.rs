//! Signals that a person or Kubernetes sends.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::Instant,
};

use super::failure::Failure;

/// What SIGHUP does.
pub(super) enum Hangup {
    /// It ends the command: the terminal is gone.
    Stops,
    /// It is passed on. It must not kill a node that others count on.
    Tells(mpsc::Sender<()>),
}

/// Signals within this time count as one: a supervisor may send several at once (to the process and
/// to its group, say), and only a further one means that the drain is not to be waited for.
const TOGETHER: Duration = Duration::from_secs(1);

/// How many times the command was asked to stop.
#[derive(Clone)]
pub(super) struct Signals(watch::Receiver<usize>);

impl Signals {
    /// Listens from now on for SIGTERM, SIGINT and SIGHUP.
    pub(super) fn listen(hangup: Hangup) -> Result<Self, Failure> {
        let mut terminate = watch(SignalKind::terminate())?;
        let mut interrupt = watch(SignalKind::interrupt())?;
        let mut hung_up = watch(SignalKind::hangup())?;
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            let mut last: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hung_up.recv() => if let Hangup::Tells(tell) = &hangup {
                        // One that waits already is as good.
                        let _ = tell.try_send(());
                        continue;
                    },
                }
                let now = Instant::now();
                if last.is_none_or(|last| now - last >= TOGETHER) {
                    last = Some(now);
                    count.send_modify(|count| *count += 1);
                }
            }
        });
        Ok(Self(counted))
    }

    /// Resolves when the command was asked to stop this many times.
    pub(super) async fn received(mut self, times: usize) {
        if self.0.wait_for(|count| *count >= times).await.is_err() {
            // No signal can arrive any more.
            std::future::pending::<()>().await;
        }
    }
}

fn watch(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::Failed(format!("could not install the signal handler: {error}")))
}
