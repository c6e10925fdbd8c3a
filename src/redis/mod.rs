//! The listener for Redis clients: reads and removals in the protocol of Redis, versions 2 and 3.
//!
//! It must never take a value: gaocache is read-through. Commands that memory can answer are
//! answered on the spot, without a task each; loads of one connection run side by side within a
//! bound, and all answers leave in the order of the commands.

mod client;
mod commands;
mod connection;
mod output;
mod reply;
mod request;
mod session;
mod waiting;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

pub use commands::reference;
pub use connection::Connection;

use crate::{
    service::Service,
    telemetry::{
        metrics::{Metrics, RedisMetrics},
        throttle::Throttle,
    },
    traffic::Traffic,
};

/// What the listener takes.
#[derive(Clone, Copy, Debug)]
pub struct RedisRules {
    /// The most keys of one command.
    pub max_keys: usize,
    /// How long a command may take to arrive.
    pub patience: Duration,
}

/// The listener. Clones are the same.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    service: Service,
    rules: ArcSwap<RedisRules>,
    metrics: RedisMetrics,
    throttle: Throttle,
    started: Instant,
    next_id: AtomicU64,
    /// The protocol has no place for a caller's trace.
    no_headers: HeaderMap,
}

impl Front {
    /// A listener for `service`.
    pub fn new(service: Service, rules: RedisRules, metrics: &Metrics) -> Self {
        Self(Arc::new(Inner {
            service,
            rules: ArcSwap::from_pointee(rules),
            metrics: metrics.redis.clone(),
            throttle: Throttle::default(),
            started: Instant::now(),
            next_id: AtomicU64::new(1),
            no_headers: HeaderMap::new(),
        }))
    }

    /// The listener for one connection.
    pub fn over<S>(&self, socket: S, traffic: Arc<Traffic>, from: SocketAddr) -> Connection<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        Connection::new(self, socket, traffic, from)
    }

    /// From now on, takes what these rules say.
    #[cfg(feature = "cli")]
    pub fn limit(&self, rules: RedisRules) {
        self.0.rules.store(Arc::new(rules));
    }

    fn rules(&self) -> RedisRules {
        **self.0.rules.load()
    }

    fn violated(&self, what: &str) {
        self.0.metrics.violated();
        if let Some(suppressed) = self.0.throttle.due("violation") {
            tracing::warn!(
                listener = "redis",
                what,
                suppressed,
                "a client broke the protocol; its connection is closed"
            );
        }
    }
}
