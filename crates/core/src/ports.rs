//! What the core needs from its environment, as traits that the edges implement and tests replace.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::{
    error::{BoxError, Error, ErrorKind, Result},
    membership::{IdHash, Member, MemberState, View},
};

/// Bound on the way of an entry from one node's memory into another's, from the moment it is read.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// A moment, in milliseconds since the Unix epoch: comparable between nodes, as good as their
/// clocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than any other moment: the expiry of an entry that doesn't expire.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment plus `duration`; [`Timestamp::NEVER`] on overflow.
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// The time from `earlier` to this moment; zero if this moment is the earlier one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The core's source of time.
pub trait Clock: Send + Sync + 'static {
    /// The current wall-clock time.
    fn now(&self) -> Timestamp;
}

/// Wraps a task that is about to be spawned, so that it continues the trace of its spawner.
pub type TaskWrapper = fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()>;

/// How long a loaded value may be kept, according to the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// The origin does not say; the group's time to live applies.
    #[default]
    Unsaid,
    /// For this long.
    For(Duration),
    /// Not at all: return it to the waiting callers, but don't keep it.
    Uncacheable,
}

/// The result of a load. Anything that turns into [`Bytes`] turns into this.
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
    /// The value. It is copied before it is kept, so it may be a slice of a larger buffer.
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

/// Where a group's values come from. Programs that embed the crate implement this trait, or use
/// [`loader`].
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
    /// Loads the value of `key`. Concurrent requests for a key share one call, which continues even
    /// if they give up.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a key that does not exist; anything
    /// else for a failure.
    async fn load(&self, key: &str) -> Result<Loaded, BoxError>;

    /// Loads as [`Origin::load`] does, unless nobody wants the value any more before the load has
    /// begun: `abandoned` resolves then, and the outcome goes to nobody. Only an origin whose loads
    /// wait for their turn needs a method of its own here.
    ///
    /// # Errors
    /// As [`Origin::load`].
    async fn load_in_turn(
        &self,
        key: &str,
        abandoned: BoxFuture<'_, ()>,
    ) -> Result<Loaded, BoxError> {
        drop(abandoned);
        self.load(key).await
    }
}

/// An [`Origin`] from an async closure, like groupcache's `GetterFunc`.
///
/// The closure can return any error. An [`Error`] keeps its kind, so [`Error::not_found`] means
/// that there is no such key. Any other error means that the origin failed.
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

/// A peer's answer for a key. Expiry is absolute, so that a transfer never extends a value's life.
#[derive(Clone, Debug)]
pub struct PeerAnswer {
    /// The value; `None` if the origin said that there is no such key.
    pub value: Option<Bytes>,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The validator, computed when the value was loaded.
    pub entity_tag: u64,
    /// Whether the peer had the value in memory, as opposed to loading it now.
    pub was_hit: bool,
    /// The receiver must not keep the value.
    pub uncacheable: bool,
}

/// Why a call to a peer brought nothing.
#[derive(Clone, Debug)]
pub enum PeerError {
    /// There is no answer of this peer's that this node can use: the connection was refused or
    /// broke, or it runs an incompatible version. Another member may stand in for it. A load that
    /// takes long is no reason to say so: the stand-in would load the same key beside it.
    Unreachable(Error),
    /// The call ended with this error: the peer said so, or its load took longer than loads may.
    Answered(Error),
}

/// An entry on its way to another member.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Name of its group.
    pub group: Arc<str>,
    /// Its key.
    pub key: Box<str>,
    /// The value; `None` if the origin said that there is no such key.
    pub value: Option<Bytes>,
    /// When it expires. Absolute, so that a transfer never extends a value's life.
    pub expires_at: Timestamp,
    /// The validator, computed when the value was loaded.
    pub entity_tag: u64,
    /// How often it was requested.
    pub use_count: u32,
    /// Whether the sender also keeps it.
    pub copy: bool,
}

