//! What an attack is, and what the node needs for it.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;

use super::target::Target;

const SLOW_GROUP: &str = "groups=[{ name = \"users\", ttl_seconds = 600, origin = { kind = \"http\", url = \"ORIGIN\", timeout_seconds = 5, max_concurrency = 4 } }]";

/// One attack.
pub struct Attack {
    pub name: &'static str,
    /// Of the node. `FOLDER` and `ORIGIN` stand for where its files and its origin are.
    pub settings: &'static [&'static str],
    /// So many files the node may open; `None`: as many as this process.
    pub descriptors: Option<u32>,
    /// How long the origin takes.
    pub origin_takes: Duration,
    /// Connections that count beside the usual bound on memory.
    pub connections: u64,
    pub run: Run,
}

/// Goes on until it is dropped.
type Run = fn(Arc<Target>) -> BoxFuture<'static, ()>;

pub const fn attack(name: &'static str, run: Run) -> Attack {
    Attack {
        name,
        settings: &[],
        descriptors: None,
        origin_takes: Duration::ZERO,
        connections: 0,
        run,
    }
}

impl Attack {
    /// Against a node with these settings.
    pub fn with(self, settings: &'static [&'static str]) -> Self {
        Self { settings, ..self }
    }

    /// Against a node whose origin is slow.
    pub fn of_slow_origin(self) -> Self {
        Self {
            settings: &[SLOW_GROUP],
            origin_takes: Duration::from_millis(20),
            ..self
        }
    }
}
