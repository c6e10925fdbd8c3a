//! Where a group's values come from.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;

use crate::{error::BoxError, metadata::Metadata};

/// How long a loaded value may be kept, according to the origin.
///
/// ```
/// # mod gaocache {
/// #     pub use gaocache_core::{error::BoxError, ports::{Freshness, Loaded, loader}};
/// # }
/// use gaocache::{BoxError, Freshness, Loaded, loader};
///
/// // A price of this moment is given to those who wait for it, and to nobody else.
/// let prices = loader(async |article: String| {
///     let price = Loaded::from(format!("price of {article}"));
///     Ok::<_, BoxError>(price.with_freshness(Freshness::Uncacheable))
/// });
/// # drop(prices);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The origin does not say; the group's time to live applies.
    #[default]
    Unsaid,
    /// For this long, counted from when the origin was asked.
    For(Duration),
    /// Not at all: return it to the waiting callers, but don't keep it.
    Uncacheable,
}

/// The result of a load. Anything that turns into [`Bytes`] turns into this.
///
/// ```
/// # mod gaocache { pub use gaocache_core::ports::{Freshness, Loaded}; }
/// use std::time::Duration;
/// use gaocache::{Freshness, Loaded};
///
/// let loaded = Loaded::from("ada").with_freshness(Freshness::For(Duration::from_secs(5)));
/// assert_eq!(loaded.value, "ada");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The value. It is copied before it is kept, so it may be a slice of a larger buffer.
    pub value: Bytes,
    /// How long it may be kept.
    pub freshness: Freshness,
    /// What else there is to say of it: it goes with the value to whoever gets it.
    pub metadata: Metadata,
}

impl Loaded {
    /// The same value, to be kept that long.
    #[must_use]
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// The same value, with this said of it.
    ///
    /// ```
    /// # mod gaocache { pub use gaocache_core::{error::Result, metadata::Metadata, ports::Loaded}; }
    /// use gaocache::{Loaded, Metadata, Result};
    ///
    /// # fn main() -> Result<()> {
    /// let metadata = Metadata::new([("content-type", "image/png"), ("etag", "\"v7\"")])?;
    /// let loaded = Loaded::from(&b"\x89PNG"[..]).with_metadata(metadata);
    /// # drop(loaded);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }
}

impl<T: Into<Bytes>> From<T> for Loaded {
    fn from(value: T) -> Self {
        Self {
            value: value.into(),
            freshness: Freshness::Unsaid,
            metadata: Metadata::NONE,
        }
    }
}

/// The result of a load of a value that is kept already.
///
/// ```
/// # mod gaocache {
/// #     pub use async_trait::async_trait;
/// #     pub use gaocache_core::{error::BoxError, metadata::Metadata};
/// #     pub use gaocache_core::ports::{Freshness, Loaded, Origin, Reloaded};
/// # }
/// use gaocache::{BoxError, Freshness, Loaded, Metadata, Origin, Reloaded, async_trait};
///
/// /// One value, which never changes.
/// struct Constant;
///
/// #[async_trait]
/// impl Origin for Constant {
///     async fn load(&self, _: &str) -> Result<Loaded, BoxError> {
///         let metadata = Metadata::new([("etag", "\"1\"")])?;
///         Ok(Loaded::from("a large value").with_metadata(metadata))
///     }
///
///     async fn reload(&self, key: &str, kept: &Metadata) -> Result<Reloaded, BoxError> {
///         if kept.get("etag") != Some("\"1\"") {
///             return self.load(key).await.map(Reloaded::Changed);
///         }
///         Ok(Reloaded::Unchanged {
///             freshness: Freshness::Unsaid,
///             metadata: Metadata::NONE,
///         })
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reloaded {
    /// The value as it is now.
    Changed(Loaded),
    /// The value is still what it was, and lives for another while.
    Unchanged {
        /// How long it may be kept, counted from when the origin was asked.
        freshness: Freshness,
        /// Takes the place of what was said under the same names.
        metadata: Metadata,
    },
}

