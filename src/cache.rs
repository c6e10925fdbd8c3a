//! The cache as an embedding program sees it.

use std::{
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Weak},
};

use futures::StreamExt;
use tokio::runtime::Handle;

use crate::{answer::Answer, service::Service};
use gaocache_core::error::Result;

/// A node's cache, for use inside its process; [`Node::cache`](crate::Node::cache) returns it.
/// Cheap to clone.
///
/// It needs no listener: calls go straight to the node's memory, to the key's owner or to the
/// origin. Once the node has ended, nothing is kept in memory any more: each get goes to the
/// key's owner or to the origin, and `remove` and `purge` fail, after the time that they
/// wait for a node that has lost touch.
///
/// It may be called from any runtime. Loads and calls to other nodes run in the one in which the
/// node was bound.
///
/// ```
/// # use gaocache::{Error, GroupDefinition, NodeBuilder, Settings, loader};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// # let shout = loader(async |key: String| Ok::<_, Error>(key.to_uppercase()));
/// # let node = NodeBuilder::new(Settings::standalone("only"))
/// #     .group(GroupDefinition::new("shout", shout))
/// #     .bind()
/// #     .await?;
/// let cache = node.cache();
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let running = tokio::spawn(node.run(async { drop(stopped.await) }));
/// assert_eq!(cache.get("shout", "night").await?.value, "NIGHT");
/// drop(stop);
/// running.await.expect("no panic")?;
/// assert_eq!(cache.get("shout", "night").await?.source, gaocache::Source::Origin);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cache {
    service: Service,
    /// Where the node was bound; gone when it has ended.
    runtime: Weak<Handle>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    pub(crate) fn new(service: Service, runtime: &Arc<Handle>) -> Self {
        Self {
            service,
            runtime: Arc::downgrade(runtime),
        }
    }

    /// Does this work where the node runs. Others may come to wait for what it begins, and the
    /// caller's runtime may end or stand still: tasks and connections that belong to it would take
    /// them along.
    async fn at_node<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|task| {
            let runtime = self.runtime.upgrade();
            let _within = runtime.as_ref().map(|it| it.enter());
            work.as_mut().poll(task)
        })
        .await
    }

    /// The value of a key: from memory, from the key's owner, or loaded now.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the origin has no such key,
    /// [`UnknownGroup`](crate::ErrorKind::UnknownGroup) and
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) for a caller's mistake; otherwise
    /// whatever error the load ended with.
    ///
    /// ```
    /// # use gaocache::{Error, ErrorKind, GroupDefinition, NodeBuilder, Settings, Source, loader};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # let squares = loader(async |key: String| match key.parse::<u64>() {
    /// #     Ok(number) => Ok((number * number).to_string()),
    /// #     Err(_) => Err(Error::not_found("not a number")),
    /// # });
    /// # let node = NodeBuilder::new(Settings::standalone("only"))
    /// #     .group(GroupDefinition::new("squares", squares))
    /// #     .bind()
    /// #     .await?;
    /// # let cache = node.cache();
    /// assert_eq!(cache.get("squares", "12").await?.source, Source::Origin);
    /// assert_eq!(cache.get("squares", "12").await?.source, Source::Hit);
    ///
    /// let missing = cache.get("squares", "twelve").await.unwrap_err();
    /// assert_eq!(missing.kind(), ErrorKind::NotFound);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, group: &str, key: &str) -> Result<Answer> {
        let moment = self.service.moment();
        if let Some(held) = self.service.get_held(group, key, &moment) {
            return Ok(Answer::at(moment.now, held?));
        }
        let answer = self.at_node(self.service.get_elsewhere(group, key));
        let answer = answer.await?;
        Ok(Answer::at(self.service.now(), answer))
    }

    /// The values of several keys, in the order of the keys. Each has an error of its own.
    ///
    /// ```
    /// # use gaocache::{Error, GroupDefinition, NodeBuilder, Settings, loader};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # let shout = loader(async |key: String| Ok::<_, Error>(key.to_uppercase()));
    /// # let node = NodeBuilder::new(Settings::standalone("only"))
    /// #     .group(GroupDefinition::new("shout", shout))
    /// #     .bind()
    /// #     .await?;
    /// # let cache = node.cache();
    /// for (key, answer) in ["a", "b"].iter().zip(cache.get_many("shout", &["a", "b"]).await) {
    ///     assert_eq!(answer?.value, key.to_uppercase());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_many(&self, group: &str, keys: &[impl AsRef<str>]) -> Vec<Result<Answer>> {
        let keys = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        let now = || self.service.now();
        let all = async {
            let answers = self.service.get_many(group, keys);
            let answers =
                answers.map(|(place, answer)| (place, answer.map(|it| Answer::at(now(), it))));
            answers.collect::<Vec<_>>().await
        };
        let mut answers = self.at_node(all).await;
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Drops a key on every node. When this returns `Ok`, no node serves what it held before.
    ///
    /// # Errors
    /// [`PeerUnreachable`](crate::ErrorKind::PeerUnreachable) names a node that could not be
    /// reached. [`Registry`](crate::ErrorKind::Registry) is returned, after at most the lease's TTL
    /// plus two seconds, by a node that is not certain to know all members, for example because it
    /// is cut off from etcd. After either, some nodes may still serve the old value; calling again
    /// is safe.
    ///
    /// ```
    /// # use gaocache::{Error, GroupDefinition, NodeBuilder, Settings, Source, loader};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # let shout = loader(async |key: String| Ok::<_, Error>(key.to_uppercase()));
    /// # let node = NodeBuilder::new(Settings::standalone("only"))
    /// #     .group(GroupDefinition::new("shout", shout))
    /// #     .bind()
    /// #     .await?;
    /// # let cache = node.cache();
    /// cache.get("shout", "night").await?;
    /// cache.remove("shout", "night").await?;
    /// assert_eq!(cache.get("shout", "night").await?.source, Source::Origin);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, group: &str, key: &str) -> Result<()> {
        self.at_node(self.service.remove(group, key)).await
    }

    /// Drops all keys of a group on every node; returns how many entries went.
    ///
    /// # Errors
    /// As [`Cache::remove`].
    ///
    /// ```
    /// # use gaocache::{Error, GroupDefinition, NodeBuilder, Settings, loader};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # let shout = loader(async |key: String| Ok::<_, Error>(key.to_uppercase()));
    /// # let node = NodeBuilder::new(Settings::standalone("only"))
    /// #     .group(GroupDefinition::new("shout", shout))
    /// #     .bind()
    /// #     .await?;
    /// # let cache = node.cache();
    /// cache.get_many("shout", &["morning", "night"]).await;
    /// assert_eq!(cache.purge("shout").await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge(&self, group: &str) -> Result<u64> {
        self.at_node(self.service.purge(group)).await
    }

    /// Drops all keys of a group whose values carry that tag
    /// ([`Metadata::with_tags`](crate::Metadata::with_tags)), on every node.
    ///
    /// # Errors
    /// As [`Cache::remove`].
    ///
    /// ```
    /// # use gaocache::{
    /// #     Error, GroupDefinition, Loaded, Metadata, NodeBuilder, Settings, Source, loader,
    /// # };
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Error> {
    /// # let shout = loader(async |key: String| {
    /// #     let tags = Metadata::default().with_tags(["loud"])?;
    /// #     Ok::<_, Error>(Loaded::from(key.to_uppercase()).with_metadata(tags))
    /// # });
    /// # let node = NodeBuilder::new(Settings::standalone("only"))
    /// #     .group(GroupDefinition::new("shout", shout))
    /// #     .bind()
    /// #     .await?;
    /// # let cache = node.cache();
    /// cache.get("shout", "night").await?;
    /// cache.purge_tag("shout", "loud").await?;
    /// assert_eq!(cache.get("shout", "night").await?.source, Source::Origin);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge_tag(&self, group: &str, tag: &str) -> Result<()> {
        self.at_node(self.service.purge_tag(group, tag)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::poll;
    use gaocache_testing::within;
    use tokio::{runtime::Builder, sync::Notify};

    use super::*;
    use crate::{Error, GroupDefinition, NodeBuilder, Settings, loader};

    #[test]
    fn what_a_runtime_has_begun_that_stands_still_ends_for_whoever_joins_it() {
        let runtime = || {
            Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
        };
        let (of_node, stands_still) = (runtime(), runtime());
        let [begun, goes_on] = [(); 2].map(|()| Arc::new(Notify::new()));
        let (begins, waits) = (begun.clone(), goes_on.clone());
        let load = loader(move |_| {
            let (begins, waits) = (begins.clone(), waits.clone());
            async move {
                begins.notify_one();
                waits.notified().await;
                Ok::<_, Error>("value")
            }
        });
        let node = NodeBuilder::new(Settings::standalone("only"));
        let node = node.group(GroupDefinition::new("group", load)).bind();
        let node = of_node.block_on(node).expect("bound");
        let cache = node.cache();
        std::thread::scope(|scope| {
            let (cache, begun, stands_still) = (&cache, &begun, &stands_still);
            let first = scope.spawn(move || {
                stands_still.block_on(async {
                    let mut get = Box::pin(cache.get("group", "key"));
                    assert!(poll!(get.as_mut()).is_pending());
                    begun.notified().await;
                });
            });
            of_node.block_on(async {
                while !first.is_finished() {
                    tokio::task::yield_now().await;
                }
                let mut get = pin!(cache.get("group", "key"));
                assert!(poll!(get.as_mut()).is_pending());
                goes_on.notify_one();
                let answer = within("the load", get).await.expect("a value");
                assert_eq!(answer.value, "value");
            });
        });
    }
}
