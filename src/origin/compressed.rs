//! An origin whose values are kept and sent between nodes in fewer bytes, where that pays.
//!
//! A value that its origin has encoded is left alone. What the value is without this is in its
//! metadata; see [`Metadata::compressed`].

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;

use crate::coding;
use gaocache_core::{
    error::{BoxError, Result},
    metadata::Metadata,
    ports::{LoadObserver, LoadTurn, Loaded, Origin, Reloaded},
};

/// An origin whose values are compressed.
pub struct Compressed {
    origin: Arc<dyn Origin>,
    observer: Arc<dyn LoadObserver>,
    min_bytes: u64,
    max_value: u64,
}

impl Compressed {
    /// Compresses values from `min_bytes` up to `max_value` bytes.
    pub fn new(
        origin: Arc<dyn Origin>,
        observer: Arc<dyn LoadObserver>,
        min_bytes: u64,
        max_value: u64,
    ) -> Self {
        Self {
            origin,
            observer,
            min_bytes,
            max_value,
        }
    }

    /// The value, compressed if that pays; so many bytes of values have come with it, and are
    /// compressed before any of them is answered.
    async fn packed(&self, loaded: Loaded, together: usize) -> Loaded {
        let length = loaded.value.len() as u64;
        // A larger one is refused as it is.
        let fits = (self.min_bytes..=self.max_value).contains(&length);
        if !fits || loaded.metadata.get("content-encoding").is_some() {
            return loaded;
        }
        let value = loaded.value.clone();
        let packed = coding::aside(together, move || coding::compressed(&value)).await;
        let Some(packed) = packed.ok().flatten() else {
            return loaded;
        };
        self.observer
            .saved(length.saturating_sub(packed.len() as u64));
        Loaded::from(packed)
            .with_freshness(loaded.freshness)
            .with_metadata(loaded.metadata.compressed(length))
    }

    async fn packed_alone(&self, loaded: Loaded) -> Loaded {
        let bytes = loaded.value.len();
        self.packed(loaded, bytes).await
    }

    async fn all_packed(
        &self,
        loaded: Vec<Result<Loaded, BoxError>>,
    ) -> Vec<Result<Loaded, BoxError>> {
        let bytes = loaded.iter().flatten().map(|it| it.value.len()).sum();
        let packed = loaded.into_iter().map(async |loaded| match loaded {
            Ok(loaded) => Ok(self.packed(loaded, bytes).await),
            Err(error) => Err(error),
        });
        join_all(packed).await
    }

    async fn repacked(&self, reloaded: Reloaded) -> Reloaded {
        match reloaded {
            Reloaded::Changed(loaded) => Reloaded::Changed(self.packed_alone(loaded).await),
            unchanged => unchanged,
        }
    }
}

#[async_trait]
impl Origin for Compressed {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        Ok(self.packed_alone(self.origin.load(key).await?).await)
    }

    async fn reload(&self, key: &str, kept: &Metadata) -> Result<Reloaded, BoxError> {
        Ok(self.repacked(self.origin.reload(key, kept).await?).await)
    }

    fn batch_size(&self) -> usize {
        self.origin.batch_size()
    }

    async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, BoxError>> {
        self.all_packed(self.origin.load_many(keys).await).await
    }

    async fn load_many_in_turn(
        &self,
        keys: &[&str],
        turn: LoadTurn<'_>,
    ) -> Vec<Result<Loaded, BoxError>> {
        let loaded = self.origin.load_many_in_turn(keys, turn).await;
        self.all_packed(loaded).await
    }

    async fn load_in_turn(
        &self,
        key: &str,
        kept: Option<&Metadata>,
        turn: LoadTurn<'_>,
    ) -> Result<Reloaded, BoxError> {
        let loaded = self.origin.load_in_turn(key, kept, turn).await?;
        Ok(self.repacked(loaded).await)
    }

    fn also_wanted(&self, key: &str) {
        self.origin.also_wanted(key);
    }
}
