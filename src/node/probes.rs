//! The admin listener: a thread, a runtime and limits of its own, so that probes and metrics answer
//! however busy the rest is, and no client of theirs can hold up the lease.

use std::{net::TcpListener, sync::Arc, thread::JoinHandle, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admission::ADMIN,
    connection::Carrier,
    handshake::Begun,
    listeners::{ACCEPT_PAUSE, registered},
    worker::{not_started, single_thread},
};
use crate::{
    admin::{self, Admin},
    http::ConnectedRouter,
    settings::ClientLimits,
    telemetry::{metrics::Metrics, throttle::Throttle},
    tls::ListenerTls,
    traffic::Budget,
};
use gaocache_core::error::Result;

/// Bound on closing: a scraper that keeps its connection open must not keep the node alive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes in flight. They don't count with those of clients, who could then shut out the probes.
const IN_FLIGHT: u64 = 16 << 20;
/// For the head of a request, and between two of one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The thread of the admin listener.
pub(super) struct Probes(Option<JoinHandle<()>>);

impl Probes {
    /// Serves until `stop`; nothing, if there is no such listener.
    pub(super) fn start(
        listener: Option<TcpListener>,
        tls: Option<ListenerTls>,
        admin: Admin,
        limits: &ClientLimits,
        metrics: &Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let Some(listener) = listener else {
            return Ok(Self(None));
        };
        let runtime = single_thread(ADMIN, metrics)?;
        let limits = ClientLimits {
            handshake_timeout: HEAD_TIMEOUT,
            ..*limits
        };
        let server = Server {
            tls,
            router: admin::router(admin),
            carrier: Carrier::new(Budget::new(IN_FLIGHT), &limits, metrics.clone()),
            places: Arc::new(Semaphore::new(limits.max_admin_connections)),
            metrics: metrics.clone(),
            throttle: Throttle::default(),
            stop,
        };
        let thread = std::thread::Builder::new()
            .name("gaocache-admin".into())
            .spawn(move || {
                if let Err(error) = runtime.block_on(Arc::new(server).run(listener)) {
                    tracing::error!(%error, "the admin listener failed");
                }
            })
            .map_err(|error| not_started(ADMIN, error))?;
        Ok(Self(Some(thread)))
    }

    /// Returns when the thread has ended. It does so by itself after `stop`.
    pub(super) async fn ended(self) {
        let Some(thread) = self.0 else { return };
        let joined = tokio::task::spawn_blocking(move || {
            if thread.join().is_err() {
                tracing::error!("the admin thread panicked");
            }
        });
        let _ = joined.await;
    }
}

struct Server {
    tls: Option<ListenerTls>,
    router: axum::Router,
    carrier: Carrier,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    throttle: Throttle,
    stop: CancellationToken,
}

impl Server {
    async fn run(self: Arc<Self>, listener: TcpListener) -> Result<()> {
        let listener = registered(listener)?;
        let open = TaskTracker::new();
        while let Some(accepted) = self.stop.run_until_cancelled(self.accept(&listener)).await {
            if let Some((stream, place)) = accepted {
                let this = self.clone();
                open.spawn(async move {
                    this.serve(stream).await;
                    drop(place);
                });
            }
        }
        open.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, open.wait()).await;
        Ok(())
    }

    /// The next connection, once there is a place for it. Those before it are short.
    async fn accept(
        &self,
        listener: &tokio::net::TcpListener,
    ) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let place = self.places.clone().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, _)) => Some((stream, place)),
            Err(error) => {
                if let Some(suppressed) = self.throttle.due("failed") {
                    tracing::warn!(
                        %error, listener = ADMIN, suppressed, "could not accept a connection"
                    );
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        let open = self.metrics.connections.open(ADMIN);
        open.inc();
        let _ = stream.set_nodelay(true);
        let begun = self
            .carrier
            .begin(ADMIN, self.tls.as_ref(), stream, None, &self.stop);
        if let Some(begun) = begun.await {
            self.serve_begun(begun).await;
        }
        open.dec();
    }

    async fn serve_begun(&self, (stream, names): Begun) {
        let traffic = self.carrier.traffic();
        let socket = TokioIo::new(self.carrier.socket(stream, traffic.clone()));
        let service = ConnectedRouter::new(self.router.clone(), names, traffic.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(socket, service);
        let carrier = &self.carrier;
        let shut_down = GracefulConnection::graceful_shutdown;
        carrier
            .carry(ADMIN, connection, shut_down, &traffic, &self.stop)
            .await;
    }
}
