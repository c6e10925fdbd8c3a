//! How nodes find each other, and what they publish for each other where calls don't reach.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Removal, Timestamp};
use crate::{
    error::{Error, ErrorKind, Result},
    membership::{IdHash, Member, MemberState, View},
};

/// Names a notice. Drawn at random and never given again: a registry that lost its data counts its
/// revisions anew, so that what was confirmed before could stand for a notice that came later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId(pub u64);

/// What a member publishes in the registry for the others, since it can't reach one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something was removed.
    Remove {
        /// Name of the group.
        group: Arc<str>,
        /// What is removed from it.
        what: Removal,
    },
    /// Confirm when your view has this revision and this incarnation, as in
    /// [`Peers::await_revision`](super::Peers::await_revision).
    Seen {
        /// The registry's revision.
        revision: u64,
        /// The incarnation.
        listed: IdHash,
    },
}

/// The notices that stand in the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// By their names.
    pub standing: BTreeMap<NoticeId, Notice>,
    /// Those that each member has confirmed, by its incarnation.
    pub confirmed: HashMap<IdHash, BTreeSet<NoticeId>>,
}

fn no_notices() -> Error {
    Error::new(ErrorKind::Registry, "this registry carries no notices")
}

/// The registry's health, for `/readyz` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHealth {
    /// Whether this node is registered, as far as it knows.
    pub registered: bool,
    /// What is known to be registered: the `instance` of its incarnation, and its
    /// lease.
    pub written: Option<(Arc<str>, i64)>,
    /// Another process holds this node's id, so this node must not count as a member.
    pub conflict: bool,
    /// This incarnation is off the list for good: the others took it off while it could not be
    /// reached, or another process registered under its id. It is no longer notified of removals.
    pub expelled: bool,
    /// What is wrong; empty when all is well.
    pub problem: Arc<str>,
}

/// The lease under which this node is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLease {
    /// Its id, which no other lease ever has.
    pub id: i64,
    /// Until when it surely lives, by the acknowledged renewals, counted from when they were sent.
    pub end: Timestamp,
}

/// How nodes find each other.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// The time to live of a member's lease: how long after its last renewal it is considered dead.
    /// `None` if members have no lease.
    fn lease(&self) -> Option<Duration> {
        None
    }
    /// Starts to watch, registers `me` once [`Session::register`] was called, and keeps both up
    /// until [`Session::leave`]. Returns immediately. If the registry can't be reached, it retries
    /// in the background, and [`Session::health`] reports it.
    ///
    /// # Errors
    /// Only for permanent errors: another member has this id, or `me` is missing from a fixed list.
    async fn join(&self, me: Member) -> Result<Box<dyn Session>>;
}

/// A node's session with a registry.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// The member that is registered under the id of `me` and is another start of a process.
    /// Resolves when the registry has answered once. `None` also where nobody can take an id from
    /// another.
    async fn holder(&self, _me: &Member) -> Option<Member> {
        None
    }
    /// Takes this node's id, even from another process: the registration begins.
    fn register(&self) {}
    /// The current view, and every later one. The first may be empty, if nothing is known yet.
    fn views(&self) -> watch::Receiver<View>;
    /// The lease under which this node is registered; `None`: it has none, or others took this node
    /// off the list.
    fn lease(&self) -> Option<HeldLease> {
        None
    }
    /// Begins another incarnation, named `instance`, after others took this node off the list.
    async fn rejoin(&self, _instance: &str) -> Result<()> {
        Ok(())
    }
    /// Whether the lease of a member that vanished has ended, so that it can't come back by it.
    async fn has_ended(&self, _member: &Member) -> Result<bool> {
        Ok(true)
    }
    /// Permanently takes a member that vanished off the list; false if it came back meanwhile.
    async fn expel(&self, _member: &Member) -> Result<bool> {
        Ok(true)
    }
    /// Whether the registry is young, as it says at this moment; a view may not show it yet.
    async fn is_young(&self) -> Result<bool> {
        Ok(false)
    }
    /// Tells all members through the registry; returns the notice's name.
    async fn post(&self, _notice: &Notice) -> Result<NoticeId> {
        Err(no_notices())
    }
    /// Takes that notice back.
    async fn withdraw(&self, _posted: NoticeId) -> Result<()> {
        Err(no_notices())
    }
    /// Confirms that the incarnation `me` has done what these notices ask for.
    async fn confirm(&self, _me: IdHash, _done: &BTreeSet<NoticeId>) -> Result<()> {
        Err(no_notices())
    }
    /// The notices that stand, and how far each member has confirmed; `None` where members can't be
    /// notified through the registry.
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
