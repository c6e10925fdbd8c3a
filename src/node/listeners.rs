//! The node's listening sockets: bound first, opened later, closed in order.
//!
//! One acceptor hands connections to the workers in turn. Sharing the port with SO_REUSEPORT
//! instead would let the kernel's hash put four connections on one worker of two, and would let a
//! second node of the same user bind the same port without an error.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Admission, Listener},
    local::LocalListener,
    serve::Accepted,
    worker::Dispatcher,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// After a failed accept (no file descriptors left, say) the acceptor rests, or it would spin.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a node listens; `None`: it doesn't.
///
/// ```
/// use gaocache::{NodeBuilder, Settings};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gaocache::Error> {
/// let mut settings = Settings::loopback("only");
/// settings.http = None;
/// let node = NodeBuilder::new(settings).bind().await?;
/// let addresses = node.addresses();
/// assert!(addresses.grpc.is_some_and(|it| it.ip().is_loopback() && it.port() != 0));
/// assert_eq!(addresses.http, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Addresses {
    /// gRPC, for clients.
    pub grpc: Option<SocketAddr>,
    /// HTTP, for clients.
    pub http: Option<SocketAddr>,
    /// For Redis clients.
    pub redis: Option<SocketAddr>,
    /// For other nodes.
    pub peer: Option<SocketAddr>,
    /// Probes, metrics, the ring.
    pub admin: Option<SocketAddr>,
}

/// Bound sockets.
pub(super) struct Listeners {
    grpc: Option<TcpListener>,
    http: Option<TcpListener>,
    redis: Option<TcpListener>,
    peer: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
    pub(super) socket: Option<LocalListener>,
    addresses: Addresses,
}

/// Listeners that accept.
pub(super) struct Open {
    tasks: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Binds those that are wanted.
    pub(super) fn bind(wanted: Addresses, socket: Option<&Path>) -> Result<Self> {
        let grpc = bind("gRPC", wanted.grpc)?;
        let http = bind("HTTP", wanted.http)?;
        let redis = bind("Redis", wanted.redis)?;
        let peer = bind("peer", wanted.peer)?;
        let admin = bind("admin", wanted.admin)?;
        let addresses = Addresses {
            grpc: address(grpc.as_ref())?,
            http: address(http.as_ref())?,
            redis: address(redis.as_ref())?,
            peer: address(peer.as_ref())?,
            admin: address(admin.as_ref())?,
        };
        Ok(Self {
            grpc,
            http,
            redis,
            peer,
            admin,
            socket: socket.map(LocalListener::bind).transpose()?,
            addresses,
        })
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Begins to accept clients and peers, until `stop`.
    pub(super) fn open(
        self,
        dispatcher: Dispatcher,
        admission: &Arc<Admission>,
        stop: &CancellationToken,
    ) -> Result<Open> {
        let dispatcher = Arc::new(dispatcher);
        let mut tasks = Vec::new();
        for (bound, listener) in [
            (self.grpc, Listener::Grpc),
            (self.http, Listener::Http),
            (self.redis, Listener::Redis),
            (self.peer, Listener::Peer),
        ] {
            let Some(bound) = bound else { continue };
            let acceptor = Acceptor {
                socket: registered(bound)?,
                listener,
                dispatcher: dispatcher.clone(),
                admission: admission.clone(),
            };
            tasks.push(tokio::spawn(acceptor.run(stop.clone())));
        }
        Ok(Open { tasks })
    }
}

impl Open {
    /// Returns when all listeners are closed.
    pub(super) async fn closed(self) {
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

fn address(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>> {
    let address = listener.map(TcpListener::local_addr).transpose();
    address.map_err(|error| {
        let what = format!("could not read the address of a bound socket: {error}");
        Error::new(ErrorKind::Internal, what).with_source(error)
    })
}

/// The socket as this thread's runtime polls it.
pub(super) fn registered(listener: TcpListener) -> Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener).map_err(|error| {
        let what = format!("could not listen on a bound socket: {error}");
        Error::new(ErrorKind::Internal, what).with_source(error)
    })
}

fn bind(listener: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else {
        return Ok(None);
    };
    let bound = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restarted node may bind while its predecessor's connections linger; two running ones
        // may not.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().map(Some).map_err(|error| {
        let other = match error.kind() {
            std::io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 take a privilege; choose another"
            }
            _ => "choose another port, or 0 for any free port",
        };
        let what = format!("the {listener} listener can't be at {address}: {error}; {other}");
        Error::new(ErrorKind::Configuration, what).with_source(error)
    })
}

/// Accepts the connections of one listener.
struct Acceptor {
    socket: tokio::net::TcpListener,
    listener: Listener,
    dispatcher: Arc<Dispatcher>,
    admission: Arc<Admission>,
}

impl Acceptor {
    async fn run(self, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            // The worker's runtime is to poll the socket, so this one lets go of it.
            let accepted = accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from)));
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.admission.failed(self.listener, &error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(permit) = self.admission.admit(from, self.listener) else {
                continue;
            };
            // Answers are small and must not wait for more to send.
            let _ = stream.set_nodelay(true);
            let connection = Accepted {
                stream,
                from,
                listener: self.listener,
                permit,
            };
            self.dispatcher.dispatch(connection).await;
        }
    }
}
