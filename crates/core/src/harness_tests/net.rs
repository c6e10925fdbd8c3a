//! The network between the nodes of a test: direct calls, whose messages the test may delay and
//! lose.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::HOT_AFTER;
use crate::{
    askers::Askers,
    error::{Error, ErrorKind, Result},
    group::{Group, Groups},
    membership::{IdHash, Member},
    ports::{
        Clock, Fetched, Handed, HandoffStream, KeyAsked, Parcel, Peeked, PeerAnswer, PeerError,
        Peers, Reading, Receipt, Removal, Removed, Sender, Timestamp, Voucher,
    },
    record::Record,
    standing::Standing,
};

/// What happens to a message; resolves to false if it is lost.
pub(crate) type Passing = Box<dyn Fn(&str, &str) -> BoxFuture<'static, bool> + Send + Sync>;

/// Called with each asker and key.
pub(crate) type OnFetch = Box<dyn Fn(&str, &str) + Send + Sync>;

/// Joins the nodes by calling them directly.
#[derive(Default)]
pub(crate) struct TestNet {
    pub(crate) groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    pub(crate) standings: Mutex<HashMap<Arc<str>, Arc<Standing>>>,
    /// Each node has a clock of its own.
    clocks: Mutex<HashMap<Arc<str>, Arc<dyn Clock>>>,
    pub(crate) down: Mutex<HashSet<Arc<str>>>,
    /// The largest value that a node takes by handoff; by default, any.
    pub(crate) largest: Mutex<HashMap<Arc<str>, u64>>,
    pub(crate) fetches: AtomicUsize,
    /// Messages that ask for several keys.
    pub(crate) batches: AtomicUsize,
    /// Messages that ask for what a node holds of several keys.
    pub(crate) held: AtomicUsize,
    pub(crate) peeks: AtomicUsize,
    /// A node that has seen a removal already, and reads the key just before the removal reaches
    /// the other node: (reader, the one reached last).
    pub(crate) reads_before: Mutex<Option<(Arc<str>, Arc<str>)>>,
    /// Entries that went from node to node.
    pub(crate) parcels: AtomicUsize,
    /// Their use counts, in order.
    pub(crate) use_counts: Mutex<Vec<u32>>,
    /// What happens to each message on its way; nothing by default.
    pub(crate) passing: Mutex<Option<Arc<Passing>>>,
    /// Called on each fetch: the asker, and the key.
    pub(crate) on_fetch: Mutex<Option<OnFetch>>,
}

impl TestNet {
    /// A node that the others may call, once its group is known, too.
    pub(super) fn attach(&self, id: Arc<str>, standing: Arc<Standing>, clock: Arc<dyn Clock>) {
        self.standings.lock().insert(id.clone(), standing);
        self.clocks.lock().insert(id, clock);
    }

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
        let left = record.left(self.now(sender));
        *record = record.clone().dated(left, asked);
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
pub(crate) struct TestPeers {
    me: Arc<str>,
    net: Arc<TestNet>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Peers for TestPeers {
    fn usable(&self, _member: &Member) -> bool {
        true
    }

    async fn fetch(
        &self,
        member: &Member,
        _: &str,
        key: &str,
        _: &Askers,
    ) -> Result<PeerAnswer, PeerError> {
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

    /// One message there; each answer comes back in a message of its own.
    async fn fetch_many(&self, member: &Member, _: &str, asked: Vec<KeyAsked>) {
        self.net.batches.fetch_add(1, Ordering::SeqCst);
        if let Some(told) = &*self.net.on_fetch.lock() {
            asked.iter().for_each(|one| told(&self.me, one.key()));
        }
        let since = self.clock.now();
        let passed = self.net.pass(&self.me, &member.id).await;
        let group = match passed.and_then(|()| self.net.group(&member.id)) {
            Ok(group) => group,
            Err(error) => {
                return asked
                    .into_iter()
                    .for_each(|it| it.answer(Err(error.clone())));
            }
        };
        let keys: Vec<&str> = asked.iter().map(KeyAsked::key).collect();
        let mut answers = Box::pin(group.answer_peer_many(&keys));
        let mut asked: Vec<_> = asked.into_iter().map(Some).collect();
        while let Some((place, mut answer)) = answers.next().await {
            if let Ok(Fetched::Answer(answer)) = &mut answer {
                self.net.carry(&mut answer.record, &member.id, since);
            }
            let back = self.net.pass(&member.id, &self.me).await;
            let answer = back.and_then(|()| answer.map_err(PeerError::Answered));
            asked[place].take().expect("one answer").answer(answer);
        }
    }

    fn holds_most(&self, _: &Member, _: &str) -> bool {
        true
    }

    async fn held(&self, member: &Member, _: &str, keys: &[&str]) -> Vec<Option<PeerAnswer>> {
        self.net.held.fetch_add(1, Ordering::SeqCst);
        let since = self.clock.now();
        let passed = self.net.pass(&self.me, &member.id).await;
        let Ok(group) = passed.and_then(|()| self.net.group(&member.id)) else {
            return Vec::new();
        };
        let held = keys.iter().map(|key| {
            let mut answer = group.held_for_peer(key)?.ok()?;
            self.net.carry(&mut answer.record, &member.id, since);
            Some(answer)
        });
        let held = held.collect();
        let back = self.net.pass(&member.id, &self.me).await;
        back.map(|()| held).unwrap_or_default()
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

    async fn remove(&self, member: &Member, _: &str, what: &Removal) -> Result<Removed, PeerError> {
        let race = self
            .net
            .reads_before
            .lock()
            .take_if(|race| race.1 == member.id);
        if let (Some((reader, _)), Removal::Key(key)) = (race, what) {
            let reader = self.net.groups.lock()[&reader].clone();
            reader.remove_here(what);
            for _ in 0..=HOT_AFTER {
                reader.get(key).await.expect("the old value");
            }
        }
        self.net.pass(&self.me, &member.id).await?;
        let removed = Removed {
            entries: self.net.group(&member.id)?.remove_here(what),
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

    async fn await_revision(&self, _: &Member, _: u64, _: IdHash) -> Result<(), PeerError> {
        Ok(())
    }
}

/// The calls of that node.
pub(crate) fn peers(net: &Arc<TestNet>, me: &Arc<str>, clock: Arc<dyn Clock>) -> Arc<dyn Peers> {
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

    fn largest_value(&self) -> Option<u64> {
        self.net.largest.lock().get(&self.to).copied()
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
    let largest = net.largest.lock().get(to).copied();
    let too_large = |it: &Parcel| largest.is_some_and(|most| it.bytes() as u64 > 2 * most);
    if batch.iter().any(too_large) {
        // Its message is over the receiver's limit.
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
            let left = record.left(sent_at);
            *record = record.clone().dated(left, read_at);
        }
    }
    let groups = Groups::of(&group);
    let reading = Reading { read_at, now };
    let receipt = groups.accept(&*net.standing(to)?, &batch, sender, reading);
    let receipt = receipt.map_err(PeerError::Unreachable)?;
    net.pass(to, from).await?;
    Ok(receipt)
}