impl Parcel {
    /// Its approximate size in a message, in bytes.
    pub fn bytes(&self) -> usize {
        /// Field tags, lengths, numbers.
        const FRAME: usize = 48;
        let value = self.value.as_ref().map_or(0, Bytes::len);
        self.group.len() + self.key.len() + value + FRAME
    }
}

/// The outcome for the entries of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Kept.
    pub kept: u32,
    /// Already present.
    pub known: u32,
    /// Colder than the entries that fill the receiver.
    pub full: u32,
    /// Expired, recently removed or purged, or of a group that the receiver does not have.
    pub refused: u32,
}

/// A stream of batches to one member, answered in order.
#[async_trait]
pub trait HandoffStream: Send {
    /// Sends a batch. Returns when it has been handed to the transport.
    async fn send(&mut self, batch: Vec<Parcel>) -> Result<(), PeerError>;
    /// The receipt of the oldest batch that has none yet.
    async fn receipt(&mut self) -> Result<Receipt, PeerError>;
}

/// What a member answers to a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Entries that went.
    pub entries: u64,
    /// Who answered: a member that was started anew meanwhile is another.
    pub incarnation: IdHash,
}

/// What a member answers to one that can't renew its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voucher {
    /// It lists the asker, and gives its word.
    pub yes: bool,
    /// Members that the asker counts on and for whom it would not vouch.
    pub excluded: Vec<IdHash>,
}

/// Calls to other members.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Whether this member should be called now. False while it is ejected after a failure.
    fn usable(&self, member: &Member) -> bool;
    /// Gets the value from that member, which loads it if necessary and never forwards the call. It
    /// takes as long as the member's load may take; the caller may drop it at any time.
    async fn fetch(&self, member: &Member, group: &str, key: &str)
    -> Result<PeerAnswer, PeerError>;
    /// Gets what that member has in memory. It never loads.
    async fn peek(
        &self,
        member: &Member,
        group: &str,
        key: &str,
    ) -> Result<Option<PeerAnswer>, PeerError>;
    /// Drops a key, or with `None` the whole group, at that member.
    async fn remove(
        &self,
        member: &Member,
        group: &str,
        key: Option<&str>,
    ) -> Result<Removed, PeerError>;
    /// Asks that member whether it would vouch for `asker`, who counts on the members `counted`.
    async fn vouch(
        &self,
        member: &Member,
        asker: IdHash,
        counted: &[IdHash],
    ) -> Result<Voucher, PeerError>;
    /// Asks that member never to vouch for `against` again; returns who promised it.
    async fn promise(&self, member: &Member, against: IdHash) -> Result<IdHash, PeerError>;
    /// Opens a way for entries to that member.
    async fn handoff(&self, member: &Member) -> Result<Box<dyn HandoffStream>, PeerError>;
    /// Returns when that member's view has reached `revision`.
    async fn await_revision(&self, member: &Member, revision: u64) -> Result<(), PeerError>;
}

/// What a member tells the others through the registry, since it can't reach one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A key was removed, or with `None` the whole group.
    Remove {
        /// Name of the group.
        group: Arc<str>,
        /// The key.
        key: Option<Box<str>>,
    },
    /// Confirm when your view has reached this revision.
    Seen {
        /// The registry's revision.
        revision: u64,
    },
}

/// The notices that stand in the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// By the revision at which each was posted.
    pub standing: BTreeMap<u64, Notice>,
    /// The revision up to which each member has confirmed, by incarnation.
    pub confirmed: HashMap<IdHash, u64>,
}

fn no_notices() -> Error {
    Error::new(ErrorKind::Registry, "this registry carries no notices")
}

/// How a registry fares, for `/readyz` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHealth {
    /// Whether this node is registered, as far as it knows.
    pub registered: bool,
    /// Another process holds this node's id, so this node must not count as a member.
    pub conflict: bool,
    /// The others took this node off the list while it could not be reached.
    pub expelled: bool,
    /// What stands in the way; empty when all is well.
    pub problem: Arc<str>,
}

