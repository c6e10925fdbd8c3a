//! A queue of loads whose values are changed before they are kept, outside of the time and the
//! place that a load has. Whatever changes values implements [`MapValue`] and nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;

use gaocache_core::{
    error::BoxError,
    metadata::Metadata,
    ports::{LoadQueue, LoadTurn, Loaded, Reloaded},
};

/// What is done with each value that an origin brings. An unchanged one is not brought again.
#[async_trait]
pub trait MapValue: Send + Sync + 'static {
    /// The value that is kept in place of this one.
    async fn map(&self, loaded: Loaded) -> Loaded;
}

/// A queue, and what is done with the values that come from it.
pub struct Mapped<M> {
    queue: Arc<dyn LoadQueue>,
    values: M,
}

impl<M: MapValue> Mapped<M> {
    /// Changes the values that come from `queue`.
    pub fn new(queue: Arc<dyn LoadQueue>, values: M) -> Self {
        Self { queue, values }
    }
}

#[async_trait]
impl<M: MapValue> LoadQueue for Mapped<M> {
    async fn ask(
        &self,
        key: &str,
        kept: Option<&Metadata>,
        turn: LoadTurn<'_>,
    ) -> Result<Reloaded, BoxError> {
        Ok(match self.queue.ask(key, kept, turn).await? {
            Reloaded::Changed(loaded) => Reloaded::Changed(self.values.map(loaded).await),
            unchanged => unchanged,
        })
    }

    async fn ask_many(&self, keys: &[&str], turn: LoadTurn<'_>) -> Vec<Result<Loaded, BoxError>> {
        let loaded = self.queue.ask_many(keys, turn).await;
        let mapped = loaded.into_iter().map(async |loaded| match loaded {
            Ok(loaded) => Ok(self.values.map(loaded).await),
            Err(error) => Err(error),
        });
        join_all(mapped).await
    }

    fn batch_size(&self) -> usize {
        self.queue.batch_size()
    }

    fn also_wanted(&self, key: &str) {
        self.queue.also_wanted(key);
    }
}
