//! What a group asks for values: an origin together with what the node puts around it, such as a
//! queue, in which a load waits for its turn.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use futures::future::{BoxFuture, pending};

use super::origin::{Loaded, Origin, Reloaded};
use crate::{
    error::BoxError,
    metadata::Metadata,
    time::{Clock, Timestamp},
};

/// When the origin was asked for a value, by the node's clock. The value's life begins there: it
/// may have changed at the origin while it was under way.
#[derive(Clone)]
pub struct Asked {
    clock: Arc<dyn Clock>,
    at: Arc<AtomicU64>,
}

impl Asked {
    /// It is asked now, unless it turns out to be asked later.
    pub fn by(clock: Arc<dyn Clock>) -> Self {
        let at = Arc::new(AtomicU64::new(clock.now().0));
        Self { clock, at }
    }

    /// It is asked only now: the load waited for its turn, or an attempt before has failed.
    pub fn note(&self) {
        self.at.store(self.clock.now().0, Ordering::Release);
    }

    /// When the last attempt began.
    pub fn at(&self) -> Timestamp {
        Timestamp(self.at.load(Ordering::Acquire))
    }
}

/// What a load that waits for its turn has to know and to tell.
pub struct LoadTurn<'a> {
    /// Resolves when all callers have given up. A load that has not begun by then need not begin;
    /// its outcome is discarded.
    pub abandoned: BoxFuture<'a, ()>,
    /// Told of each attempt that begins later than the call.
    pub asked: Asked,
}

impl LoadTurn<'static> {
    /// Of a load that begins whoever waits for it.
    pub fn anyway(asked: Asked) -> Self {
        let abandoned = Box::pin(pending());
        Self { abandoned, asked }
    }
}

/// Where a group's loads run. Every [`Origin`] is one, whose loads run at once. The node puts its
/// own around the origin, with limits on the loads.
#[async_trait]
pub trait LoadQueue: Send + Sync + 'static {
    /// Loads the value of `key`, when its turn has come. `kept`: what was said of an older value
    /// that is kept.
    ///
    /// # Errors
    /// As [`Origin::load`].
    async fn ask(
        &self,
        key: &str,
        kept: Option<&Metadata>,
        turn: LoadTurn<'_>,
    ) -> Result<Reloaded, BoxError>;

    /// Loads the values of several keys, in their order, when their turn has come; at most
    /// [`LoadQueue::batch_size`] of them.
    async fn ask_many(&self, keys: &[&str], turn: LoadTurn<'_>) -> Vec<Result<Loaded, BoxError>>;

    /// How many keys [`LoadQueue::ask_many`] takes at once. With 1, it is never called.
    fn batch_size(&self) -> usize;

    /// Another client wants this key, too, whose load may still wait for its turn.
    fn also_wanted(&self, key: &str);
}

#[async_trait]
impl<O: Origin + ?Sized> LoadQueue for O {
    async fn ask(
        &self,
        key: &str,
        kept: Option<&Metadata>,
        _: LoadTurn<'_>,
    ) -> Result<Reloaded, BoxError> {
        load_or_reload(self, key, kept).await
    }

    async fn ask_many(&self, keys: &[&str], _: LoadTurn<'_>) -> Vec<Result<Loaded, BoxError>> {
        self.load_many(keys).await
    }

    fn batch_size(&self) -> usize {
        Origin::batch_size(self)
    }

    fn also_wanted(&self, _: &str) {}
}

/// Loads as [`Origin::reload`] does if a value is kept, and as [`Origin::load`] otherwise.
///
/// # Errors
/// As [`Origin::load`].
pub async fn load_or_reload(
    origin: &(impl Origin + ?Sized),
    key: &str,
    kept: Option<&Metadata>,
) -> Result<Reloaded, BoxError> {
    match kept {
        Some(kept) => origin.reload(key, kept).await,
        None => origin.load(key).await.map(Reloaded::Changed),
    }
}
