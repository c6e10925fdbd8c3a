//! What a group is made of, and what it answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    cluster::Cluster,
    copy_queue::CopyQueue,
    hot::HotKeys,
    metadata::Metadata,
    ports::{Clock, Course, LoadQueue, Peers, Source, TaskWrapper, Timestamp},
    record::{Record, Stale},
    standing::Standing,
    store::{MemoryQuota, Store},
};

/// The rules of a group.
#[derive(Clone, Debug)]
pub struct GroupRules {
    /// Its name.
    pub name: Arc<str>,
    /// How long a value is kept where the origin says nothing; `None`: until it is evicted or
    /// removed.
    pub ttl: Option<Duration>,
    /// How long to remember that a key does not exist; zero: not at all.
    pub negative_ttl: Duration,
    /// Maximum lifetime of a value, whatever the origin says; `None`: no limit.
    pub max_ttl: Option<Duration>,
    /// A lifetime is shortened by a random part of it, up to this share (0 to 1), so that what was
    /// loaded together does not expire together.
    pub ttl_jitter: f64,
    /// How long past its lifetime a value is served at once, while it is loaded anew; zero: not at
    /// all.
    pub stale_while_revalidate: Duration,
    /// How long past its lifetime a value is served in place of an error of the origin; zero: not
    /// at all.
    pub stale_if_error: Duration,
    /// How long to remember a failed load; zero: not at all.
    pub error_ttl: Duration,
    /// The largest value, in bytes.
    pub max_value: u64,
    /// Whether the origin may override `ttl`.
    pub origin_decides: bool,
    /// After how long a get is answered with a stale value, if there is one, while its load goes
    /// on; zero: it waits for the load.
    pub soft_timeout: Duration,
    /// Whether values that are asked for are loaded anew before their lives end.
    pub refresh_ahead: bool,
    /// What a query string after a key means over HTTP.
    pub query: Query,
    /// What it may count on of the memory, and what it may not exceed.
    pub memory: MemoryQuota,
}

/// What a query string after a key means over HTTP.
///
/// ```
/// # mod gaocache { pub use gaocache_core::group::Query; }
/// use gaocache::Query;
///
/// // See `GroupDefinition::query`.
/// assert_eq!(Query::default(), Query::Refuse);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Query {
    /// The request is refused: dropped silently, the query would leave another key.
    #[default]
    Refuse,
    /// It belongs to the key, as it is.
    Append,
    /// Nothing.
    Ignore,
}

impl GroupRules {
    /// The record that came from another node, with a lifetime that this node could have given it,
    /// and served as a stale one no longer than this node would. `None` if nothing is left of
    /// either.
    pub(super) fn within_life(&self, record: &Record, now: Timestamp) -> Option<Record> {
        let longest = match (record.is_absent(), self.ttl) {
            (true, _) => now.after(self.negative_ttl),
            // It never says that a value doesn't expire.
            (false, Some(ttl)) if !self.origin_decides || record.expires_at == Timestamp::NEVER => {
                now.after(ttl)
            }
            (false, _) => Timestamp::NEVER,
        };
        let longest = match self.max_ttl {
            Some(max_ttl) => longest.min(now.after(max_ttl)),
            None => longest,
        };
        let expires_at = record.expires_at.min(longest);
        let within = |until: Timestamp, window| until.min(expires_at.after(window));
        let stale = match record.is_absent() {
            false => Stale {
                while_revalidating: within(
                    record.stale.while_revalidating,
                    self.stale_while_revalidate,
                ),
                if_error: within(record.stale.if_error, self.stale_if_error),
            },
            true => Stale::NEVER,
        };
        let record = Record {
            expires_at,
            stale,
            ..record.clone()
        };
        record.is_usable(now).then_some(record)
    }
}

/// The longest name of a group, in bytes.
pub const MAX_GROUP_NAME_BYTES: usize = 64;

/// What [`is_group_name`] asks for, after the name of a setting or a group.
pub const GROUP_NAME_RULE: &str = "must be 1 to 64 letters, digits, '.', '_' or '-'";

/// Whether a group may have this name: 1 to 64 letters, digits, `.`, `_` or `-`, so that it fits
/// into paths, labels and keys of etcd.
pub fn is_group_name(name: &str) -> bool {
    (1..=MAX_GROUP_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What the groups of a node share.
#[derive(Clone)]
pub struct Shared {
    /// The current ring.
    pub cluster: Arc<Cluster>,
    /// This node's place among the members.
    pub standing: Arc<Standing>,
    /// Calls to other members.
    pub peers: Arc<dyn Peers>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What this node holds as an owner, or as the holder of a copy for the owner.
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
    /// Runs a load in a task of its own: it continues when those waiting for it give up.
    pub(super) fn spawn(&self, load: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn((self.wrap_task)(Box::pin(load)));
    }
}

/// What a group is to be from now on.
pub struct Wanted {
    /// Its rules; the name identifies the group.
    pub rules: GroupRules,
    /// Where its values come from.
    pub origin: Arc<dyn LoadQueue>,
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
    /// What its origin said of it.
    pub metadata: Metadata,
    /// How it came about.
    pub course: Course,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness_tests::group_rules;

    fn rules(ttl: Option<u64>, negative_ttl: u64, origin_decides: bool) -> GroupRules {
        GroupRules {
            ttl: ttl.map(Duration::from_millis),
            negative_ttl: Duration::from_millis(negative_ttl),
            origin_decides,
            ..group_rules()
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
                stale: Stale::NEVER,
                entity_tag: 1,
                metadata: Metadata::NONE,
            };
            let believed = rules.within_life(&record, now);
            let until = believed.map(|it| it.expires_at.0);
            assert_eq!(until, wanted, "{rules:?} {record:?}");
        }
    }

    #[test]
    fn nothing_that_comes_from_another_node_is_stale_for_longer_than_the_group_allows() {
        let now = Timestamp(1_000);
        let rules = GroupRules {
            max_ttl: Some(Duration::from_millis(40)),
            stale_while_revalidate: Duration::from_millis(10),
            stale_if_error: Duration::from_millis(100),
            ..rules(Some(50), 70, false)
        };
        let believed = |value: Option<&'static str>, expires_at, while_revalidating, if_error| {
            let record = Record {
                value: value.map(Into::into),
                expires_at: Timestamp(expires_at),
                stale: Stale {
                    while_revalidating: Timestamp(while_revalidating),
                    if_error: Timestamp(if_error),
                },
                entity_tag: 1,
                metadata: Metadata::NONE,
            };
            let record = rules.within_life(&record, now)?;
            let Stale {
                while_revalidating,
                if_error,
            } = record.stale;
            Some((record.expires_at.0, while_revalidating.0, if_error.0))
        };
        let value = Some("v");
        let bounded = Some((1_040, 1_050, 1_140));
        assert_eq!(believed(value, u64::MAX, u64::MAX, u64::MAX), bounded);
        let shorter = Some((1_020, 1_025, 1_030));
        assert_eq!(believed(value, 1_020, 1_025, 1_030), shorter);
        // It has expired.
        let over = Some((1_000, 0, 1_100));
        assert_eq!(believed(value, 1_000, 0, 9_000), over);
        assert_eq!(believed(value, 1_000, 0, 0), None);
        assert_eq!(believed(None, 1_000, 9_000, 9_000), None);
    }
}
