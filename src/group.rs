//! A group of keys, as a program defines it.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    origin::{bounds::Bounds, breaker::BreakerRules},
    settings::MAX_VALUE,
};
use gaocache_core::{
    group::{GroupRules, Query},
    ports::Origin,
    store::MemoryQuota,
};

/// A group of keys with one origin: how long its values live, how large they may be, and how many
/// loads run at once.
///
/// All nodes must define the same groups.
///
/// ```
/// use std::time::Duration;
/// use gaocache::{Error, GroupDefinition, loader};
///
/// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
/// let group = GroupDefinition::new("users", users)
///     .ttl(Duration::from_secs(60))
///     .negative_ttl(Duration::from_secs(5))
///     .max_value(1 << 20)
///     .load_timeout(Duration::from_secs(10))
///     .max_concurrency(16);
/// # drop(group);
/// ```
#[must_use]
pub struct GroupDefinition {
    pub(crate) rules: GroupRules,
    pub(crate) origin: Arc<dyn Origin>,
    pub(crate) bounds: Bounds,
}

impl fmt::Debug for GroupDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupDefinition")
            .field("rules", &self.rules)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl GroupDefinition {
    /// A group with the defaults: no TTL, values of at most 8 MiB, at most 64 loads at once and
    /// 10,000 that wait, and 30 seconds for a load.
    pub fn new(name: impl Into<Arc<str>>, origin: Arc<dyn Origin>) -> Self {
        Self {
            rules: GroupRules {
                name: name.into(),
                ttl: None,
                negative_ttl: Duration::ZERO,
                max_ttl: None,
                ttl_jitter: 0.0,
                stale_while_revalidate: Duration::ZERO,
                stale_if_error: Duration::ZERO,
                error_ttl: Duration::ZERO,
                max_value: MAX_VALUE,
                // A loader may say how long its value may be kept.
                origin_decides: true,
                soft_timeout: Duration::ZERO,
                refresh_ahead: false,
                query: Query::Refuse,
                memory: MemoryQuota::NONE,
            },
            origin,
            bounds: Bounds::default(),
        }
    }

    /// Default lifetime of a value, from when its loader is called. Without it: until it is evicted
    /// or removed. Zero: the value is not kept.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.rules.ttl = Some(ttl);
        self
    }

    /// How long the node remembers that a key does not exist. Without it: not at all.
    pub fn negative_ttl(mut self, negative_ttl: Duration) -> Self {
        self.rules.negative_ttl = negative_ttl;
        self
    }

    /// The maximum lifetime of a value, whatever the loader says.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gaocache::{Error, GroupDefinition, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// // Between 54 minutes and an hour, even if the loader says a day.
    /// let hour = Duration::from_secs(3600);
    /// let group = GroupDefinition::new("users", users).ttl(hour).max_ttl(hour).ttl_jitter(0.1);
    /// # drop(group);
    /// ```
    pub fn max_ttl(mut self, max_ttl: Duration) -> Self {
        self.rules.max_ttl = Some(max_ttl);
        self
    }

    /// Shortens each lifetime by a random part of it, up to this share (0 to 1), so that values
    /// that were loaded together don't expire together.
    pub fn ttl_jitter(mut self, share: f64) -> Self {
        self.rules.ttl_jitter = share;
        self
    }

    /// How long past its lifetime a value is served at once, as [`Source::Stale`], while it is
    /// loaded anew. A removed value is never served.
    ///
    /// [`Source::Stale`]: crate::Source::Stale
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.rules.stale_while_revalidate = window;
        self
    }

    /// How long past its lifetime a value is served, as [`Source::Stale`], if the origin can't
    /// answer. A removed value is never served.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gaocache::{Error, GroupDefinition, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// // For an hour, an old user is better than none, and than one that takes long.
    /// let group = GroupDefinition::new("users", users)
    ///     .ttl(Duration::from_secs(60))
    ///     .stale_while_revalidate(Duration::from_secs(10))
    ///     .stale_if_error(Duration::from_secs(3600))
    ///     .soft_timeout(Duration::from_millis(200));
    /// # drop(group);
    /// ```
    ///
    /// [`Source::Stale`]: crate::Source::Stale
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.rules.stale_if_error = window;
        self
    }

    /// After how long a get whose load isn't done is answered with the old value, as
    /// [`Source::Stale`], if there is one ([`GroupDefinition::stale_if_error`]); the load
    /// continues. Without it: gets wait for the load.
    ///
    /// [`Source::Stale`]: crate::Source::Stale
    pub fn soft_timeout(mut self, soft_timeout: Duration) -> Self {
        self.rules.soft_timeout = soft_timeout;
        self
    }

    /// Loads values that are asked for anew shortly before they expire, so that no get waits
    /// for it: the earlier, the longer loads take (XFetch, Vattani et al., VLDB 2015).
    ///
    /// ```
    /// use std::time::Duration;
    /// use gaocache::{Error, GroupDefinition, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// let minute = Duration::from_secs(60);
    /// let group = GroupDefinition::new("users", users).ttl(minute).refresh_ahead(true);
    /// # drop(group);
    /// ```
    pub fn refresh_ahead(mut self, ahead: bool) -> Self {
        self.rules.refresh_ahead = ahead;
        self
    }

    /// What a query string after a key means over HTTP. Without it, the request is
    /// refused.
    ///
    /// ```
    /// use gaocache::{Error, GroupDefinition, Query, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// // `GET /v1/users/7?full=yes` asks for the key `7?full=yes`.
    /// let group = GroupDefinition::new("users", users).query(Query::Append);
    /// # drop(group);
    /// ```
    pub fn query(mut self, query: Query) -> Self {
        self.rules.query = query;
        self
    }

    /// How long the node that loads a key remembers that its load failed: meanwhile, gets fail at
    /// once with the same error. Without it: not at all.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gaocache::{Error, GroupDefinition, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// // An origin that is down is asked once a second for a key, however many want it.
    /// let second = Duration::from_secs(1);
    /// let group = GroupDefinition::new("users", users).error_ttl(second);
    /// # drop(group);
    /// ```
    pub fn error_ttl(mut self, error_ttl: Duration) -> Self {
        self.rules.error_ttl = error_ttl;
        self
    }

    /// The largest value, in bytes.
    pub fn max_value(mut self, bytes: u64) -> Self {
        self.rules.max_value = bytes;
        self
    }

    /// The part of [`Settings::capacity`](crate::Settings::capacity) that the group keeps when
    /// others want room, as a ratio from 0 to 1. Those of all groups add up to 1 at most. Without
    /// it: none.
    pub fn memory_share(mut self, ratio: f64) -> Self {
        self.rules.memory.share = ratio;
        self
    }

    /// The part of [`Settings::capacity`](crate::Settings::capacity) that the group never exceeds,
    /// as a ratio. Without it: all of it.
    pub fn memory_limit(mut self, ratio: f64) -> Self {
        self.rules.memory.limit = ratio;
        self
    }

    /// How long a load may run. Past that, those who wait for it get
    /// [`ErrorKind::OriginTimeout`](crate::ErrorKind::OriginTimeout), and the loader
    /// is dropped. One that blocks its thread instead of awaiting can't be dropped: use
    /// `tokio::task::spawn_blocking`.
    pub fn load_timeout(mut self, load_timeout: Duration) -> Self {
        self.bounds.load_timeout = load_timeout;
        self
    }

    /// How many loads of this node run at once.
    pub fn max_concurrency(mut self, loads: usize) -> Self {
        self.bounds.max_concurrency = loads;
        self
    }

    /// How many loads may wait for their turn; past that a get fails as overloaded.
    pub fn max_queue(mut self, loads: usize) -> Self {
        self.bounds.max_queue = loads;
        self
    }

    /// Adds a circuit breaker: while the origin fails or is slow, only one load runs at a time, to
    /// find out whether it is back. Meanwhile, gets that need another load fail with
    /// [`ErrorKind::BreakerOpen`](crate::ErrorKind::BreakerOpen).
    pub fn breaker(mut self, rules: BreakerRules) -> Self {
        self.bounds.breaker = Some(rules);
        self
    }

    /// Begins a load a second time if it takes longer than 95 % of the group's last loads at this
    /// node did; the first answer counts, and the other load is dropped. At most one more load for
    /// twenty, and none for batches, or while the breaker is not closed. Only for loaders that may
    /// run twice at once for one key.
    ///
    /// ```
    /// use gaocache::{Error, GroupDefinition, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// let group = GroupDefinition::new("users", users).hedge(true);
    /// # drop(group);
    /// ```
    pub fn hedge(mut self, hedge: bool) -> Self {
        self.bounds.hedge = hedge;
        self
    }

    /// Keeps values of at least so many bytes compressed (zstd), and sends them so between nodes,
    /// where that saves a tenth of them or more. Callers get them as the loader gave them. Without
    /// it, or with 0: none.
    ///
    /// ```
    /// use gaocache::{Error, GroupDefinition, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// let group = GroupDefinition::new("users", users).compress_min_bytes(4 << 10);
    /// # drop(group);
    /// ```
    pub fn compress_min_bytes(mut self, bytes: u64) -> Self {
        self.bounds.compress_min_bytes = bytes;
        self
    }

    /// Spares a cold origin: from the first load on, the concurrency grows from a tenth to the
    /// whole within this time.
    ///
    /// ```
    /// use std::time::Duration;
    /// use gaocache::{Error, GroupDefinition, loader};
    ///
    /// let users = loader(async |id: String| Ok::<_, Error>(format!("user {id}")));
    /// // At first ten loads at once, after half a minute a hundred; a thousand more may wait.
    /// let group = GroupDefinition::new("users", users)
    ///     .max_concurrency(100)
    ///     .max_queue(1_000)
    ///     .ramp(Duration::from_secs(30));
    /// # drop(group);
    /// ```
    pub fn ramp(mut self, ramp: Duration) -> Self {
        self.bounds.ramp = ramp;
        self
    }
}
