//! Values that are kept and sent between nodes in fewer bytes, where that pays.
//!
//! A value that its origin has encoded is left alone. What the value is without this is in its
//! metadata; see [`Metadata::compressed`](gaocache_core::metadata::Metadata::compressed).

use std::sync::Arc;

use async_trait::async_trait;

use super::mapped::MapValue;
use crate::coding;
use gaocache_core::ports::{LoadObserver, Loaded};

/// A value of so many bytes would hold up other work of its thread.
const LARGE: usize = 128 << 10;

/// Compresses the values of an origin.
pub struct Compression {
    observer: Arc<dyn LoadObserver>,
    min_bytes: u64,
    max_value: u64,
}

impl Compression {
    /// Compresses values from `min_bytes` up to `max_value` bytes.
    pub fn new(observer: Arc<dyn LoadObserver>, min_bytes: u64, max_value: u64) -> Self {
        Self {
            observer,
            min_bytes,
            max_value,
        }
    }
}

#[async_trait]
impl MapValue for Compression {
    async fn map(&self, loaded: Loaded) -> Loaded {
        let length = loaded.value.len() as u64;
        // A larger one is refused as it is.
        let fits = (self.min_bytes..=self.max_value).contains(&length);
        if !fits || loaded.metadata.get("content-encoding").is_some() {
            return loaded;
        }
        let value = loaded.value.clone();
        let packed = if value.len() < LARGE {
            coding::compressed(&value)
        } else {
            let packing = tokio::task::spawn_blocking(move || coding::compressed(&value));
            packing.await.ok().flatten()
        };
        let Some(packed) = packed else {
            return loaded;
        };
        self.observer
            .saved(length.saturating_sub(packed.len() as u64));
        Loaded::from(packed)
            .with_freshness(loaded.freshness)
            .with_metadata(loaded.metadata.compressed(length))
    }
}