/// How nodes find each other.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// The time to live of a member's lease: how long after its last renewal it is considered dead.
    /// `None` if members have no lease.
    fn lease(&self) -> Option<Duration> {
        None
    }
    /// Starts to watch, then registers `me`, and keeps both up until [`Session::leave`]. Returns
    /// immediately. If the registry can't be reached, it retries in the background, and
    /// [`Session::health`] reports it.
    ///
    /// # Errors
    /// Only for permanent errors: another member has this id, or `me` is missing from a fixed list.
    async fn join(&self, me: Member) -> Result<Box<dyn Session>>;
}

/// A node's session with a registry.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// The current view, and every later one. The first may be empty, if nothing is known yet.
    fn views(&self) -> watch::Receiver<View>;
    /// Until when this node's lease surely lives, by the acknowledged renewals, counted from when
    /// they were sent; `None`: it has none, or others took this node off the list.
    fn lease_end(&self) -> Option<Timestamp> {
        None
    }
    /// Begins another life, told by `instance`, after others took this node off the list.
    async fn rejoin(&self, _instance: &str) -> Result<()> {
        Ok(())
    }
    /// Whether the lease of a member that vanished has ended, so that it can't come back by it.
    async fn has_ended(&self, _member: &Member) -> Result<bool> {
        Ok(true)
    }
    /// Takes a member that vanished off the list for good; false if it came back meanwhile.
    async fn expel(&self, _member: &Member) -> Result<bool> {
        Ok(true)
    }
    /// Tells all members through the registry; returns the notice's revision.
    async fn post(&self, _notice: &Notice) -> Result<u64> {
        Err(no_notices())
    }
    /// Takes back what was posted at that revision.
    async fn withdraw(&self, _revision: u64) -> Result<()> {
        Err(no_notices())
    }
    /// Confirms that the incarnation `me` has done what all notices up to that revision ask for.
    async fn confirm(&self, _me: IdHash, _revision: u64) -> Result<()> {
        Err(no_notices())
    }
    /// The notices that stand, and how far each member has confirmed; `None` where members can't be
    /// told through the registry.
    fn notices(&self) -> Option<watch::Receiver<Notices>> {
        None
    }
    /// How the session fares.
    fn health(&self) -> watch::Receiver<RegistryHealth>;
    /// Announces this node's state. Returns when the registry has accepted it, with the revision
    /// from which on views contain it, or `None` if the registry has no revisions.
    async fn announce(&self, state: MemberState) -> Result<Option<u64>>;
    /// Removes the registration, if it is still ours. Returns a revision as [`Session::announce`]
    /// does.
    async fn leave(&self) -> Result<Option<u64>>;
}

/// Is notified of events in a group, which telemetry counts. Calls must be cheap and must not
/// block.
pub trait GroupObserver: Send + Sync + 'static {
    /// A caller joined a load in flight.
    fn waited_for_flight(&self);
    /// A value was not kept because it is too large for the store.
    fn refused_by_store(&self);
    /// A hot copy of a key that another member owns was kept.
    fn kept_hot_copy(&self);
    /// Before a load, other members were asked for the key. `found` if one had it.
    fn asked_previous_owners(&self, found: bool);
}

/// Told of every load from an origin. Calls must be cheap and must not block.
pub trait LoadObserver: Send + Sync + 'static {
    /// A load ended: the bytes it brought, or what went wrong.
    fn loaded(&self, took: Duration, outcome: Result<usize, &Error>);
}

/// Is notified of the progress of handoffs. Calls must be cheap and must not block.
pub trait HandoffObserver: Send + Sync + 'static {
    /// A batch was answered: the bytes sent, and the outcome for its entries.
    fn sent(&self, bytes: usize, receipt: Receipt);
    /// Entries could not be sent yet.
    fn failed(&self, entries: usize);
    /// Entries that are still to be sent, as far as known; 0 when a pass has ended.
    fn waiting(&self, entries: usize);
}
