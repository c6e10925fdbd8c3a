//! How the connection of each listener is served, by the thread of a worker.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Listener, Permit},
    at_once::AtOnce,
    connection::Carrier,
    handshake::Begun,
    tls::ListenersTls,
};
use crate::{
    auth::{Entry, Hosts},
    http::Front as HttpFront,
    redis,
    rpc::{front::Front, peer_front::PeerFront, routed::FrontBody},
    tls::{ClientNames, PeerTls, Stream, Trust},
    traffic::{Cut, Traffic},
};

/// HTTP/2: how often a silent connection is tested, and how long its answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls under way on one connection; more wait at the caller.
const MAX_STREAMS: u32 = 1024;
/// Calls that another node has dropped before this one began them, on one connection. A node that
/// was paused for a moment finds many peeks whose short time was over. h2 treats twenty as an
/// attack (CVE-2023-44487) and closes the connection, with all that is under way on it. Each costs
/// about a kilobyte until it is skipped.
const DROPPED_BY_PEERS: usize = 8 * MAX_STREAMS as usize;
/// Bytes of answers buffered for one call. A client has to take them within the write time limit,
/// since progress beyond them is not seen.
const SEND_BUFFER: usize = 256 << 10;

/// A connection that was accepted. The socket is of the standard library: one of tokio would stay
/// with the reactor of the acceptor, whose thread would then be woken for every request.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) from: SocketAddr,
    pub(super) listener: Listener,
    pub(super) permit: Permit,
}

/// What a worker serves, until `stop`, and for how long after it.
#[derive(Clone)]
pub(super) struct Served {
    /// The hosts that the HTTP listener answers for.
    pub(super) hosts: Arc<Hosts>,
    pub(super) front: Front,
    pub(super) peer_front: PeerFront,
    /// How this node and others know each other.
    pub(super) peer_tls: PeerTls,
    /// TLS of the listeners for clients.
    pub(super) tls: ListenersTls,
    pub(super) http: HttpFront,
    pub(super) redis: redis::Front,
    pub(super) carrier: Carrier,
    pub(super) close_timeout: Duration,
    pub(super) stop: CancellationToken,
}

