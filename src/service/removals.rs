//! Removals of clients, and those that other nodes pass on.

use std::sync::Arc;

use super::Service;
use crate::telemetry::trace::{self, SpanAttributes};
use gaocache_core::{
    error::{Error, Result},
    group::Group,
    ports::Removal,
};

impl Service {
    /// Another node's removal: here only; returns how many entries went.
    ///
    /// # Errors
    /// [`gaocache_core::error::ErrorKind::UnknownGroup`].
    pub fn remove_here(&self, group: &str, what: &Removal) -> Result<u64> {
        Ok(self
            .inner
            .groups
            .current_or_former(group)?
            .remove_here(what))
    }

    /// A client's removal of a key.
    ///
    /// # Errors
    /// As [`Group::remove`], or [`gaocache_core::error::ErrorKind::UnknownGroup`].
    pub async fn remove(&self, group: &str, key: &str) -> Result<()> {
        self.invalidate(group, async |group| group.remove(key).await.map(|()| 0))
            .await
            .map(|_| ())
    }

    /// A client's removal of a whole group. Returns the number of removed entries.
    ///
    /// # Errors
    /// As [`Group::purge`], or [`gaocache_core::error::ErrorKind::UnknownGroup`].
    pub async fn purge(&self, group: &str) -> Result<u64> {
        self.invalidate(group, async |group| group.purge().await)
            .await
    }

    /// A client's removal of all that carries a tag.
    ///
    /// # Errors
    /// As [`Group::purge_tag`], or [`gaocache_core::error::ErrorKind::UnknownGroup`].
    pub async fn purge_tag(&self, group: &str, tag: &str) -> Result<()> {
        self.invalidate(group, async |group| group.purge_tag(tag).await.map(|()| 0))
            .await
            .map(|_| ())
    }

    async fn invalidate(
        &self,
        group: &str,
        work: impl AsyncFnOnce(Arc<Group>) -> Result<u64>,
    ) -> Result<u64> {
        let result = match self.inner.groups.get(group) {
            Ok(group) => work(group).await,
            Err(error) => Err(error),
        };
        let outcome = result.as_ref().map(|_| ()).map_err(Error::kind);
        self.count(group, |metrics| metrics.invalidation(outcome));
        trace::ended(
            result.as_ref().map(|_| "ok"),
            SpanAttributes {
                group,
                ..SpanAttributes::default()
            },
        );
        if let Err(error) = &result {
            self.log(group, error);
        }
        result
    }
}
