//! What all connections of the listener have in common.

use std::{sync::atomic::AtomicU64, time::Duration};

use arc_swap::ArcSwap;
use http::HeaderMap;
use tokio::time::Instant;

use crate::{
    auth::Permissions,
    service::Service,
    telemetry::{metrics::RedisMetrics, throttle::Throttle},
};

/// What the listener takes.
#[derive(Clone, Copy, Debug)]
pub struct RedisRules {
    /// The most keys of one command.
    pub max_keys: usize,
    /// How long a command may take to arrive.
    pub patience: Duration,
}

/// What all connections have in common.
pub(super) struct Shared {
    pub(super) service: Service,
    pub(super) permissions: Permissions,
    pub(super) rules: ArcSwap<RedisRules>,
    pub(super) metrics: RedisMetrics,
    throttle: Throttle,
    pub(super) started: Instant,
    pub(super) next_id: AtomicU64,
    /// The protocol has no place for a caller's trace.
    pub(super) no_headers: HeaderMap,
}

impl Shared {
    pub(super) fn new(
        service: Service,
        permissions: Permissions,
        rules: RedisRules,
        metrics: RedisMetrics,
    ) -> Self {
        Self {
            service,
            permissions,
            rules: ArcSwap::from_pointee(rules),
            metrics,
            throttle: Throttle::default(),
            started: Instant::now(),
            next_id: AtomicU64::new(1),
            no_headers: HeaderMap::new(),
        }
    }

    /// A client broke the protocol.
    pub(super) fn violated(&self, what: &str) {
        self.metrics.violated();
        if let Some(suppressed) = self.throttle.due("violation") {
            tracing::warn!(
                listener = "redis",
                what,
                suppressed,
                "a client broke the protocol; its connection is closed"
            );
        }
    }
}