impl Served {
    /// Serves a connection until it closes, or until the node stops and its requests have ended.
    pub(super) async fn serve(&self, accepted: Accepted) {
        let Accepted {
            stream,
            from,
            listener,
            permit,
        } = accepted;
        let stream = match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was lost before it was served");
                return;
            }
        };
        let permit = Arc::new(permit);
        match listener {
            Listener::Grpc | Listener::Http | Listener::Redis => {
                self.serve_client(stream, from, listener, &permit).await;
            }
            Listener::Peer => {
                let displaced = permit.displaced();
                let served = self.serve_peer(stream, from, permit.clone());
                if displaced.run_until_cancelled(served).await.is_none() {
                    self.carrier.cut(listener.name(), Cut::Displaced);
                }
            }
        }
        drop(permit);
    }

    async fn serve_client(
        &self,
        stream: tokio::net::TcpStream,
        from: SocketAddr,
        listener: Listener,
        permit: &Permit,
    ) {
        let Served {
            carrier,
            front,
            tls,
            ..
        } = self;
        let tls = match listener {
            Listener::Http => tls.http.as_ref(),
            Listener::Redis => tls.redis.as_ref(),
            Listener::Grpc | Listener::Peer => tls.grpc.as_ref(),
        };
        let handshake = tls.and_then(|_| permit.handshake());
        let begun = carrier.begin(listener.name(), tls, stream, handshake, &self.stop);
        let Some((stream, names, trust)) = begun.await else {
            return;
        };
        if listener == Listener::Redis {
            return self.serve_redis((stream, names, trust), from).await;
        }
        let is_http2 = stream.is_http2();
        let (socket, traffic) = self.socket(stream, carrier.traffic_from(from));
        if listener == Listener::Http {
            let proven = (names, trust);
            let served = self.serve_http((socket, is_http2), from, proven, &traffic);
            return served.await;
        }
        let service = front.over(names, traffic.clone(), Entry::Network(from));
        self.serve_grpc(listener, socket, service, &traffic, trust)
            .await;
    }

    fn socket(&self, stream: Stream, traffic: Arc<Traffic>) -> (Io, Arc<Traffic>) {
        let socket = self.carrier.socket(stream, traffic.clone());
        (TokioIo::new(socket), traffic)
    }

    async fn serve_peer(
        &self,
        stream: tokio::net::TcpStream,
        from: SocketAddr,
        permit: Arc<Permit>,
    ) {
        let Served {
            carrier,
            peer_front: front,
            peer_tls,
            ..
        } = self;
        let handshake = timeout(carrier.patience().handshake, peer_tls.accept(stream));
        let Some(accepted) = self.stop.run_until_cancelled(handshake).await else {
            return;
        };
        let (stream, identity, trust) = match accepted {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return front.gate().failed(from, &error),
            Err(_) => return carrier.cut(Listener::Peer.name(), Cut::Handshake),
        };
        let (socket, traffic) = self.socket(stream, carrier.traffic());
        let known = Arc::new(move || permit.is_of_member());
        let visitor = front.gate().visitor(identity, from, known);
        let service = front.over(visitor.clone(), traffic.clone());
        let served = self.serve_grpc(Listener::Peer, socket, service, &traffic, trust);
        let patience = carrier.patience().untrusted;
        tokio::select! {
            () = served => {}
            // Its calls have been refused for long, so there is none to wait for.
            () = visitor.is_forgotten(patience) => {
                carrier.cut(Listener::Peer.name(), Cut::Untrusted);
            }
        }
    }

    async fn serve_grpc<S>(
        &self,
        listener: Listener,
        socket: Io,
        service: S,
        traffic: &Traffic,
        trust: Trust,
    ) where
        S: hyper::service::Service<
                http::Request<hyper::body::Incoming>,
                Response = http::Response<FrontBody>,
                Error = Infallible,
            >,
        S::Future: Send + 'static,
    {
        let connection = grpc_server(listener).serve_connection(socket, service);
        let (carrier, name) = (&self.carrier, listener.name());
        let shut_down = GracefulConnection::graceful_shutdown;
        carrier
            .carry(name, connection, shut_down, traffic, &self.stop, trust)
            .await;
    }

    async fn serve_http(
        &self,
        (socket, is_http2): (Io, bool),
        from: SocketAddr,
        (names, trust): (Option<ClientNames>, Trust),
        traffic: &Arc<Traffic>,
    ) {
        let carrier = &self.carrier;
        let mut builder = auto::Builder::new(AtOnce::default());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(carrier.patience().handshake);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .max_send_buf_size(SEND_BUFFER);
        if is_http2 {
            // A server of HTTP/2 speaks first, and some clients wait for that.
            builder = builder.http2_only();
        }
        let service = self.http.over(
            names,
            traffic.clone(),
            Entry::Network(from),
            self.hosts.clone(),
        );
        let connection = builder.serve_connection(socket, service);
        let (name, shut_down) = (Listener::Http.name(), GracefulConnection::graceful_shutdown);
        carrier
            .carry(name, connection, shut_down, traffic, &self.stop, trust)
            .await;
    }

    async fn serve_redis(&self, (stream, names, trust): Begun, from: SocketAddr) {
        let carrier = &self.carrier;
        let traffic = carrier.traffic_from(from);
        let socket = carrier.socket(stream, traffic.clone());
        let connection = self.redis.over(socket, names, traffic.clone(), from);
        let (name, shut_down) = (Listener::Redis.name(), redis::Connection::graceful_shutdown);
        carrier
            .carry(name, connection, shut_down, &traffic, &self.stop, trust)
            .await;
    }
}

/// How gRPC is served.
fn grpc_server(listener: Listener) -> http2::Builder<AtOnce> {
    let mut builder = http2::Builder::new(AtOnce::default());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .auto_date_header(false);
    if listener == Listener::Peer {
        builder.max_pending_accept_reset_streams(DROPPED_BY_PEERS);
    }
    builder
}

type Io = TokioIo<super::socket::Socket>;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper::{Request, Response, body::Incoming, service::service_fn};
    use hyper_util::rt::TokioExecutor;

    use super::*;

    #[tokio::test]
    async fn calls_of_a_node_that_were_dropped_while_this_one_was_paused_end_no_connection() {
        let (near, far) = tokio::io::duplex(4 << 20);
        let connected =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (mut client, connection) = connected.await.expect("no answer is needed");
        let driven = tokio::spawn(connection);
        let call = || Request::new(Empty::<Bytes>::new());
        // This end never reads.
        for _ in 0..2_000 {
            let mut dropped = std::pin::pin!(client.send_request(call()));
            assert!(futures::poll!(&mut dropped).is_pending());
            tokio::task::yield_now().await;
        }
        let answered = service_fn(async |_: Request<Incoming>| {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let server = grpc_server(Listener::Peer).serve_connection(TokioIo::new(far), answered);
        tokio::spawn(server);
        let answer = client.send_request(call()).await;
        assert!(answer.is_ok(), "{answer:?}");
        drop(client);
        assert!(driven.await.expect("no panic").is_ok());
    }
}
