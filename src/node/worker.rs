//! The threads that serve reads: one current-thread runtime each.
//!
//! On a runtime of one thread a request is decoded, looked up and answered without a task ever
//! changing threads; measured against tokio's default runtime that is worth 29 % of the CPU of an
//! echo.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::serve::{Accepted, Served};
use crate::{
    rpc::peers::this_thread_is_worker,
    telemetry::{line, metrics::Metrics},
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Accepted connections that wait for their worker.
const WAITING_CONNECTIONS: usize = 256;
/// Gives connections to the workers in turn.
pub(super) struct Dispatcher {
    workers: Vec<mpsc::Sender<Accepted>>,
    next: AtomicUsize,
}

impl Dispatcher {
    pub(super) async fn dispatch(&self, connection: Accepted) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        // A worker that stops drops its connections; the connection closes, as it would a moment
        // later.
        let _ = self.workers[turn].send(connection).await;
    }
}

/// All workers of a node.
pub(super) struct Workers {
    senders: Vec<mpsc::Sender<Accepted>>,
    threads: Vec<(JoinHandle<()>, oneshot::Receiver<()>)>,
    /// Lets the threads end, once the connections of all are closed: a load may run on one for a
    /// caller on another.
    all_closed: CancellationToken,
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(count: usize, metrics: &Metrics, served: &Served) -> Result<Self> {
        let all_closed = CancellationToken::new();
        let mut workers = Self {
            senders: Vec::new(),
            threads: Vec::new(),
            all_closed: all_closed.clone(),
        };
        for number in 0..count {
            let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
            let (closed, when_closed) = oneshot::channel();
            let worker = Worker {
                served: served.clone(),
                all_closed: all_closed.clone(),
            };
            let thread = start_thread(number, worker, connections, closed, metrics)?;
            workers.senders.push(sender);
            workers.threads.push((thread, when_closed));
        }
        Ok(workers)
    }

    pub(super) fn dispatcher(&self) -> Dispatcher {
        Dispatcher {
            workers: self.senders.clone(),
            next: AtomicUsize::new(0),
        }
    }

    /// Returns when all threads have ended. They do so by themselves after `stop`, within the close
    /// timeout.
    pub(super) async fn finish(self) {
        drop(self.senders);
        let mut threads = Vec::new();
        for (thread, when_closed) in self.threads {
            let _ = when_closed.await;
            threads.push(thread);
        }
        self.all_closed.cancel();
        // Joining blocks, if only for the moment in which the runtimes are dropped.
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a worker thread panicked");
                }
            }
        });
        let _ = joined.await;
    }
}

/// A runtime of one thread, which is to be driven by a thread of that name.
pub(super) fn single_thread(name: &str, metrics: &Metrics) -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| not_started(name, error))?;
    metrics.runtimes.watch(name, runtime.metrics());
    Ok(runtime)
}

/// A thread could not be started.
pub(super) fn not_started(name: &str, error: std::io::Error) -> Error {
    let what = format!("could not start the thread {name}: {error}");
    Error::new(ErrorKind::Internal, what).with_source(error)
}

fn start_thread(
    number: usize,
    worker: Worker,
    connections: mpsc::Receiver<Accepted>,
    closed: oneshot::Sender<()>,
    metrics: &Metrics,
) -> Result<JoinHandle<()>> {
    let name = format!("worker-{number}");
    let runtime = single_thread(&name, metrics)?;
    let node = line::node_of_this_thread();
    std::thread::Builder::new()
        .name(format!("gaocache-{number}"))
        .spawn(move || {
            this_thread_is_worker(number);
            line::this_thread_works_for(node);
            let worker = Arc::new(worker);
            runtime.block_on(worker.run(connections, closed));
            // Loads may sit in blocking reads of files; those end by themselves.
            runtime.shutdown_background();
        })
        .map_err(|error| not_started(&name, error))
}

struct Worker {
    served: Served,
    all_closed: CancellationToken,
}

impl Worker {
    async fn run(
        self: Arc<Self>,
        mut connections: mpsc::Receiver<Accepted>,
        closed: oneshot::Sender<()>,
    ) {
        let open = TaskTracker::new();
        loop {
            let connection = tokio::select! {
                () = self.served.stop.cancelled() => break,
                connection = connections.recv() => connection,
            };
            let Some(connection) = connection else { break };
            let this = self.clone();
            open.spawn(async move { this.served.serve(connection).await });
        }
        // The connections see the stop themselves. hyper waits for their open requests without a
        // bound (hyperium/hyper#4170).
        open.close();
        if timeout(self.served.close_timeout, open.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = open.len(),
                "closed connections whose requests took longer than the shutdown timeout"
            );
        }
        let _ = closed.send(());
        self.all_closed.cancelled().await;
    }
}
