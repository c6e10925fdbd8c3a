//! A cluster without sockets: nodes of core alone, joined by a network that the test controls. What
//! the tests of `group` and `handoff` share.

mod net;
pub(super) mod simulation;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub(super) use self::net::{TestNet, peers};
use super::{
    cluster::{Cluster, Owner, Topology},
    copy_queue::{CopyQueue, QueuedKeys},
    group::{Answer, Batch, Group, GroupRules, Groups, Query, Shared},
    handoff::{Handoff, HandoffParts, HandoffRules},
    hot::HotKeys,
    key::GroupId,
    key::HashedKey,
    membership::{Member, View},
    metadata::Metadata,
    record::{Record, Stale},
    standing::Standing,
    store::{Entry, MemoryQuota, Store},
};
use crate::{
    error::{Error, Result},
    ports::{
        Clock, Freshness, GroupObserver, HandoffObserver, LoadQueue, Loaded, Origin, Receipt,
        Reloaded, Timestamp,
    },
};

pub(super) const TTL_MS: u64 = 60_000;
pub(super) const HOT_AFTER: u32 = 3;

/// Time that doesn't move until it is set.
#[derive(Default)]
pub(super) struct HandClock(pub(super) AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

pub(super) struct Unobserved;

impl GroupObserver for Unobserved {
    fn waited_for_flight(&self) {}
    fn refused_by_store(&self) {}
    fn kept_hot_copy(&self) {}
    fn asked_previous_owners(&self, _found: bool) {}
}

impl HandoffObserver for Unobserved {
    fn sent(&self, _bytes: usize, _receipt: &Receipt) {}
    fn failed(&self, _entries: usize) {}
    fn waiting(&self, _entries: usize) {}
}

/// Answers with the version it is at; every load waits for a permit.
pub(super) struct TestOrigin {
    pub(super) loads: AtomicUsize,
    pub(super) version: AtomicUsize,
    pub(super) permits: Semaphore,
    /// Whether it says something of its values.
    pub(super) is_tagged: AtomicBool,
    /// How often it said that a value has not changed.
    pub(super) unchanged: AtomicUsize,
    pub(super) answer: Mutex<Option<Error>>,
    /// The tags of its values.
    pub(super) tags: Mutex<Vec<&'static str>>,
    /// By how many bytes its values are longer.
    pub(super) padding: AtomicUsize,
    /// How many keys it takes at once.
    pub(super) batch: AtomicUsize,
    /// How often it was asked for several keys at once.
    pub(super) batches: AtomicUsize,
}

impl Default for TestOrigin {
    fn default() -> Self {
        Self {
            loads: AtomicUsize::new(0),
            version: AtomicUsize::new(1),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            answer: Mutex::default(),
            is_tagged: AtomicBool::new(false),
            unchanged: AtomicUsize::new(0),
            tags: Mutex::default(),
            padding: AtomicUsize::new(0),
            batch: AtomicUsize::new(1),
            batches: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Origin for TestOrigin {
    async fn load(&self, key: &str) -> Result<Loaded, crate::error::BoxError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        // The value is what the origin has when the load begins.
        let mut value = format!("{key} v{}", self.version.load(Ordering::SeqCst));
        value += &" ".repeat(self.padding.load(Ordering::SeqCst));
        self.permits.acquire().await.expect("never closed").forget();
        if let Some(error) = self.answer.lock().clone() {
            return Err(error.into());
        }
        let mut loaded = Loaded::from(Bytes::from(value));
        let tags = self.tags.lock().clone();
        loaded.metadata = loaded.metadata.with_tags(tags)?;
        if self.is_tagged.load(Ordering::SeqCst) {
            let said = self.said()?.with_tags(self.tags.lock().clone())?;
            return Ok(loaded.with_metadata(said));
        }
        Ok(loaded)
    }

    fn batch_size(&self) -> usize {
        self.batch.load(Ordering::SeqCst)
    }

    async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, crate::error::BoxError>> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        join_all(keys.iter().map(|key| self.load(key))).await
    }

    async fn reload(&self, key: &str, kept: &Metadata) -> Result<Reloaded, crate::error::BoxError> {
        let loaded = self.load(key).await?;
        if loaded.metadata.get("etag") != kept.get("etag") {
            return Ok(Reloaded::Changed(loaded));
        }
        self.unchanged.fetch_add(1, Ordering::SeqCst);
        Ok(Reloaded::Unchanged {
            freshness: Freshness::Unsaid,
            metadata: Metadata::new([("x-renewed", "yes")])?,
        })
    }
}

impl TestOrigin {
    /// What it says of its values.
    pub(super) fn said(&self) -> Result<Metadata> {
        let tag = format!("\"v{}\"", self.version.load(Ordering::SeqCst));
        Metadata::new([("content-type", "text/plain"), ("etag", tag.as_str())])
    }
}

/// One node: its group, its ring, its handoff.
pub(super) struct TestNode {
    pub(super) id: Arc<str>,
    pub(super) group: Arc<Group>,
    pub(super) groups: Groups,
    pub(super) standing: Arc<Standing>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) store: Arc<Store>,
    pub(super) handoff: Arc<Handoff>,
    pub(super) queued_copies: Mutex<Option<QueuedKeys>>,
}

impl TestNode {
    /// Installs a view here.
    pub(super) fn install(&self, view: &View) {
        self.cluster.install(view.clone());
    }

    /// A get of each key, as one batch if there are several.
    pub(super) async fn get_all(&self, keys: &[String]) -> Vec<Result<Answer>> {
        if let [key] = keys {
            return vec![self.group.get(key).await];
        }
        let (places, keys): (Vec<_>, _) = ((0..keys.len()).collect(), keys.into());
        let mut answers: Batch = self.group.get_batch(&keys, &places).concat().await;
        answers.sort_unstable_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// A group whose values live for [`TTL_MS`].
pub(super) fn group_rules() -> GroupRules {
    GroupRules {
        name: "users".into(),
        ttl: Some(Duration::from_millis(TTL_MS)),
        negative_ttl: Duration::from_millis(TTL_MS),
        max_ttl: None,
        ttl_jitter: 0.0,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        error_ttl: Duration::ZERO,
        max_value: 1 << 10,
        origin_decides: false,
        soft_timeout: Duration::ZERO,
        refresh_ahead: false,
        query: Query::Refuse,
        memory: MemoryQuota::NONE,
    }
}

/// How the nodes of a test are made.
pub(super) struct Plan {
    pub(super) replicas: usize,
    pub(super) capacity: u64,
    /// Of the background.
    pub(super) bytes_per_second: u64,
    pub(super) rules: GroupRules,
    /// The time to live of the nodes' leases; `None`: they have none.
    pub(super) lease: Option<Duration>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) origin: Arc<dyn LoadQueue>,
    pub(super) net: Arc<TestNet>,
}

impl Plan {
    fn groups(&self, shared: Shared) -> Groups {
        let rules = self.rules.clone();
        let observer = Arc::new(Unobserved);
        let group = Group::new(GroupId(0), rules, self.origin.clone(), observer, shared);
        Groups::new([group])
    }

    /// A node that has seen no ring yet.
    pub(super) fn node(&self, id: &str) -> TestNode {
        let id: Arc<str> = id.into();
        let cluster = Arc::new(Cluster::new(id.clone()));
        let peers = peers(&self.net, &id, self.clock.clone());
        let standing = Arc::new(Standing::new(cluster.clone(), self.lease));
        (self.net).attach(id.clone(), standing.clone(), self.clock.clone());
        let store = |capacity| {
            let store = Store::new(capacity, 1 << 10);
            Arc::new(store.under(standing.fence.clone()))
        };
        let (store, hot) = (store(self.capacity), store(1 << 20));
        let (copies, queued_copies) = if self.replicas > 1 {
            CopyQueue::channel()
        } else {
            CopyQueue::nobody()
        };
        let shared = Shared {
            cluster: cluster.clone(),
            standing: standing.clone(),
            peers: peers.clone(),
            clock: self.clock.clone(),
            owned: store.clone(),
            hot,
            hot_keys: Arc::new(HotKeys::new(HOT_AFTER)),
            replicas: self.replicas,
            copies,
            wrap_task: |task| task,
            askers: Vec::new,
        };
        let groups = self.groups(shared);
        let group = groups.get("users").expect("made there").clone();
        self.net.groups.lock().insert(id.clone(), group.clone());
        let handoff = Handoff::new(
            HandoffParts {
                groups: groups.clone(),
                cluster: cluster.clone(),
                peers,
                clock: self.clock.clone(),
                store: store.clone(),
                observer: Arc::new(Unobserved),
            },
            HandoffRules {
                replicas: self.replicas,
                copy_from_use_count: 0,
                bytes_per_second: self.bytes_per_second,
            },
        );
        TestNode {
            id,
            group,
            groups,
            standing,
            cluster,
            store,
            handoff: Arc::new(handoff),
            queued_copies: Mutex::new(Some(queued_copies)),
        }
    }
}

/// An entry with a value of so many bytes.
pub(super) fn entry(key: &HashedKey<'_>, bytes: usize, expires_at: Timestamp) -> Entry {
    let record = Record {
        value: Some(vec![7; bytes].into()),
        expires_at,
        stale: Stale::NEVER,
        entity_tag: 0,
        metadata: Metadata::NONE,
    };
    Entry::new(key, &record)
}

/// A view of serving members of these ids.
pub(super) fn view(revision: u64, ids: &[&str]) -> View {
    View::new(
        revision,
        ids.iter().map(|id| Member::new(*id, format!("{id}:1"))),
    )
}

/// The ids in ring order for a key, as seen from outside.
pub(super) fn ranked(group: &Group, key: &str, view: &View) -> Vec<Arc<str>> {
    let outside = Topology::new("outside", view.clone());
    outside
        .ranked(group.hash(key))
        .map(|owner| match owner {
            Owner::Other(member) => member.id.clone(),
            Owner::Me => unreachable!("outside is no member"),
        })
        .collect()
}
