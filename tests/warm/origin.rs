//! An origin that counts what it is asked for, by key.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};
use tokio::net::TcpListener;

use crate::VALUE_BYTES;

/// Counts what it is asked for, by key.
pub(crate) struct Origin {
    pub(crate) url: String,
    pub(crate) counts: Arc<Vec<AtomicU32>>,
}

impl Origin {
    pub(crate) async fn start(keys: usize) -> Self {
        let counts: Arc<Vec<AtomicU32>> = Arc::new((0..keys).map(|_| AtomicU32::new(0)).collect());
        let router = Router::new()
            .route("/users/{key}", get(value))
            .with_state(counts.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/users/{{key}}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, counts }
    }

    pub(crate) fn loads(&self) -> u64 {
        let counts = self.counts.iter();
        counts
            .map(|count| u64::from(count.load(Ordering::Relaxed)))
            .sum()
    }

    pub(crate) fn reset(&self) {
        for count in self.counts.iter() {
            count.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn most_of_one_key(&self) -> u32 {
        let counts = self.counts.iter();
        counts
            .map(|count| count.load(Ordering::Relaxed))
            .max()
            .unwrap_or(0)
    }
}

async fn value(State(counts): State<Arc<Vec<AtomicU32>>>, Path(key): Path<usize>) -> String {
    counts[key].fetch_add(1, Ordering::Relaxed);
    expected(key)
}

pub(crate) fn expected(key: usize) -> String {
    format!("{key:0>VALUE_BYTES$}")
}
