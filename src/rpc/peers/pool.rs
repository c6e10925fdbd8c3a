//! The pool of connections to peers, and how a call is made over them.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::{
    arriving::Counted,
    ejected::Ejected,
    failed::Failed,
    failure::Failure,
    holding::Holding,
    links::{Lane, Link, Links, Route},
    rules::{PeerRules, message_limit},
    slots::LoadBounds,
};
use crate::{
    backoff::pauses,
    telemetry::{metrics::Metrics, throttle::Throttle},
    wire::{self, peer_client::PeerClient},
};
use gaocache_core::{
    cluster::Cluster,
    error::Error,
    membership::{IdHash, Member, View},
    ports::{Clock, PeerError, Timestamp},
};

/// How often a call is made again when its connection ends: on a new one, so a peer that died
/// refuses it at once.
const FURTHER_ATTEMPTS: usize = 2;
/// Pauses before a call is made again to a member that doesn't know this node yet. All members hear
/// of a registration at nearly the same time, but not in the same millisecond.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(200);
const MOST_PAUSES: usize = 5;

/// Makes calls whose answers are counted.
pub(super) type Client = PeerClient<Counted>;

/// Calls to peers over gRPC. Cheap to clone.
#[derive(Clone)]
pub struct GrpcPeers {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Arc<Cluster>,
    rules: PeerRules,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    links: Links,
    ejected: Arc<Ejected>,
    holding: Holding,
    throttle: Throttle,
    /// What bounds the loads of each group.
    loads: ArcSwap<HashMap<Arc<str>, LoadBounds>>,
}

impl GrpcPeers {
    /// A pool without connections; they are made when first needed. Probes, and the connections for
    /// control and handoff, run on the current runtime.
    pub fn new(
        cluster: Arc<Cluster>,
        rules: PeerRules,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let runtime = Handle::current();
        let probe_timeout = rules.connect_timeout * 2;
        let gauge = metrics.peers.ejected.clone();
        let inner = Arc::new(Inner {
            cluster,
            links: Links::new(&rules, runtime.clone()),
            holding: Holding::default(),
            ejected: Ejected::new(gauge, runtime.clone(), probe_timeout),
            metrics,
            clock,
            throttle: Throttle::default(),
            loads: ArcSwap::from_pointee(rules.loads.clone()),
            rules,
        });
        runtime.spawn(close_idle(Arc::downgrade(&inner), inner.rules.idle));
        Self { inner }
    }

    /// From now on, the loads of groups are bounded so.
    #[cfg(feature = "cli")]
    pub fn bound_loads(&self, loads: HashMap<Arc<str>, LoadBounds>) {
        self.inner.loads.store(Arc::new(loads));
    }

