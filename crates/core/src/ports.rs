//! What the core needs of the world, as traits that the edges implement and that tests replace.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    error::{BoxError, Error, Result},
    membership::{Fingerprint, Member, MemberState, View},
};

/// A moment, in milliseconds since the Unix epoch: comparable between nodes, as good as their
/// clocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than every other: the expiry of what doesn't expire.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment and `duration` more; [`Timestamp::NEVER`] if that is past all reckoning.
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long from `earlier` until this moment; zero if it has passed.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Where the core gets the time from.
pub trait Clock: Send + Sync + 'static {
    /// Now, by the wall.
    fn now(&self) -> Timestamp;
}

/// Wraps a task that is about to be spawned, so that it goes on in the trace of whoever spawns it.
pub type TaskWrapper = fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;

/// How long a loaded value may be kept, as the origin says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The origin says nothing: the group's own time to live holds.
    #[default]
    Unsaid,
    /// That long.
    For(Duration),
    /// Not at all: hand it to those who wait, keep nothing.
    Uncacheable,
}

/// What a loader returns. Anything that turns into [`Bytes`] turns into this.
///
/// ```
/// use std::time::Duration;
/// use gaocache_core::ports::{Freshness, Loaded};
///
/// let loaded = Loaded::from("ada").with_freshness(Freshness::For(Duration::from_secs(5)));
/// assert_eq!(loaded.value, "ada");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The value. It is copied before it is kept, so it may well be a slice of a larger buffer.
    pub value: Bytes,
    /// How long it may be kept.
    pub freshness: Freshness,
}

impl Loaded {
    /// The same value, to be kept that long.
    #[must_use]
    pub fn with_freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }
}

impl<T: Into<Bytes>> From<T> for Loaded {
    fn from(value: T) -> Self {
        Self {
            value: value.into(),
            freshness: Freshness::Unsaid,
        }
    }
}

/// Where a group's values come from. This is the trait that users who embed the crate implement (or
/// see [`loader`]).
///
/// ```
/// use async_trait::async_trait;
/// use gaocache_core::{Error, ports::{Loaded, Origin}};
///
/// struct Shout;
///
/// #[async_trait]
/// impl Origin for Shout {
///     async fn load(&self, key: &str) -> Result<Loaded, Box<dyn std::error::Error + Send + Sync>> {
///         match key {
///             "" => Err(Error::not_found("nothing to shout").into()),
///             _ => Ok(key.to_uppercase().into()),
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Loads the value of `key`. It is called once for all who ask for a key at the same moment,
    /// and goes on when they give up.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a key that does not exist; anything
    /// else for a failure.
    async fn load(&self, key: &str) -> Result<Loaded, BoxError>;
}

/// An [`Origin`] of an async closure, the way groupcache's `GetterFunc` is one.
///
/// The closure returns any error. One that is an [`Error`] keeps its kind, so that
/// [`Error::not_found`] says that there is no such key; any other means that the origin failed.
///
/// ```
/// use gaocache_core::{Error, ports::loader};
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

/// What a peer has of a key. Expiry is absolute, so that a value never gets younger by travelling.
#[derive(Clone, Debug)]
pub struct PeerAnswer {
    /// The value; `None`: the origin said that there is no such key.
    pub value: Option<Bytes>,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The validator that was made when it was loaded.
    pub entity_tag: u64,
    /// Whether the peer had it in memory, or loaded it now.
    pub was_hit: bool,
    /// The origin forbade keeping it.
    pub uncacheable: bool,
}

/// How asking a peer went wrong.
#[derive(Clone, Debug)]
pub enum PeerError {
    /// It could not be reached, hung up, took too long or speaks another version: somebody else may
    /// stand in for it.
    Unreachable(Error),
    /// It answered, and its answer is this error: asking another would bring the same.
    Answered(Error),
}

/// An entry on its way to another member.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Name of its group.
    pub group: Arc<str>,
    /// Its key.
    pub key: Box<str>,
    /// The value; `None`: the origin said that there is no such key.
    pub value: Option<Bytes>,
    /// When it expires: absolute, so that a value never gets younger by travelling.
    pub expires_at: Timestamp,
    /// The validator that was made when it was loaded.
    pub entity_tag: u64,
    /// How often it was asked for.
    pub use_count: u32,
    /// Whether the sender keeps it too.
    pub copy: bool,
}

impl Parcel {
    /// About what it takes in a message, in bytes.
    pub fn bytes(&self) -> usize {
        /// Field tags, lengths, numbers.
        const FRAME: usize = 48;
        let value = self.value.as_ref().map_or(0, Bytes::len);
        self.group.len() + self.key.len() + value + FRAME
    }
}

