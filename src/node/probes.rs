//! The admin listener and the admin socket: a thread, a runtime and limits of its own, so that
//! probes and metrics answer however busy the rest is, and no client of theirs can hold up the
//! lease.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::Either;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    admission::ADMIN,
    connection::Carrier,
    handshake::Begun,
    listeners::{ACCEPT_PAUSE, registered},
    local::LocalListener,
    places::{Place, Places},
    rules,
    worker::{not_started, single_thread},
};
use crate::{
    admin::{self, Admin},
    auth::{Entry, Hosts},
    http::ConnectedRouter,
    rpc::{
        front::{ConnectedFront, Front},
        routed::FrontBody,
    },
    settings::ClientLimits,
    telemetry::{metrics::Metrics, throttle::Throttle},
    tls::{ClientNames, ServerTls, Stream, Trust},
    traffic::{Budget, Cut, Outgoing, Traffic},
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Bound on closing: a scraper that keeps its connection open must not keep the node alive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes in flight. They don't count with those of clients, who could then shut out the probes.
const IN_FLIGHT: u64 = 16 << 20;
/// For the head of a request, and between two of one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The thread of the admin listener and the admin socket.
pub(super) struct Probes(Option<JoinHandle<()>>);

/// Where operators come in, and what they find there beside the paths of the admin listener.
pub(super) struct Doors {
    pub(super) listener: Option<TcpListener>,
    /// Of the listener.
    pub(super) tls: Option<ServerTls>,
    pub(super) socket: Option<LocalListener>,
    /// The clients' calls, at the socket.
    pub(super) front: Front,
    pub(super) hosts: Arc<Hosts>,
}

impl Probes {
    /// Serves until `stop`; nothing, if there is neither listener nor socket.
    pub(super) fn start(
        doors: Doors,
        admin: Admin,
        limits: &ClientLimits,
        metrics: &Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let Doors {
            listener,
            tls,
            socket,
            front,
            hosts,
        } = doors;
        if listener.is_none() && socket.is_none() {
            return Ok(Self(None));
        }
        let runtime = single_thread(ADMIN, metrics)?;
        let limits = ClientLimits {
            handshake_timeout: HEAD_TIMEOUT,
            ..*limits
        };
        let budget = Budget::new(IN_FLIGHT);
        let quotas = rules::quotas(&limits, &budget, metrics);
        let server = Server {
            tls,
            router: admin::router(admin),
            front,
            hosts,
            carrier: Carrier::new(budget, quotas, &limits, metrics.clone()),
            places: Places::new(&limits, metrics.clone()),
            throttle: Throttle::default(),
            stop,
        };
        let thread = std::thread::Builder::new()
            .name("gaocache-admin".into())
            .spawn(move || {
                let served = runtime.block_on(Arc::new(server).run(listener, socket));
                if let Err(error) = served {
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
    tls: Option<ServerTls>,
    router: axum::Router,
    front: Front,
    hosts: Arc<Hosts>,
    carrier: Carrier,
    places: Arc<Places>,
    throttle: Throttle,
    stop: CancellationToken,
}

impl Server {
    async fn run(
        self: Arc<Self>,
        listener: Option<TcpListener>,
        socket: Option<LocalListener>,
    ) -> Result<()> {
        let open = TaskTracker::new();
        let network = async {
            match listener {
                Some(listener) => self.accept_all(&registered(listener)?, &open).await,
                None => Ok(()),
            }
        };
        let local = async {
            match socket {
                Some(socket) => self.accept_local(socket, &open).await,
                None => Ok(()),
            }
        };
        tokio::try_join!(network, local)?;
        open.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, open.wait()).await;
        Ok(())
    }

    async fn accept_all(
        self: &Arc<Self>,
        listener: &tokio::net::TcpListener,
        open: &TaskTracker,
    ) -> Result<()> {
        while let Some(accepted) = self.stop.run_until_cancelled(self.accept(listener)).await {
            if let Some((stream, from, traffic, place)) = accepted {
                let this = self.clone();
                open.spawn(async move {
                    let displaced = place.displaced().clone();
                    let served = this.serve(stream, from, traffic);
                    if displaced.run_until_cancelled(served).await.is_none() {
                        this.carrier.cut(ADMIN, Cut::Displaced);
                    }
                    drop(place);
                });
            }
        }
        Ok(())
    }

    /// Connections of the socket have no limit: anyone who can open it may do everything.
    async fn accept_local(
        self: &Arc<Self>,
        socket: LocalListener,
        open: &TaskTracker,
    ) -> Result<()> {
        let (listener, _file) = socket.into_parts();
        let listener = tokio::net::UnixListener::from_std(listener).map_err(|error| {
            let what = format!("could not listen on the admin socket: {error}");
            Error::new(ErrorKind::Internal, what).with_source(error)
        })?;
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let this = self.clone();
                    open.spawn(async move { this.serve_local(stream).await });
                }
                Err(error) => self.failed(&error).await,
            }
        }
        Ok(())
    }

    /// The next connection, once there is a place for it.
    async fn accept(
        &self,
        listener: &tokio::net::TcpListener,
    ) -> Option<(TcpStream, SocketAddr, Arc<Traffic>, Place)> {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                self.failed(&error).await;
                return None;
            }
        };
        let traffic = self.carrier.traffic_from(from);
        let place = self.places.take(from, traffic.clone()).await?;
        Some((stream, from, traffic, place))
    }

    async fn failed(&self, error: &std::io::Error) {
        if let Some(suppressed) = self.throttle.due("failed") {
            tracing::warn!(%error, listener = ADMIN, suppressed, "could not accept a connection");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    async fn serve(&self, stream: TcpStream, from: SocketAddr, traffic: Arc<Traffic>) {
        let _ = stream.set_nodelay(true);
        let begun = self
            .carrier
            .begin(ADMIN, self.tls.as_ref(), stream, None, &self.stop);
        if let Some(begun) = begun.await {
            self.serve_begun(from, begun, traffic).await;
        }
    }

    async fn serve_begun(
        &self,
        from: SocketAddr,
        (stream, names, trust): Begun,
        traffic: Arc<Traffic>,
    ) {
        let socket = TokioIo::new(self.carrier.socket(stream, traffic.clone()));
        let service = self.router(Entry::Network(from), names, &traffic);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(socket, service);
        let carrier = &self.carrier;
        let shut_down = GracefulConnection::graceful_shutdown;
        carrier
            .carry(ADMIN, connection, shut_down, &traffic, &self.stop, trust)
            .await;
    }

    async fn serve_local(&self, stream: UnixStream) {
        let uid = stream.peer_cred().ok().map(|it| it.uid());
        let entry = Entry::Socket { uid };
        let traffic = self.carrier.traffic();
        let socket = TokioIo::new(self.carrier.socket(Stream::Local(stream), traffic.clone()));
        let service = Both {
            calls: self.front.over(None, traffic.clone(), entry),
            paths: self.router(entry, None, &traffic),
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        let connection = builder.serve_connection(socket, service);
        let carrier = &self.carrier;
        let shut_down = GracefulConnection::graceful_shutdown;
        let trust = Trust::UNPROVEN;
        carrier
            .carry(ADMIN, connection, shut_down, &traffic, &self.stop, trust)
            .await;
    }

    fn router(
        &self,
        entry: Entry,
        names: Option<ClientNames>,
        traffic: &Arc<Traffic>,
    ) -> ConnectedRouter {
        let (router, hosts) = (self.router.clone(), self.hosts.clone());
        ConnectedRouter::new(router, names, traffic.clone(), entry, hosts)
    }
}

/// The clients' calls over gRPC, and the paths of the admin listener.
struct Both {
    calls: ConnectedFront,
    paths: ConnectedRouter,
}

impl hyper::service::Service<Request<Incoming>> for Both {
    type Response = Response<EitherBody>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_grpc = request.headers().get(CONTENT_TYPE);
        let is_grpc = is_grpc.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            let answer = self.calls.call(request);
            Box::pin(async { Ok(answer.await?.map(Either::Left)) })
        } else {
            let answer = self.paths.call(request);
            Box::pin(async { Ok(answer.await?.map(Either::Right)) })
        }
    }
}

type EitherBody = Either<FrontBody, Outgoing<axum::body::Body>>;
