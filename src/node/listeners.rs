//! The node's listening sockets: bound first, opened later, closed in order.
//!
//! One acceptor hands connections to the workers in turn. Sharing the port with SO_REUSEPORT
//! instead would let the kernel's hash put four connections on one worker of two, and would let a
//! second node of the same user bind the same port without an error.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Addresses,
    worker::{Connection, Dispatcher},
};
use crate::{
    admin::{self, Admin},
    settings::Settings,
};
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
    /// Binds those that the settings want.
    pub(super) fn bind(settings: &Settings) -> Result<Self> {
        let bound = |setting, address: Option<SocketAddr>| {
            address.map(|address| bind(setting, address)).transpose()
        };
        let grpc = bound("grpc.listen", settings.grpc)?;
        let http = bound("http.listen", settings.http)?;
        let admin = bound("admin.listen", settings.admin)?;
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
    pub(super) fn open(
        self,
        dispatcher: Dispatcher,
        admin: Admin,
        stop: &CancellationToken,
        admin_stop: &CancellationToken,
    ) -> Open {
        let dispatcher = Arc::new(dispatcher);
        let accept = |listener, connection: fn(TcpStream) -> Connection| {
            tokio::spawn(accept(
                listener,
                connection,
                dispatcher.clone(),
                stop.clone(),
            ))
        };
        let grpc = self.grpc.map(|it| accept(it, Connection::Grpc));
        let http = self.http.map(|it| accept(it, Connection::Http));
        let admin_stop = admin_stop.clone();
        let admin = self
            .admin
            .map(|it| tokio::spawn(serve_admin(it, admin, admin_stop)));
        Open {
            tasks: [grpc, http, admin].into_iter().flatten().collect(),
        }
    }
}

/// Serves until `stop`.
async fn serve_admin(listener: TcpListener, admin: Admin, stop: CancellationToken) {
    let stopped = stop.clone();
    let server = axum::serve(listener, admin::router(admin))
        .with_graceful_shutdown(async move { stopped.cancelled().await });
    let served = async {
        if let Err(error) = server.await {
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

fn address(listener: Option<&TcpListener>) -> Result<Option<SocketAddr>> {
    let address = listener.map(TcpListener::local_addr).transpose();
    address.map_err(|error| {
        let what = format!("a bound socket without an address: {error}");
        Error::new(ErrorKind::Internal, what)
    })
}

impl Open {
    /// Returns when all listeners are closed.
    pub(super) async fn closed(self) {
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener> {
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
    bound().map_err(|error| {
        Error::new(
            ErrorKind::InvalidRequest,
            format!("{setting} = \"{address}\": {error}; choose another port, or 0 for a free one"),
        )
    })
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
        match accepted {
            Ok((stream, _)) => {
                // Answers are small and must not wait for more to send.
                let _ = stream.set_nodelay(true);
                dispatcher.dispatch(connection(stream)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
