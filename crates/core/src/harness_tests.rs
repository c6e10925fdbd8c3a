//! A cluster without sockets: nodes of core alone, joined by a network that the test controls. What
//! the tests of `group` and `handoff` share.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};

use super::{
    cluster::{Cluster, Owner, Topology},
    copy_queue::{CopyQueue, QueuedKeys},
    group::{Group, GroupRules, Groups, Shared},
    handoff::{Handoff, HandoffParts, HandoffRules},
    hot::HotKeys,
    membership::{IdHash, Member, View},
    record::{Record, expiry},
    standing::Standing,
    store::{Entry, GroupId, Store},
};
use crate::{
    error::{Error, ErrorKind, Result},
    ports::{
        Clock, GroupObserver, Handed, HandoffObserver, HandoffStream, Loaded, Origin, Parcel,
        Peeked, PeerAnswer, PeerError, Peers, Receipt, Removed, Sender, Timestamp, Voucher,
    },
};

pub(super) const TTL_MS: u64 = 60_000;
pub(super) const HOT_AFTER: u32 = 3;

/// Time that stands still until it is set.
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
    pub(super) answer: Mutex<Option<Error>>,
}

impl Default for TestOrigin {
    fn default() -> Self {
        Self {
            loads: AtomicUsize::new(0),
            version: AtomicUsize::new(1),
            permits: Semaphore::new(Semaphore::MAX_PERMITS),
            answer: Mutex::default(),
        }
    }
}

#[async_trait]
impl Origin for TestOrigin {
    async fn load(&self, key: &str) -> Result<Loaded, crate::error::BoxError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        // The value is what the origin has when the load begins.
        let value = format!("{key} v{}", self.version.load(Ordering::SeqCst));
        self.permits.acquire().await.expect("never closed").forget();
        match self.answer.lock().clone() {
            Some(error) => Err(error.into()),
            None => Ok(Bytes::from(value).into()),
        }
    }
}

/// What happens to a message; resolves to false if it is lost.
pub(super) type Passing = Box<dyn Fn(&str, &str) -> BoxFuture<'static, bool> + Send + Sync>;

/// Told who asks for which key.
pub(super) type OnFetch = Box<dyn Fn(&str, &str) + Send + Sync>;

/// Joins the nodes by calling them directly.
#[derive(Default)]
pub(super) struct TestNet {
    pub(super) groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    pub(super) standings: Mutex<HashMap<Arc<str>, Arc<Standing>>>,
    /// Each node has a clock of its own.
    clocks: Mutex<HashMap<Arc<str>, Arc<dyn Clock>>>,
    pub(super) down: Mutex<HashSet<Arc<str>>>,
    pub(super) fetches: AtomicUsize,
    pub(super) peeks: AtomicUsize,
    /// A node that, told of a removal already, reads the key just before the other node is told:
    /// (reader, told last).
    pub(super) reads_before: Mutex<Option<(Arc<str>, Arc<str>)>>,
    /// Entries that went from node to node.
    pub(super) parcels: AtomicUsize,
    /// Their use counts, in order.
    pub(super) use_counts: Mutex<Vec<u32>>,
    /// What happens to each message on its way; nothing by default.
    pub(super) passing: Mutex<Option<Arc<Passing>>>,
    /// Told of each fetch: who asks, and for what.
    pub(super) on_fetch: Mutex<Option<OnFetch>>,
}

impl TestNet {
    fn group(&self, id: &str) -> Result<Arc<Group>, PeerError> {
        if self.down.lock().contains(id) {
            return Err(lost());
        }
        self.groups.lock().get(id).cloned().ok_or_else(lost)
    }

    fn standing(&self, id: &str) -> Result<Arc<Standing>, PeerError> {
        self.group(id)?;
        self.standings.lock().get(id).cloned().ok_or_else(lost)
    }

    fn now(&self, id: &str) -> Timestamp {
        let clocks = self.clocks.lock();
        clocks.get(id).map_or(Timestamp(0), |clock| clock.now())
    }

    /// What one node sends another: dated anew, by the clock of its receiver, who asked at `asked`.
    fn carry(&self, record: &mut Record, sender: &str, asked: Timestamp) {
        record.expires_at = expiry(record.life_left(self.now(sender)), asked);
    }

    async fn pass(&self, from: &str, to: &str) -> Result<(), PeerError> {
        let passing = self.passing.lock().clone();
        match passing {
            Some(passing) if !passing(from, to).await => Err(lost()),
            _ => Ok(()),
        }
    }
}

