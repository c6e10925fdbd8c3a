//! The listener for Redis clients: reads and removals in the protocol of Redis, versions 2 and 3.
//!
//! It must never take a value: gaocache is read-through. Commands that memory can answer are
//! answered on the spot, without a task each; loads of one connection run side by side within a
//! bound, and all answers leave in the order of the commands.

mod client;
mod commands;
mod connection;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod output;
mod place;
mod reply;
mod request;
mod session;
mod shared;
mod waiting;

use std::{net::SocketAddr, sync::Arc};

use tokio::io::{AsyncRead, AsyncWrite};

pub use commands::reference;
pub use connection::Connection;
pub use shared::RedisRules;
use shared::Shared;

use crate::{
    auth::Permissions, service::Service, telemetry::metrics::Metrics, tls::ClientNames,
    traffic::Traffic,
};

/// The listener. Clones are the same.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

impl Front {
    /// A listener for `service`.
    pub(crate) fn new(
        service: Service,
        permissions: Permissions,
        rules: RedisRules,
        metrics: &Metrics,
    ) -> Self {
        let metrics = metrics.redis.clone();
        Self(Arc::new(Shared::new(service, permissions, rules, metrics)))
    }

    /// The listener for one connection, of a client that has proven these names.
    pub(crate) fn over<S>(
        &self,
        socket: S,
        names: Option<ClientNames>,
        traffic: Arc<Traffic>,
        from: SocketAddr,
    ) -> Connection<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Connection::new(&self.0, socket, names, traffic, from)
    }

    /// From now on, takes what these rules say.
    #[cfg(feature = "cli")]
    pub fn limit(&self, rules: RedisRules) {
        self.0.rules.store(Arc::new(rules));
    }
}