    /// The present moment.
    pub(in crate::rpc) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.inner.cluster
    }

    /// This node's current incarnation.
    pub(in crate::rpc) fn me(&self) -> IdHash {
        let topology = self.inner.cluster.topology();
        topology.me().map(Member::incarnation).unwrap_or_default()
    }

    /// Lets go of connections that lead to no member any more.
    pub fn keep_only(&self, members: &View) {
        self.inner.links.keep_only(members);
        self.inner.ejected.keep_only(members);
        self.inner.holding.keep_only(members);
    }

    pub(super) fn is_ejected(&self, member: &Member) -> bool {
        self.inner.ejected.contains(member)
    }

    /// Which members have had nearly all of the last batch in memory.
    pub(super) fn holding(&self) -> &Holding {
        &self.inner.holding
    }

    /// Bound on an answer, besides what a load from the origin may take.
    pub(super) fn timeout(&self) -> Duration {
        self.inner.rules.timeout
    }

    /// What bounds the loads of a group; `None` if this node doesn't have it.
    pub(super) fn load_bounds(&self, group: &str) -> Option<LoadBounds> {
        self.inner.loads.load().get(group).copied()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// How a member is connected to, past the pool.
    pub(super) fn route(&self, member: &Member) -> Result<Route, Error> {
        self.inner.links.route(member)
    }

    pub(super) fn link(&self, lane: Lane, member: &Member) -> Result<Arc<Link>, Failed> {
        let link = self.inner.links.get(lane, member);
        link.map_err(|error| {
            let status = Status::unavailable(error.message());
            self.log(member, "can't be connected to", &status);
            Failed::unreachable(error)
        })
    }

    /// One call within `bound`; again if a connection that was established ends under it.
    pub(super) async fn call<T, F>(
        &self,
        member: &Member,
        link: &Arc<Link>,
        bound: Duration,
        send: impl Fn(Client) -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let inner = &self.inner;
        let limit = message_limit(inner.rules.max_value);
        let counted = Counted::new(link.channel.clone(), inner.rules.budget.clone(), limit);
        let client = PeerClient::new(counted).max_decoding_message_size(limit);
        let attempts = async {
            let mut left = FURTHER_ATTEMPTS;
            let mut pauses = pauses(FIRST_PAUSE, LAST_PAUSE).take(MOST_PAUSES);
            loop {
                let status = match send(client.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => status,
                };
                let failure = Failure::of(&status);
                if failure.is_worth_another() && left > 0 {
                    left -= 1;
                } else if let (Failure::NotKnown(_), Some(pause)) = (failure, pauses.next()) {
                    tokio::time::sleep(pause).await;
                } else {
                    return Err(status);
                }
            }
        };
        let answered = tokio::select! {
            answered = tokio::time::timeout(bound, attempts) => answered,
            () = link.lost.cancelled() => {
                return Err(Failed::not_connected(member));
            }
        };
        let answered =
            answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        answered.map(Response::into_inner).map_err(|status| {
            if matches!(Failure::of(&status), Failure::Refused) {
                inner.links.lose(member, link);
            }
            self.failed(member, &status)
        })
    }

    /// Opens the stream of a handoff: its batches, and what their receipts are read from.
    pub(in crate::rpc) async fn open_handoff(
        &self,
        member: &Member,
        batches: ReceiverStream<wire::HandoffBatch>,
    ) -> Result<(Arc<Link>, Streaming<wire::HandoffReceipt>), Failed> {
        let link = self.link(Lane::Bulk, member)?;
        let answer = PeerClient::new(link.channel.clone()).handoff(batches).await;
        match answer {
            Ok(receipts) => Ok((link, receipts.into_inner())),
            Err(status) => Err(self.failed(member, &status)),
        }
    }

    /// A call that a member answers from what it knows.
    pub(super) async fn ask<T, F>(
        &self,
        member: &Member,
        bound: Duration,
        send: impl Fn(Client) -> F,
    ) -> Result<T, PeerError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = match self.link(Lane::Control, member) {
            Ok(link) => self.call(member, &link, bound, send).await,
            Err(failed) => Err(failed),
        };
        answer.map_err(|failed| failed.error)
    }

    /// Ejects the peer if it is out of reach, and says what its failed call means. That a peer is
    /// ejected is always logged, whatever was logged of it before.
    pub(in crate::rpc) fn failed(&self, member: &Member, status: &Status) -> Failed {
        let failure = Failure::of(status);
        let mut is_new = false;
        let what = if failure.ejects() {
            if let Ok(route) = self.inner.links.route(member) {
                is_new = self.inner.ejected.add(member, route);
            }
            "can't be reached; the next member in ring order stands in for it"
        } else {
            match failure {
                Failure::Late => "takes too long to answer",
                Failure::NotKnown(_) => "does not know the identity of this node",
                Failure::TooLarge => "has another max_value: a message is too large",
                Failure::Unusable | Failure::Closed => {
                    "refused a call, or runs an incompatible version"
                }
                _ => "",
            }
        };
        if is_new {
            log_failed(member, what, status, 0);
        } else if !what.is_empty() {
            self.log(member, what, status);
        }
        Failed::new(failure, status, self.inner.rules.max_value)
    }

    fn log(&self, member: &Member, what: &str, status: &Status) {
        if let Some(suppressed) = self.inner.throttle.due(&member.id) {
            log_failed(member, what, status, suppressed);
        }
    }
}

fn log_failed(member: &Member, what: &str, status: &Status, suppressed: u64) {
    tracing::warn!(
        peer = %member.id, address = %member.contact.address, code = %status.code(),
        cause = status.message(), what, suppressed, "a call to a peer failed"
    );
}

/// Closes idle connections for as long as the pool lives.
async fn close_idle(pool: Weak<Inner>, idle: Duration) {
    let pause = (idle / 4).max(Duration::from_millis(1));
    loop {
        tokio::time::sleep(pause).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.links.close_idle();
    }
}
