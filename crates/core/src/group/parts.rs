//! What a group is made of, and what it answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    cluster::Cluster,
    copy_queue::CopyQueue,
    hot::HotKeys,
    ports::{Clock, Peers, TaskWrapper, Timestamp},
    standing::Standing,
    store::Store,
};

/// What a group is made of.
#[derive(Clone, Debug)]
pub struct GroupRules {
    /// Its name.
    pub name: Arc<str>,
    /// How long a value is kept where the origin says nothing; `None`: until it is evicted or
    /// removed.
    pub ttl: Option<Duration>,
    /// How long it is kept in mind that a key does not exist; zero: not at all.
    pub negative_ttl: Duration,
    /// How long a value may live at most, whatever the origin says; `None`: no limit.
    pub max_ttl: Option<Duration>,
    /// A life is shortened by a random part of it, up to this share (0 to 1), so that what was
    /// loaded together does not expire together.
    pub ttl_jitter: f64,
    /// How long past its life a value is served at once, while it is loaded anew; zero: not at all.
    pub stale_while_revalidate: Duration,
    /// How long past its life a value is served in place of an error of the origin; zero: not at
    /// all.
    pub stale_if_error: Duration,
    /// How long a failed load is kept in mind; zero: not at all.
    pub error_ttl: Duration,
    /// The largest value, in bytes.
    pub max_value: u64,
}

/// Whether a group may have this name: 1 to 64 letters, digits, `.`, `_` or `-`, so that it fits
/// into paths, labels and keys of etcd.
pub fn is_group_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What the groups of a node share.
#[derive(Clone)]
pub struct Shared {
    /// The ring in force.
    pub cluster: Arc<Cluster>,
    /// This node's place among the members.
    pub standing: Arc<Standing>,
    /// Calls to other members.
    pub peers: Arc<dyn Peers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What this node holds as owner, or as the one who holds a copy for the owner.
    pub owned: Arc<Store>,
    /// Copies of what others hold.
    pub hot: Arc<Store>,
    /// Which keys deserve a copy.
    pub hot_keys: Arc<HotKeys>,
    /// Members that hold each key: 1, or 2 with a copy at the next in ring order.
    pub replicas: usize,
    /// Queue of entries to copy to another member.
    pub copies: CopyQueue,
    /// Wraps the tasks that load.
    pub wrap_task: TaskWrapper,
}

impl Shared {
    /// Runs a load in a task of its own: it goes on when those who wait for it give up.
    pub(super) fn spawn(&self, load: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn((self.wrap_task)(Box::pin(load)));
    }
}

/// Where an answer came from, as the asked node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This node's memory.
    Hit,
    /// The owner's memory, or that of a member that held it before.
    Peer,
    /// The origin, asked for this request by this node or by the owner.
    Origin,
    /// The owner's memory, though the value's life is over: it is being loaded anew, or the origin
    /// can't answer.
    Stale,
}

impl Source {
    /// As in the header `X-Cache` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Peer => "peer",
            Self::Origin => "origin",
            Self::Stale => "stale",
        }
    }
}

/// An answer to a get.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The value; a counted reference to the kept bytes.
    pub value: Bytes,
    /// When it expires.
    pub expires_at: Timestamp,
    /// A strong validator, the same on every node.
    pub entity_tag: u64,
    /// Where it came from.
    pub source: Source,
    /// The id of the key's owner; empty while there is no ring.
    pub owner: Arc<str>,
}