/// What became of the entries of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Kept.
    pub kept: u32,
    /// There already.
    pub known: u32,
    /// Colder than what fills the receiver.
    pub full: u32,
    /// Expired, removed or purged lately, or of no group of the receiver's.
    pub refused: u32,
}

/// A way on which batches of entries go to one member, answered in order.
#[async_trait]
pub trait HandoffStream: Send {
    /// Sends a batch; returns when it is on its way.
    async fn send(&mut self, batch: Vec<Parcel>) -> Result<(), PeerError>;
    /// The answer to the oldest batch that has none yet.
    async fn receipt(&mut self) -> Result<Receipt, PeerError>;
}

/// What a member answers to an invalidation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalidated {
    /// Entries that went.
    pub entries: u64,
    /// The members that it knows, if they are others than the asker told of.
    pub members: Vec<Member>,
}

/// Calls to other members.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Whether it makes sense to ask this member now: false while it is ejected after a failure.
    fn usable(&self, member: &Member) -> bool;
    /// The value from that member, which loads it if it must and never forwards the call.
    async fn fetch(&self, member: &Member, group: &str, key: &str)
    -> Result<PeerAnswer, PeerError>;
    /// What that member has in memory; it never loads for this.
    async fn peek(
        &self,
        member: &Member,
        group: &str,
        key: &str,
    ) -> Result<Option<PeerAnswer>, PeerError>;
    /// Drops a key, or with `None` the whole group, at that member. `known` is the fingerprint of
    /// the members that are told.
    async fn invalidate(
        &self,
        member: &Member,
        group: &str,
        key: Option<&str>,
        known: Fingerprint,
    ) -> Result<Invalidated, PeerError>;
    /// Opens a way for entries to that member.
    async fn handoff(&self, member: &Member) -> Result<Box<dyn HandoffStream>, PeerError>;
    /// Returns when that member's view has reached `revision`.
    async fn await_revision(&self, member: &Member, revision: u64) -> Result<(), PeerError>;
}

/// How a registry fares, for `/readyz` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHealth {
    /// Whether this node is registered, as far as it knows.
    pub registered: bool,
    /// Another process holds this node's id: it must not count as a member.
    pub conflict: bool,
    /// What stands in the way; empty when all is well.
    pub problem: Arc<str>,
}

/// Where nodes find each other.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// How long after its last sign of life a member is taken for dead; `None`: never.
    fn lease(&self) -> Option<Duration> {
        None
    }
    /// Begins to watch, then registers `me`, and keeps both up until [`Session::leave`]. Returns at
    /// once: what can't be reached yet is tried in the background, and [`Session::health`] tells.
    ///
    /// # Errors
    /// Only for what can never work: another member with this id, or `me` missing from a fixed
    /// list.
    async fn join(&self, me: Member) -> Result<Box<dyn Session>>;
}

/// A node's stay in a registry.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// The views as they come. The first value may be empty: nothing known yet.
    fn views(&self) -> watch::Receiver<View>;
    /// When this node's lease ends unless it is renewed, by the acknowledged renewals; `None`: it
    /// has none.
    fn lease_end(&self) -> Option<Timestamp> {
        None
    }
    /// How the session fares.
    fn health(&self) -> watch::Receiver<RegistryHealth>;
    /// Tells the others this node's state; returns when the registry took it. The revision is the
    /// one from which on a view has it; `None` where the registry has no way to tell.
    async fn announce(&self, state: MemberState) -> Result<Option<u64>>;
    /// Leaves: the registration is removed if it is still ours. The revision as in
    /// [`Session::announce`].
    async fn leave(&self) -> Result<Option<u64>>;
}

/// Told by a group what happens in it; the telemetry edge counts. Calls must be cheap and must not
/// block.
pub trait GroupObserver: Send + Sync + 'static {
    /// Somebody waited for a load that was already under way.
    fn waited_for_flight(&self);
    /// A value could not be kept: it is larger than the store takes.
    fn refused_by_store(&self);
    /// A copy of a key that another member owns was kept, because it is hot.
    fn kept_hot_copy(&self);
    /// Before a load, other members were asked whether they still have the key: true if one had it.
    fn asked_previous_owners(&self, found: bool);
}

/// Told of every load from an origin. Calls must be cheap and must not block.
pub trait LoadObserver: Send + Sync + 'static {
    /// A load ended: the bytes it brought, or what went wrong.
    fn loaded(&self, took: Duration, outcome: Result<usize, &Error>);
}

/// Told of the progress of handoffs. Calls must be cheap and must not block.
pub trait HandoffObserver: Send + Sync + 'static {
    /// A batch was answered: bytes that went, and what became of the entries.
    fn sent(&self, bytes: usize, receipt: Receipt);
    /// Entries could not be sent, for now.
    fn failed(&self, entries: usize);
    /// Entries that are still to go, as far as known; 0 when a pass has ended.
    fn waiting(&self, entries: usize);
}
