//! What a group is made of, and what it answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    cluster::Cluster,
    copy_queue::CopyQueue,
    hot::HotKeys,
    ports::{Clock, Peers, TaskWrapper, Timestamp},
    record::Record,
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
    /// The largest value, in bytes.
    pub max_value: u64,
    /// Whether the origin may say how long a value lives, against `ttl`.
    pub origin_decides: bool,
}

impl GroupRules {
    /// The record that came from another node, with a life that this node could have given it.
    /// `None` if it would have none.
    pub(super) fn within_life(&self, record: &Record, now: Timestamp) -> Option<Record> {
        let longest = match (&record.value, self.ttl) {
            (None, _) => now.after(self.negative_ttl),
            // It never says that a value lives for ever.
            (Some(_), Some(ttl))
                if !self.origin_decides || record.expires_at == Timestamp::NEVER =>
            {
                now.after(ttl)
            }
            (Some(_), _) => Timestamp::NEVER,
        };
        let record = Record {
            expires_at: record.expires_at.min(longest),
            ..record.clone()
        };
        record.is_fresh(now).then_some(record)
    }
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
}

impl Source {
    /// As in the header `X-Cache` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Peer => "peer",
            Self::Origin => "origin",
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(ttl: Option<u64>, negative_ttl: u64, origin_decides: bool) -> GroupRules {
        GroupRules {
            name: "g".into(),
            ttl: ttl.map(Duration::from_millis),
            negative_ttl: Duration::from_millis(negative_ttl),
            max_value: 1,
            origin_decides,
        }
    }

    #[test]
    fn nothing_that_comes_from_another_node_outlives_what_the_group_allows() {
        let now = Timestamp(1_000);
        let never = Timestamp::NEVER;
        for (rules, found, given, wanted) in [
            (rules(Some(50), 0, false), true, never, Some(1_050)),
            (
                rules(Some(50), 0, false),
                true,
                Timestamp(9_000),
                Some(1_050),
            ),
            (
                rules(Some(50), 0, false),
                true,
                Timestamp(1_020),
                Some(1_020),
            ),
            (
                rules(Some(50), 0, true),
                true,
                Timestamp(9_000),
                Some(9_000),
            ),
            (rules(Some(50), 0, true), true, never, Some(1_050)),
            (rules(None, 0, true), true, never, Some(never.0)),
            (rules(None, 70, true), false, never, Some(1_070)),
            (rules(None, 0, true), false, never, None),
            (rules(Some(0), 0, false), true, never, None),
        ] {
            let record = Record {
                value: found.then(|| "v".into()),
                expires_at: given,
                entity_tag: 1,
            };
            let believed = rules.within_life(&record, now);
            let until = believed.map(|it| it.expires_at.0);
            assert_eq!(until, wanted, "{rules:?} {record:?}");
        }
    }
}
