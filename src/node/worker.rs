//! The threads that serve reads: one current-thread runtime each.
//!
//! On a runtime of one thread a request is decoded, looked up and answered without a task ever
//! changing threads; measured against tokio's default runtime that is worth 29 % of the CPU of an
//! echo.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use prometheus::IntGauge;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    rpc::{front::Front, peers::this_thread_is_worker},
    telemetry::metrics::Metrics,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Accepted connections that wait for their worker.
const WAITING_CONNECTIONS: usize = 256;
/// HTTP/2: how often a silent connection is tested, and how long its answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls under way on one connection; more wait at the caller.
const MAX_STREAMS: u32 = 1024;
/// Bytes of answers buffered for one call.
const SEND_BUFFER: usize = 1 << 20;
/// Bound on the head of an HTTP/1 request: who sends it byte by byte is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection and what is spoken on it. The socket is of the standard library: one of tokio would
/// stay with the reactor of the acceptor, whose thread would then be woken for every request.
pub(super) enum Connection {
    Grpc(TcpStream),
    Http(TcpStream),
}

/// Gives connections to the workers in turn.
pub(super) struct Dispatcher {
    workers: Vec<mpsc::Sender<Connection>>,
    next: AtomicUsize,
}

impl Dispatcher {
    pub(super) async fn dispatch(&self, connection: Connection) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len();
        // A worker that stops drops its connections; the connection closes, as it would a moment
        // later.
        let _ = self.workers[turn].send(connection).await;
    }
}

/// All workers of a node.
pub(super) struct Workers {
    senders: Vec<mpsc::Sender<Connection>>,
    threads: Vec<(JoinHandle<()>, oneshot::Receiver<()>)>,
    /// Lets the threads end, once the connections of all are closed: a load may run on one for a
    /// caller on another.
    all_closed: CancellationToken,
}

impl Workers {
    /// Starts the threads; `listeners` makes what each serves.
    pub(super) fn start(
        count: usize,
        metrics: &Metrics,
        close_timeout: Duration,
        stop: &CancellationToken,
        listeners: impl Fn() -> (Front, axum::Router),
    ) -> Result<Self> {
        let all_closed = CancellationToken::new();
        let mut workers = Self {
            senders: Vec::new(),
            threads: Vec::new(),
            all_closed: all_closed.clone(),
        };
        for number in 0..count {
            let (sender, connections) = mpsc::channel(WAITING_CONNECTIONS);
            let (closed, when_closed) = oneshot::channel();
            let (front, router) = listeners();
            let worker = Worker {
                front,
                router,
                grpc_connections: metrics.connections.with_label_values(&["grpc"]),
                http_connections: metrics.connections.with_label_values(&["http"]),
                close_timeout,
                stop: stop.clone(),
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

fn start_thread(
    number: usize,
    worker: Worker,
    connections: mpsc::Receiver<Connection>,
    closed: oneshot::Sender<()>,
    metrics: &Metrics,
) -> Result<JoinHandle<()>> {
    let failed = |error: std::io::Error| {
        let what = format!("could not start worker {number}: {error}");
        Error::new(ErrorKind::Internal, what).with_source(error)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    metrics.watch_runtime(&format!("worker-{number}"), runtime.metrics());
    std::thread::Builder::new()
        .name(format!("gaocache-{number}"))
        .spawn(move || {
            this_thread_is_worker(number);
            let worker = Arc::new(worker);
            runtime.block_on(worker.run(connections, closed));
            // Loads may sit in blocking reads of files; those end by themselves.
            runtime.shutdown_background();
        })
        .map_err(failed)
}

struct Worker {
    front: Front,
    router: axum::Router,
    grpc_connections: IntGauge,
    http_connections: IntGauge,
    close_timeout: Duration,
    stop: CancellationToken,
    all_closed: CancellationToken,
}

impl Worker {
    async fn run(
        self: Arc<Self>,
        mut connections: mpsc::Receiver<Connection>,
        closed: oneshot::Sender<()>,
    ) {
        let graceful = GracefulShutdown::new();
        loop {
            let connection = tokio::select! {
                () = self.stop.cancelled() => break,
                connection = connections.recv() => connection,
            };
            let Some(connection) = connection else { break };
            tokio::spawn(self.clone().serve(connection, graceful.watcher()));
        }
        // GOAWAY to all, then their open requests. hyper waits for those without a bound
        // (hyperium/hyper#4170).
        let open = graceful.count();
        if tokio::time::timeout(self.close_timeout, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!(
                open,
                "closed connections whose requests took longer than node.shutdown_timeout_seconds"
            );
        }
        let _ = closed.send(());
        self.all_closed.cancelled().await;
    }

    async fn serve(self: Arc<Self>, connection: Connection, watcher: Watcher) {
        let (connections, result) = match connection {
            Connection::Grpc(stream) => {
                let counted = Counted::new(&self.grpc_connections);
                (counted, self.serve_grpc(stream, watcher).await)
            }
            Connection::Http(stream) => {
                let counted = Counted::new(&self.http_connections);
                (counted, self.serve_http(stream, watcher).await)
            }
        };
        drop(connections);
        if let Err(error) = result {
            // Clients hang up all the time; who looks for a reason can have it.
            tracing::debug!(%error, "a connection ended with an error");
        }
    }

    async fn serve_grpc(&self, stream: TcpStream, watcher: Watcher) -> Result<(), String> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            .auto_date_header(false);
        let stream = here(stream)?;
        let connection = builder.serve_connection(TokioIo::new(stream), self.front.clone());
        watcher
            .watch(connection)
            .await
            .map_err(|error| error.to_string())
    }

    async fn serve_http(&self, stream: TcpStream, watcher: Watcher) -> Result<(), String> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let service = TowerToHyperService::new(self.router.clone());
        let connection = builder.serve_connection(TokioIo::new(here(stream)?), service);
        watcher
            .watch(connection)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Registers the socket with this thread's runtime, which is to poll it.
fn here(stream: TcpStream) -> Result<tokio::net::TcpStream, String> {
    tokio::net::TcpStream::from_std(stream).map_err(|error| error.to_string())
}

/// One up while it lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