fn lost() -> PeerError {
    PeerError::Unreachable(Error::new(ErrorKind::PeerUnreachable, "down"))
}

/// The calls of one node.
pub(super) struct TestPeers {
    me: Arc<str>,
    net: Arc<TestNet>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Peers for TestPeers {
    fn usable(&self, _member: &Member) -> bool {
        true
    }

    async fn fetch(&self, member: &Member, _: &str, key: &str) -> Result<PeerAnswer, PeerError> {
        self.net.fetches.fetch_add(1, Ordering::SeqCst);
        if let Some(told) = &*self.net.on_fetch.lock() {
            told(&self.me, key);
        }
        let asked = self.clock.now();
        self.net.pass(&self.me, &member.id).await?;
        let group = self.net.group(&member.id)?;
        let mut answer = group.answer_peer(key).await;
        if let Ok(answer) = &mut answer {
            self.net.carry(&mut answer.record, &member.id, asked);
        }
        self.net.pass(&member.id, &self.me).await?;
        answer.map_err(PeerError::Answered)
    }

    async fn peek(&self, member: &Member, _: &str, key: &str) -> Result<Peeked, PeerError> {
        self.net.peeks.fetch_add(1, Ordering::SeqCst);
        let asked = self.clock.now();
        self.net.pass(&self.me, &member.id).await?;
        let group = self.net.group(&member.id)?;
        let mut answer = group.peek_for_peer(key);
        if let Some(entry) = &mut answer.entry {
            self.net.carry(&mut entry.record, &member.id, asked);
        }
        self.net.pass(&member.id, &self.me).await?;
        Ok(answer)
    }

    async fn remove(
        &self,
        member: &Member,
        _: &str,
        key: Option<&str>,
    ) -> Result<Removed, PeerError> {
        let race = self
            .net
            .reads_before
            .lock()
            .take_if(|race| race.1 == member.id);
        if let (Some((reader, _)), Some(key)) = (race, key) {
            let reader = self.net.groups.lock()[&reader].clone();
            reader.remove_here(Some(key));
            for _ in 0..=HOT_AFTER {
                reader.get(key).await.expect("the old value");
            }
        }
        self.net.pass(&self.me, &member.id).await?;
        let removed = Removed {
            entries: self.net.group(&member.id)?.remove_here(key),
            incarnation: self
                .net
                .standing(&member.id)?
                .incarnation()
                .unwrap_or_default(),
        };
        self.net.pass(&member.id, &self.me).await?;
        Ok(removed)
    }

    async fn vouch(
        &self,
        member: &Member,
        asker: IdHash,
        counted: &[IdHash],
    ) -> Result<Voucher, PeerError> {
        self.net.pass(&self.me, &member.id).await?;
        let standing = self.net.standing(&member.id)?;
        let voucher = standing.vouch(asker, counted, self.net.now(&member.id));
        self.net.pass(&member.id, &self.me).await?;
        Ok(voucher)
    }

    async fn promise(&self, member: &Member, against: IdHash) -> Result<IdHash, PeerError> {
        self.net.pass(&self.me, &member.id).await?;
        let standing = self.net.standing(&member.id)?;
        standing.promise(against);
        self.net.pass(&member.id, &self.me).await?;
        Ok(standing.incarnation().unwrap_or_default())
    }

    async fn handoff(
        &self,
        member: &Member,
        revision: u64,
    ) -> Result<Box<dyn HandoffStream>, PeerError> {
        let receiver = self.net.group(&member.id)?;
        let (answers, receipts) = mpsc::channel(64);
        Ok(Box::new(TestLane {
            me: self.me.clone(),
            to: member.id.clone(),
            net: self.net.clone(),
            receiver,
            answers,
            receipts,
            sender: Sender {
                member: (self.net.standing(&self.me)?.incarnation()).unwrap_or_default(),
                revision,
            },
            clock: self.clock.clone(),
        }))
    }

    async fn await_revision(&self, _: &Member, _: u64) -> Result<(), PeerError> {
        Ok(())
    }
}

/// The calls of that node.
pub(super) fn peers(net: &Arc<TestNet>, me: &Arc<str>, clock: Arc<dyn Clock>) -> Arc<dyn Peers> {
    Arc::new(TestPeers {
        me: me.clone(),
        net: net.clone(),
        clock,
    })
}

/// A batch is on its way on its own: it arrives even if its sender has given up by then.
struct TestLane {
    me: Arc<str>,
    to: Arc<str>,
    net: Arc<TestNet>,
    /// The process at the other end: a connection doesn't outlive it.
    receiver: Arc<Group>,
    answers: mpsc::Sender<Result<Receipt, PeerError>>,
    receipts: mpsc::Receiver<Result<Receipt, PeerError>>,
    sender: Sender,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl HandoffStream for TestLane {
    async fn send(&mut self, batch: Vec<Parcel>, read_at: Timestamp) -> Result<(), PeerError> {
        let (net, me, to) = (self.net.clone(), self.me.clone(), self.to.clone());
        let (receiver, answers) = (self.receiver.clone(), self.answers.clone());
        let (sender, clock) = (self.sender, self.clock.clone());
        tokio::spawn(async move {
            let batch = (sender, &*batch, read_at);
            let receipt = deliver(&net, &me, &to, &receiver, batch, &*clock).await;
            let _ = answers.send(receipt).await;
        });
        Ok(())
    }

    async fn receipt(&mut self) -> Result<Receipt, PeerError> {
        self.receipts.recv().await.unwrap_or_else(|| Err(lost()))
    }
}

async fn deliver(
    net: &TestNet,
    from: &str,
    to: &str,
    receiver: &Arc<Group>,
    (sender, batch, read_at): (Sender, &[Parcel], Timestamp),
    clock: &dyn Clock,
) -> Result<Receipt, PeerError> {
    let sent_at = clock.now();
    net.pass(from, to).await?;
    let group = net.group(to)?;
    if !Arc::ptr_eq(&group, receiver) {
        return Err(lost());
    }
    // By the receiver's clock.
    let now = net.now(to);
    let under_way = clock.now().since(read_at);
    let under_way = u64::try_from(under_way.as_millis()).unwrap_or(u64::MAX);
    let read_at = Timestamp(now.0.saturating_sub(under_way));
    let mut batch = batch.to_vec();
    for parcel in &mut batch {
        net.parcels.fetch_add(1, Ordering::SeqCst);
        net.use_counts.lock().push(parcel.use_count);
        if let Handed::Over(record) = &mut parcel.what {
            record.expires_at = expiry(record.life_left(sent_at), read_at);
        }
    }
    let groups = Groups::of(&group);
    let times = (read_at, now);
    let receipt = groups.accept(&*net.standing(to)?, &batch, sender, times);
    let receipt = receipt.map_err(PeerError::Unreachable)?;
    net.pass(to, from).await?;
    Ok(receipt)
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
    /// Puts a view in force here.
    pub(super) fn install(&self, view: &View) {
        self.cluster.install(view.clone());
    }
}

/// How the nodes of a test are made.
pub(super) struct Plan {
    pub(super) replicas: usize,
    pub(super) capacity: u64,
    /// Of the background.
    pub(super) bytes_per_second: u64,
    /// The time to live of the nodes' leases; `None`: they have none.
    pub(super) lease: Option<Duration>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) origin: Arc<dyn Origin>,
    pub(super) net: Arc<TestNet>,
}

impl Plan {
    /// A node that has seen no ring yet.
    pub(super) fn node(&self, id: &str) -> TestNode {
        let id: Arc<str> = id.into();
        let cluster = Arc::new(Cluster::new(id.clone()));
        let peers: Arc<dyn Peers> = Arc::new(TestPeers {
            me: id.clone(),
            net: self.net.clone(),
            clock: self.clock.clone(),
        });
        let standing = Arc::new(Standing::new(cluster.clone(), self.lease));
        self.net
            .standings
            .lock()
            .insert(id.clone(), standing.clone());
        let clock = self.clock.clone();
        self.net.clocks.lock().insert(id.clone(), clock);
        let store = |capacity| {
            let store = Store::new(capacity, 1 << 10, 1);
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
        };
        let rules = GroupRules {
            name: "users".into(),
            ttl: Some(Duration::from_millis(TTL_MS)),
            negative_ttl: Duration::from_millis(TTL_MS),
            max_value: 1 << 10,
        };
        let observer = Arc::new(Unobserved);
        let group = Group::new(GroupId(0), rules, self.origin.clone(), observer, shared);
        let groups = Groups::new([group]);
        let group = groups.get("users").expect("made above").clone();
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
pub(super) fn entry(bytes: usize, expires_at: Timestamp) -> Entry {
    Entry::new(&Record {
        value: Some(vec![7; bytes].into()),
        expires_at,
        entity_tag: 0,
    })
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
