//! This node's place among the members: whether it counts as one, and which members it vouches for.
//!
//! A member may answer from memory while its lease in the registry is certain to be alive: it can't
//! have been taken off the list. When it can't renew its lease, it asks the others to vouch for it.
//! With vouchers from more than half of all members it carries on, because expelling a member
//! (`expulsion`) takes promises from at least half of them never to vouch for it again.
//! ARCHITECTURE.md explains these rules, and `crates/model` checks them.
//!
//! It must never vouch for a member against which it gave its promise, in whatever order the two
//! come.

use std::{
    collections::HashSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};

use crate::{
    cluster::{Cluster, Topology},
    error::{Error, ErrorKind, Result},
    fence::Fence,
    membership::{IdHash, Member},
    ports::{Clock, HeldLease, Peers, Reading, Session, TRANSFER_TIMEOUT, Timestamp, Voucher},
};

/// The longest time for which a voucher is valid.
const LONGEST_VOUCHER: Duration = Duration::from_secs(1);
/// How long a removal may go on after the lease of a member that can't be reached has ended. etcd
/// looks for such leases twice a second; the last vouchers run out within 1.02 s after the
/// promises; the rest is for calls: to etcd, for promises, and for the watch to bring what changed.
const BEYOND_LEASE: Duration = Duration::from_secs(2);
/// How much the rates of two clocks may differ.
const RATES: f64 = 0.02;
/// Renewals have failed if no more than this part of the lease's time to live is left.
const FAILING: f64 = 0.6;
/// Bound on a removal where members have no leases.
const WITHOUT_LEASE: Duration = Duration::from_secs(10);

/// A node's place among the members.
pub struct Standing {
    /// Whether memory may be served.
    pub fence: Arc<Fence>,
    cluster: Arc<Cluster>,
    /// The stay in the registry, once it has begun.
    session: OnceLock<Arc<dyn Session>>,
    /// The time to live of this node's lease, if it has one.
    lease: Option<Duration>,
    /// Incarnations for which this node never vouches again.
    promised_against: Mutex<HashSet<IdHash>>,
    /// The last voucher that this node gave is valid until then.
    vouching_until: AtomicU64,
    leaving: AtomicBool,
    /// Removals at this node that wait for members.
    removals_waiting: watch::Sender<usize>,
}

/// A removal that waits for members; see [`Standing::note_waiting`].
pub(crate) struct Waiting(Arc<Standing>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.removals_waiting.send_modify(|count| *count -= 1);
    }
}

impl Standing {
    /// A node that has not joined yet. Its fence is closed until it is a member; without leases
    /// (`None`) no member is ever taken off the list and the fence is always open.
    pub fn new(cluster: Arc<Cluster>, lease: Option<Duration>) -> Self {
        let fence = if lease.is_some() {
            Fence::closed()
        } else {
            Fence::open()
        };
        Self {
            fence: Arc::new(fence),
            cluster,
            session: OnceLock::new(),
            lease,
            promised_against: Mutex::default(),
            vouching_until: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            removals_waiting: watch::Sender::default(),
        }
    }

    /// The current ring.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The stay in the registry has begun.
    pub fn joined(&self, session: Arc<dyn Session>) {
        let _ = self.session.set(session);
    }

    /// The stay in the registry.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] before it has begun.
    pub fn session(&self) -> Result<&Arc<dyn Session>> {
        let none = || {
            Error::new(
                ErrorKind::NotReady,
                "this node has not joined a cluster yet",
            )
        };
        self.session.get().ok_or_else(none)
    }

    /// The time to live of this node's lease, if it has one.
    pub fn lease(&self) -> Option<Duration> {
        self.lease
    }

    /// How long a voucher is valid, counted from the moment at which it was asked for.
    pub fn voucher(&self) -> Duration {
        self.lease
            .map_or(LONGEST_VOUCHER, |lease| (lease / 3).min(LONGEST_VOUCHER))
    }

