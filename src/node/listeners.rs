//! The node's listening sockets: bound first, opened later, closed in order.
//!
//! One acceptor hands connections to the workers in turn. Sharing the port with SO_REUSEPORT
//! instead would let the kernel's hash put four connections on one worker of two, and would let a
//! second node of the same user bind the same port without an error.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    Addresses,
    parts::Stops,
    worker::{Connection, Dispatcher},
};
use crate::admin::{self, Admin};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// After a failed accept (no file descriptors left, say) the acceptor rests, or it would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bound on closing the admin listener.
const ADMIN_CLOSE: Duration = Duration::from_secs(1);

/// Bound sockets.
pub(super) struct Listeners {
    grpc: Option<TcpListener>,
    http: Option<TcpListener>,
    admin: Option<TcpListener>,
    addresses: Addresses,
}

/// Listeners that accept.
pub(super) struct Open {
    tasks: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Binds those that are wanted.
    pub(super) fn bind(wanted: Addresses) -> Result<Self> {
        let grpc = bind("grpc.listen", wanted.grpc)?;
        let http = bind("http.listen", wanted.http)?;
        let admin = bind("admin.listen", wanted.admin)?;
        let addresses = Addresses {
            grpc: address(grpc.as_ref())?,
            http: address(http.as_ref())?,
            admin: address(admin.as_ref())?,
        };
        Ok(Self {
            grpc,
            http,
            admin,
            addresses,
        })
    }

    pub(super) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Begins to accept: reads until `stop`, admin until `admin_stop`.
    pub(super) fn open(self, dispatcher: Dispatcher, admin: Admin, stops: &Stops) -> Open {
        let dispatcher = Arc::new(dispatcher);
        let accept = |listener, connection: fn(TcpStream) -> Connection| {
            tokio::spawn(accept(
                listener,
                connection,
                dispatcher.clone(),
                stops.reads.clone(),
            ))
        };
        let grpc = self.grpc.map(|it| accept(it, Connection::Grpc));
        let http = self.http.map(|it| accept(it, Connection::Http));
        let stop = stops.admin.clone();
        let admin = self
            .admin
            .map(|it| tokio::spawn(serve_admin(it, admin, stop)));
        Open {
            tasks: [grpc, http, admin].into_iter().flatten().collect(),
        }
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

fn bind(setting: &str, address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
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
        TcpListener::from_std(socket.into())
    };
    bound().map(Some).map_err(|error| {
        let what = format!(
            "{setting} = \"{address}\": {error}; choose another port, or 0 for any free port"
        );
        Error::new(ErrorKind::Configuration, what).with_source(error)
    })
}

async fn serve_admin(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let stopped = stop.clone();
    let served = axum::serve(listener, admin::router(admin))
        .with_graceful_shutdown(stopped.cancelled_owned());
    let served = async {
        if let Err(error) = served.await {
            tracing::error!(%error, "the admin listener failed");
        }
    };
    // A scraper that keeps its connection open must not keep the node alive.
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(ADMIN_CLOSE).await;
    };
    tokio::select! {
        () = served => {}
        () = overdue => {}
    }
}

async fn accept(
    listener: TcpListener,
    connection: fn(TcpStream) -> Connection,
    dispatcher: Arc<Dispatcher>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // The worker's runtime is to poll the socket, so this one lets go of it.
        match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => {
                // Answers are small and must not wait for more to send.
                let _ = stream.set_nodelay(true);
                dispatcher.dispatch(connection(stream)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
