//! An origin whose values are versions, and what of them removals have promised.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// Larger than the smaller `max_value`, and than all messages of a node with that.
const LARGE: usize = 1_300_000;

/// Versions of keys at the origin, and the oldest that may still be answered.
#[derive(Default)]
pub(crate) struct Versions {
    now: Mutex<HashMap<String, u64>>,
    floors: Mutex<HashMap<String, u64>>,
    pub(crate) loads: AtomicUsize,
}

impl Versions {
    /// Begins to answer `/GROUP/KEY`; returns where.
    pub(crate) async fn serve(self: &Arc<Self>) -> String {
        let router = Router::new()
            .route("/{group}/{key}", get(value))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// The value changes; its version from now on.
    pub(crate) fn change(&self, key: &str) -> u64 {
        let mut now = self.now.lock();
        let version = now.entry(key.to_owned()).or_default();
        *version += 1;
        *version
    }

    /// A removal that began at that version was acknowledged.
    pub(crate) fn removed(&self, key: &str, version: u64) {
        let mut floors = self.floors.lock();
        let floor = floors.entry(key.to_owned()).or_default();
        *floor = version.max(*floor);
    }

    /// What a get that begins now may bring.
    pub(crate) fn floor(&self, key: &str) -> u64 {
        self.floors.lock().get(key).copied().unwrap_or(0)
    }
}

async fn value(
    State(versions): State<Arc<Versions>>,
    Path((group, key)): Path<(String, String)>,
) -> String {
    versions.loads.fetch_add(1, Ordering::SeqCst);
    let key = format!("{group}/{key}");
    let version = versions.now.lock().get(&key).copied().unwrap_or(0);
    let size = if group == "large" { LARGE } else { 0 };
    format!("{version} {}", ".".repeat(size))
}