    /// How long to wait after a promise until every voucher given before it has run out.
    pub fn promise_wait(&self) -> Duration {
        self.voucher().mul_f64(1.0 + RATES)
    }

    /// Time limit for a removal: a member that can't be reached is out once its lease has ended and
    /// every voucher given to it has run out.
    pub fn removal_bound(&self) -> Duration {
        self.lease
            .map_or(WITHOUT_LEASE, |lease| lease + BEYOND_LEASE)
    }

    /// Notes that a removal waits for members that didn't confirm at once, until what it returns is
    /// dropped.
    pub(crate) fn note_waiting(self: &Arc<Self>) -> Waiting {
        self.removals_waiting.send_modify(|count| *count += 1);
        Waiting(self.clone())
    }

    /// Resolves while a removal waits for members.
    pub(crate) async fn removal_waits(&self) {
        let mut waiting = self.removals_waiting.subscribe();
        // Its sender is here.
        let _ = waiting.wait_for(|count| *count > 0).await;
    }

    /// How long after a removal nothing that another member held may come in: the other members
    /// learn of it within the removal's bound, and what one of them read just before is in transit
    /// for no longer than [`TRANSFER_TIMEOUT`].
    pub fn tombstone(&self) -> Duration {
        (self.removal_bound() + TRANSFER_TIMEOUT).mul_f64(1.0 + RATES)
    }

    /// This incarnation of the node, as the others know it.
    pub fn incarnation(&self) -> Option<IdHash> {
        let topology = self.cluster.topology();
        topology.me().map(|me| me.incarnation())
    }

    /// Answers a member that can't renew its lease: whether this node would vouch for it, and for
    /// which of the members that it counts on this node would not.
    ///
    /// Whom a registry that lost its data doesn't know it vouches for no more: others may soon join
    /// there. Nor does it vouch for anybody if it stands in the registry otherwise than it sees:
    /// then the loss may be what it has not seen yet.
    pub fn vouch(&self, asker: IdHash, counted: &[IdHash], now: Timestamp) -> Voucher {
        let topology = self.cluster.snapshot();
        let listed: HashSet<IdHash> = (topology.view.members.iter())
            .filter(|member| !member.vanished && !member.held)
            .map(|member| member.incarnation())
            .collect();
        let promised = self.promised_against.lock();
        let would = |member: &IdHash| listed.contains(member) && !promised.contains(member);
        let yes =
            would(&asker) && self.sees_itself(&topology) && !self.leaving.load(Ordering::SeqCst);
        if yes {
            let until = now.after(self.promise_wait());
            self.vouching_until.fetch_max(until.0, Ordering::SeqCst);
        }
        Voucher {
            yes,
            excluded: counted.iter().copied().filter(|it| !would(it)).collect(),
        }
    }

    /// Whether the ring shows this node as it stands in the registry.
    fn sees_itself(&self, ring: &Topology) -> bool {
        let session = self.session.get();
        session.is_none_or(|it| it.lease().is_some_and(|lease| shows(ring, lease)))
    }

    /// Promises never to vouch for that incarnation again.
    pub fn promise(&self, against: IdHash) {
        let mut promised = self.promised_against.lock();
        // What no view lists any more can't be vouched for anyway.
        let topology = self.cluster.topology();
        promised.retain(|it| topology.by_incarnation(*it).is_some());
        promised.insert(against);
    }

    /// From now on, this node vouches for no member. Returns the moment at which its last voucher
    /// runs out. It must not leave before, since others may rely on it.
    pub fn stop_vouching(&self) -> Timestamp {
        self.leaving.store(true, Ordering::SeqCst);
        // Under the lock that `vouch` takes, so that none is under way.
        let _promised = self.promised_against.lock();
        Timestamp(self.vouching_until.load(Ordering::SeqCst))
    }