impl Reloaded {
    /// The size of the value that was brought, in bytes.
    pub fn value_bytes(&self) -> usize {
        match self {
            Self::Changed(loaded) => loaded.value.len(),
            Self::Unchanged { .. } => 0,
        }
    }
}

/// Where a group's values come from. Programs that embed the crate implement this trait, or use
/// [`loader`].
///
/// ```
/// # mod gaocache {
/// #     pub use async_trait::async_trait;
/// #     pub use gaocache_core::{error::{BoxError, Error}, ports::{Loaded, Origin}};
/// # }
/// use gaocache::{BoxError, Error, Loaded, Origin, async_trait};
///
/// struct Shout;
///
/// #[async_trait]
/// impl Origin for Shout {
///     async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
///         match key {
///             "" => Err(Error::not_found("nothing to shout").into()),
///             _ => Ok(key.to_uppercase().into()),
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Loads the value of `key`. Concurrent requests for a key share one call, which continues even
    /// if they give up.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a key that does not exist; anything
    /// else for a failure.
    async fn load(&self, key: &str) -> Result<Loaded, BoxError>;

    /// Loads the value of a key of which an older value is kept; `kept` is what was said of it,
    /// with its `etag` or `last-modified`. An origin that can tell that the value has not changed
    /// need not bring it again. Without a method of its own, it is loaded.
    ///
    /// # Errors
    /// As [`Origin::load`].
    async fn reload(&self, key: &str, kept: &Metadata) -> Result<Reloaded, BoxError> {
        let _ = kept;
        self.load(key).await.map(Reloaded::Changed)
    }

    /// How many keys [`Origin::load_many`] takes at once. With 1, it is never called.
    fn batch_size(&self) -> usize {
        1
    }

    /// Loads the values of several keys, in their order: of those that one `get_many` found in no
    /// memory. At most [`Origin::batch_size`] of them. Without a method of its own, they are loaded
    /// one by one.
    ///
    /// ```
    /// # mod gaocache {
    /// #     pub use async_trait::async_trait;
    /// #     pub use gaocache_core::{error::BoxError, ports::{Loaded, Origin}};
    /// # }
    /// use gaocache::{BoxError, Loaded, Origin, async_trait};
    ///
    /// struct Shout;
    ///
    /// #[async_trait]
    /// impl Origin for Shout {
    ///     async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
    ///         Ok(key.to_uppercase().into())
    ///     }
    ///
    ///     fn batch_size(&self) -> usize {
    ///         100
    ///     }
    ///
    ///     async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, BoxError>> {
    ///         // Here: one query for all of them.
    ///         keys.iter().map(|key| Ok(key.to_uppercase().into())).collect()
    ///     }
    /// }
    /// ```
    async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, BoxError>> {
        join_all(keys.iter().map(|key| self.load(key))).await
    }
}

/// An [`Origin`] from an async closure, like groupcache's `GetterFunc`.
///
/// The closure can return any error. An [`Error`](crate::Error) keeps its kind, so
/// [`Error::not_found`](crate::Error::not_found) means that there is no such key. Any other error
/// means that the origin failed.
///
/// ```
/// # mod gaocache { pub use gaocache_core::{Error, ports::loader}; }
/// use gaocache::{Error, loader};
///
/// let squares = loader(async |key: String| match key.parse::<u64>() {
///     Ok(number) => Ok((number * number).to_string()),
///     Err(_) => Err(Error::not_found("not a number")),
/// });
/// # drop(squares);
/// ```
pub fn loader<F, Fut, V, E>(load: F) -> Arc<dyn Origin>
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: Into<Loaded> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    struct Closure<F>(F);

    #[async_trait]
    impl<F, Fut, V, E> Origin for Closure<F>
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<Loaded> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
            let loaded = (self.0)(key.to_owned()).await;
            loaded.map(Into::into).map_err(Into::into)
        }
    }
    Arc::new(Closure(load))
}
