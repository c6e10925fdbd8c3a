//! What a get returns, in the process and to a client.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use gaocache_core::{
    group::{self, Source},
    metadata::Metadata,
    ports::Timestamp,
};

/// An answer to a get.
///
/// ```
/// use std::time::Duration;
/// use gaocache::{BoxError, GroupDefinition, NodeBuilder, Settings, Source, loader};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), gaocache::Error> {
/// let upper = loader(async |key: String| Ok::<_, BoxError>(key.to_uppercase()));
/// let node = NodeBuilder::new(Settings::standalone("only"))
///     .group(GroupDefinition::new("upper", upper).ttl(Duration::from_secs(60)))
///     .bind()
///     .await?;
/// let cache = node.cache();
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let running = tokio::spawn(node.run(async { drop(stopped.await) }));
///
/// let answer = cache.get("upper", "a").await?;
/// assert_eq!(answer.value, "A");
/// assert_eq!(answer.source, Source::Origin);
/// assert!(answer.ttl_remaining <= Some(Duration::from_secs(60)));
/// # drop(stop);
/// # running.await.expect("no panic")
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The value; a counted reference, never a copy.
    pub value: Bytes,
    /// Its remaining lifetime; `None`: it does not expire.
    pub ttl_remaining: Option<Duration>,
    /// A strong validator, the same on every node.
    pub entity_tag: u64,
    /// Where the answering node found the value.
    pub source: Source,
    /// The id of the key's owner; empty while there is no ring.
    pub owner: Arc<str>,
    /// What the origin said of the value, as headers of HTTP.
    pub metadata: Metadata,
}

impl Answer {
    pub(crate) fn at(now: Timestamp, answer: group::Answer) -> Self {
        let expires = answer.expires_at != Timestamp::NEVER;
        Self {
            value: answer.value,
            ttl_remaining: expires.then(|| answer.expires_at.since(now)),
            entity_tag: answer.entity_tag,
            source: answer.source,
            owner: answer.owner,
            metadata: answer.metadata,
        }
    }
}