    /// Keeps the fence open for as long as this node's lease is certain to live, if it has one.
    /// Returns whether renewals have failed, so that others have to be asked to vouch. To be called
    /// several times a second.
    ///
    /// A lease counts once the ring shows this node under it, and until then nobody is asked
    /// either. Where a registry that lost its data has granted it, this node may not see yet who
    /// else stands there.
    pub fn rely_on_lease(&self, held: Option<HeldLease>, now: Timestamp) -> bool {
        let lease = self.lease.unwrap_or_default();
        let Some(held) = held.filter(|it| shows(&self.cluster.topology(), *it)) else {
            return false;
        };
        let left = held.end.since(now);
        let left = left.saturating_sub(lease.mul_f64(RATES));
        if !left.is_zero() {
            self.fence.extend(now, now.after(left));
        }
        left < lease.mul_f64(FAILING)
    }

    /// Asks all others to vouch for this node. With enough vouchers, the fence stays open while
    /// they are valid.
    pub async fn ask_for_vouchers(&self, peers: &dyn Peers, clock: &dyn Clock) {
        let topology = self.cluster.snapshot();
        let Some(me) = topology.me().map(Member::incarnation) else {
            return;
        };
        let members = topology.view.members.iter();
        let counted: Vec<IdHash> = members.map(Member::incarnation).collect();
        let asked_at = clock.now();
        let others = topology.others().filter(|member| !member.vanished);
        let vouchers = others.map(async |member| {
            let voucher = peers.vouch(member, me, &counted);
            let voucher = timeout(self.voucher() / 2, voucher).await.ok()?.ok()?;
            Some((member.incarnation(), voucher))
        });
        let vouchers: Vec<_> = join_all(vouchers).await.into_iter().flatten().collect();
        if self.is_backed(&topology, &vouchers) {
            let valid_for = self.voucher().mul_f64(1.0 - RATES);
            self.fence.extend(clock.now(), asked_at.after(valid_for));
        }
    }

    /// Whether the vouchers (each with its giver's incarnation) are enough.
    ///
    /// Members that a giver excludes don't count, nor do those against which this node has
    /// promised. Otherwise members that were expelled one after another could keep each other on
    /// the list. Nor do those that the registry doesn't know any more: they may not know whom it
    /// lists.
    pub fn is_backed(&self, topology: &Topology, vouchers: &[(IdHash, Voucher)]) -> bool {
        let Some(me) = topology.me().map(Member::incarnation) else {
            return false;
        };
        let given = || vouchers.iter().filter(|(_, it)| it.yes);
        let promised = self.promised_against.lock().clone();
        let excluded: HashSet<IdHash> = given()
            .flat_map(|(_, it)| it.excluded.iter().copied())
            .chain(promised)
            .collect();
        let counts = |member: IdHash| {
            let member = topology.by_incarnation(member);
            let counts = member.filter(|it| it.is_admitted() && !it.held);
            counts.is_some_and(|it| !excluded.contains(&it.incarnation()))
        };
        let backing: HashSet<IdHash> = given().map(|(giver, _)| *giver).chain([me]).collect();
        let backing = backing.into_iter().filter(|it| counts(*it)).count();
        counts(me) && 2 * backing > topology.view.members.len()
    }

    /// Whether entries that were not read before `read_at` are taken from that sender: it has to be
    /// a member by its present incarnation, and this node one all the time since. Before that, it
    /// heard of no removals, and has no tombstones for them; what was sent to an earlier
    /// incarnation of it may still be in transit.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] if not.
    pub fn may_accept(&self, sender: IdHash, reading: Reading) -> Result<()> {
        let refused = |why: &str| Err(Error::new(ErrorKind::NotReady, why));
        if !self.fence.open_since(reading.read_at, reading.now) {
            return refused("this node may not have been a member ever since they were sent");
        }
        match self.cluster.topology().by_incarnation(sender) {
            Some(member) if member.is_admitted() => Ok(()),
            // A node that is not a member is not notified of removals, so what it holds may be old.
            _ => refused("this node does not know the sender as a member"),
        }
    }
}

/// Whether the ring shows this node under that lease.
fn shows(ring: &Topology, lease: HeldLease) -> bool {
    ring.me().is_some_and(|me| me.lease == lease.id)
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
