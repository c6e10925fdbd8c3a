//! Calls to other members, and what they carry.

use std::{sync::Arc, time::Duration};

use super::{KeyAsked, Peeked, PeerAnswer, PeerError, Timestamp};
use crate::{
    askers::Askers,
    membership::{IdHash, Member},
    record::Record,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};

/// Keys of one batch that are worked on at the same time where each takes a call of its own.
pub const MANY_AT_ONCE: usize = 64;
/// Keys of one request that are worked on at the same time, and so the most of one message between
/// nodes.
pub const MAX_BATCH_KEYS: usize = 1024;

/// Bound on the way of an entry from one node's memory into another's, from the moment it is read.
/// Receivers hold to it: a sender that gives up can't call back what lies in a socket's buffer.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is handed over of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handed {
    /// All of it.
    Over(Record),
    /// Nothing yet: that it is in use at its sender. The receiver keeps its copy warm, or says that
    /// it wants one.
    Announced {
        /// The size of its value.
        value_bytes: u64,
    },
}

/// An entry on its way to another member.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Name of its group.
    pub group: Arc<str>,
    /// Its key.
    pub key: Box<str>,
    /// What is handed over. Expires by the clock of the node that reads this.
    pub what: Handed,
    /// How often it was requested.
    pub use_count: u32,
    /// Whether the sender also keeps it.
    pub copy: bool,
}

impl Parcel {
    /// How long the value is that comes with it.
    pub fn value_bytes(&self) -> usize {
        match &self.what {
            Handed::Over(record) => record.value.as_ref().map_or(0, Bytes::len),
            Handed::Announced { .. } => 0,
        }
    }

    /// Its approximate size in a message, in bytes.
    pub fn bytes(&self) -> usize {
        /// Field tags, lengths, numbers.
        const FRAME: usize = 48;
        let value = match &self.what {
            Handed::Over(record) => record.bytes(),
            Handed::Announced { .. } => 0,
        };
        self.group.len() + self.key.len() + value + FRAME
    }
}

/// The member that hands entries over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its incarnation.
    pub member: IdHash,
    /// The revision of the ring by which the entries are the receiver's.
    pub revision: u64,
}

/// What became of an entry that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Kept.
    Kept,
    /// Already present.
    Known,
    /// Colder than the entries that fill the receiver, or larger than one shard of its store.
    Full,
    /// Its key is not valid, it has expired, it is larger than the receiver's `max_value`, it was
    /// recently removed or purged, or the receiver isn't sure to be a member.
    Refused,
    /// By the receiver's ring it is neither the receiver's nor the sender's: one of the two rings
    /// is behind.
    Misdirected,
    /// Of a group that the receiver doesn't have.
    UnknownGroup,
    /// Announced, and the receiver has a copy.
    Held,
    /// Announced, and the receiver wants a copy.
    Wanted,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Kept,
        Self::Known,
        Self::Full,
        Self::Refused,
        Self::Misdirected,
        Self::UnknownGroup,
        Self::Held,
        Self::Wanted,
    ];

    /// As in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Known => "known",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Misdirected => "misdirected",
            Self::UnknownGroup => "unknown_group",
            Self::Held => "held",
            Self::Wanted => "wanted",
        }
    }
}

/// What became of each entry of a batch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// One for each entry.
    pub fates: Vec<Fate>,
}

impl Receipt {
    /// How many entries had this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.fates.iter().filter(|it| **it == fate).count()
    }
}

/// A stream of batches to one member, answered in order.
#[async_trait]
pub trait HandoffStream: Send {
    /// Sends a batch whose entries were not read before `read_at`. Returns when it has been handed
    /// to the transport. The receiver learns how long the batch is under way; see
    /// [`TRANSFER_TIMEOUT`].
    async fn send(&mut self, batch: Vec<Parcel>, read_at: Timestamp) -> Result<(), PeerError>;
    /// The largest value that the receiver takes, in bytes, if it said so. A batch with a larger
    /// one may be more than its limit on messages, which ends the stream.
    fn largest_value(&self) -> Option<u64> {
        None
    }
    /// The receipt of the oldest batch that has none yet.
    async fn receipt(&mut self) -> Result<Receipt, PeerError>;
}

/// What a removal takes from a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A key.
    Key(Arc<str>),
    /// All values that carry a tag.
    Tag(Arc<str>),
    /// Everything.
    All,
}

/// What a member answers to a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Entries that went; 0 for those with a tag, which are not counted.
    pub entries: u64,
    /// Who answered: a member that was started anew meanwhile is another.
    pub incarnation: IdHash,
}

/// What a member answers to one that can't renew its lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voucher {
    /// It lists the asker and vouches for it.
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
    /// takes as long as the member's load may take; the caller may drop it at any time. Whether it
    /// waits for its turn here or there, it does so for all of `askers`.
    async fn fetch(
        &self,
        member: &Member,
        group: &str,
        key: &str,
        askers: &Askers,
    ) -> Result<PeerAnswer, PeerError>;
    /// Gets several values from that member, each by the rules of [`Peers::fetch`]. It ends when
    /// all are answered or given up. Without a method of its own, it fetches them one by one.
    async fn fetch_many(&self, member: &Member, group: &str, asked: Vec<KeyAsked>) {
        let fetches = asked.into_iter().map(|one| async move {
            let (key, askers) = (one.key().to_owned(), one.askers().clone());
            one.answer_from(self.fetch(member, group, &key, &askers))
                .await;
        });
        let fetches: Vec<_> = fetches.collect();
        stream::iter(fetches)
            .buffer_unordered(MANY_AT_ONCE)
            .collect::<()>()
            .await;
    }
    /// Whether that member is likely to have nearly all keys of a batch in memory, with values that
    /// [`Peers::held`] brings.
    fn holds_most(&self, member: &Member, group: &str) -> bool {
        let _ = (member, group);
        false
    }
    /// Gets what that member has in memory of these keys, in their order. It never loads. What is
    /// not there, too large to be sent with others, or refused, is `None`; so is all that the list
    /// is too short for. That has to be fetched.
    async fn held(&self, member: &Member, group: &str, keys: &[&str]) -> Vec<Option<PeerAnswer>> {
        let _ = (member, group, keys);
        Vec::new()
    }
    /// Gets what that member has in memory. It never loads.
    async fn peek(&self, member: &Member, group: &str, key: &str) -> Result<Peeked, PeerError>;
    /// Removes at that member.
    async fn remove(
        &self,
        member: &Member,
        group: &str,
        what: &Removal,
    ) -> Result<Removed, PeerError>;
    /// Asks that member whether it would vouch for `asker`, which counts on the members `counted`.
    async fn vouch(
        &self,
        member: &Member,
        asker: IdHash,
        counted: &[IdHash],
    ) -> Result<Voucher, PeerError>;
    /// Asks that member never to vouch for `against` again; returns who promised it.
    async fn promise(&self, member: &Member, against: IdHash) -> Result<IdHash, PeerError>;
    /// Opens a handoff stream to that member, for entries that belong there by the ring of that
    /// revision.
    async fn handoff(
        &self,
        member: &Member,
        revision: u64,
    ) -> Result<Box<dyn HandoffStream>, PeerError>;
    /// Returns when that member's view [has](crate::cluster::Topology::has_seen) the revision and
    /// the incarnation.
    async fn await_revision(
        &self,
        member: &Member,
        revision: u64,
        listed: IdHash,
    ) -> Result<(), PeerError>;
}
