//! The way to other nodes: their calls, by connections of their own (`links`), and which of them
//! are ejected since they are out of reach (`ejected`).
//!
//! A member is out of reach when its connection is refused, breaks, or stops answering pings. Then
//! the next in ring order stands in for it, until a probe finds it healthy. A member that takes
//! long, refuses a call or answers what this node can't use is not: `failure` tells these apart,
//! and must never eject a member for what it answers.

mod ejected;
mod failure;
mod fetch;
mod links;
mod places;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming, transport::Channel};

pub(super) use links::Link;
pub use links::this_thread_is_worker;
pub use places::LoadBounds;

use self::{
    ejected::Ejected,
    failure::Failure,
    links::{Lane, Links},
};
use super::{
    convert,
    handoff::GrpcHandoffStream,
    wire::{self, peer_client::PeerClient},
};
use crate::telemetry::{metrics::Metrics, throttle::Throttle};
use gaocache_core::{
    cluster::Cluster,
    error::{Error, ErrorKind, Result},
    membership::{IdHash, Member, View},
    ports::{
        Clock, HandoffStream, Peeked, PeerAnswer, PeerError, Peers, Removed, Timestamp, Voucher,
    },
};

/// Bound on a peek, which the peer answers from memory: past it the next is asked, and then the
/// origin.
const PEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a call is made again when its connection ends: on a new one, so a peer that died
/// refuses it at once.
const FURTHER_ATTEMPTS: usize = 2;
/// What a message holds beside its largest value: key, numbers, and in a handoff the smaller
/// entries of the same batch.
const MESSAGE_OVERHEAD_BYTES: u64 = 1024 * 1024;

/// How peers are called.
#[derive(Clone, Debug)]
pub struct PeerRules {
    /// Bound on connecting.
    pub connect_timeout: Duration,
    /// Bound on an answer, besides what a load from the origin may take.
    pub timeout: Duration,
    /// How long a connection is kept without a call.
    pub idle: Duration,
    /// The largest value of any group, in bytes.
    pub max_value: u64,
    /// Worker threads.
    pub workers: usize,
    /// What bounds the loads of each group.
    pub loads: HashMap<Arc<str>, LoadBounds>,
}

/// The largest message between nodes, in bytes: one that carries a value of `max_value`, or a batch
/// of smaller ones with it.
pub(super) fn message_limit(max_value: u64) -> usize {
    usize::try_from(max_value.saturating_add(MESSAGE_OVERHEAD_BYTES)).unwrap_or(usize::MAX)
}

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
    throttle: Throttle,
}

/// A call that brought nothing: what the core is told, and why.
pub(super) struct Failed {
    pub(super) error: PeerError,
    why: Why,
}

/// Why a call brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Unreachable,
    Late,
    Incompatible,
    /// The peer does not have the group yet, or is leaving.
    Unavailable,
    Error,
}

impl Why {
    /// As metrics name it.
    const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Incompatible => "incompatible",
            Self::Unavailable => "unavailable",
            Self::Late | Self::Error => "error",
        }
    }
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
        let gauge = metrics.peers_ejected.clone();
        let inner = Arc::new(Inner {
            cluster,
            links: Links::new(&rules, runtime.clone()),
            ejected: Ejected::new(gauge, runtime.clone(), probe_timeout),
            metrics,
            clock,
            throttle: Throttle::default(),
            rules,
        });
        runtime.spawn(close_idle(Arc::downgrade(&inner), inner.rules.idle));
        Self { inner }
    }

    /// The present moment.
    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Who calls, by its present incarnation.
    pub(super) fn me(&self) -> IdHash {
        let topology = self.inner.cluster.topology();
        topology.me().map(Member::incarnation).unwrap_or_default()
    }

    /// Lets go of connections that lead to no member any more.
    pub fn keep_only(&self, members: &View) {
        self.inner.links.keep_only(members);
        self.inner.ejected.keep_only(members);
    }

    fn link(&self, lane: Lane, member: &Member) -> Result<Arc<Link>, Failed> {
        let link = self.inner.links.get(lane, member);
        link.map_err(Failed::unreachable)
    }

    /// One call within `bound`; again if a connection that was established ends under it.
    async fn call<T, F>(
        &self,
        member: &Member,
        link: &Arc<Link>,
        bound: Duration,
        send: impl Fn(PeerClient<Channel>) -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let inner = &self.inner;
        let limit = message_limit(inner.rules.max_value);
        let client = PeerClient::new(link.channel.clone()).max_decoding_message_size(limit);
        let attempts = async {
            let mut left = FURTHER_ATTEMPTS;
            loop {
                let status = match send(client.clone()).await {
                    Ok(answer) => return Ok(answer),
                    Err(status) => status,
                };
                if left == 0 || !Failure::of(&status).is_worth_another() {
                    return Err(status);
                }
                left -= 1;
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
    pub(super) async fn open_handoff(
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
    async fn ask<T, F>(
        &self,
        member: &Member,
        bound: Duration,
        send: impl Fn(PeerClient<Channel>) -> F,
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

    /// Ejects the peer if it is out of reach, and says what its failed call means.
    pub(super) fn failed(&self, member: &Member, status: &Status) -> Failed {
        let failure = Failure::of(status);
        let what = if failure.ejects() {
            if let Ok(endpoint) = self.inner.links.endpoint(&member.contact) {
                self.inner.ejected.add(member, endpoint);
            }
            "can't be reached; the next member in ring order stands in for it"
        } else {
            match failure {
                Failure::Late => "takes too long to answer",
                Failure::TooLarge => "has another max_value: a message is too large",
                Failure::Unusable | Failure::Closed => {
                    "refused a call, or runs an incompatible version"
                }
                _ => "",
            }
        };
        if !what.is_empty() {
            self.log(member, what, status);
        }
        Failed::new(failure, status, self.inner.rules.max_value)
    }

    fn log(&self, member: &Member, what: &str, status: &Status) {
        if let Some(suppressed) = self.inner.throttle.due(&member.id) {
            tracing::warn!(
                peer = %member.id, address = %member.contact.address, code = %status.code(),
                cause = status.message(), suppressed, "a peer {what}"
            );
        }
    }
}

impl Failed {
    fn new(failure: Failure, status: &Status, max_value: u64) -> Self {
        let cause = || {
            let what = format!("{}: {}", status.code(), status.message());
            Error::new(ErrorKind::PeerUnreachable, what).with_source(status.clone())
        };
        match failure {
            Failure::Answered(error) => {
                let passing = [ErrorKind::UnknownGroup, ErrorKind::NotReady];
                let passing = passing.contains(&error.kind());
                Self {
                    why: if passing {
                        Why::Unavailable
                    } else {
                        Why::Error
                    },
                    error: PeerError::Answered(error),
                }
            }
            Failure::TooLarge => {
                let what = format!("between nodes: {}", status.message());
                let error = Error::value_too_large(what, max_value);
                Self::answered(error.with_source(status.clone()))
            }
            Failure::Refused | Failure::Silent | Failure::Broken => Self::unreachable(cause()),
            Failure::Late => Self {
                why: Why::Late,
                ..Self::unreachable(cause())
            },
            Failure::Unusable | Failure::Closed => Self {
                why: Why::Incompatible,
                ..Self::unreachable(cause())
            },
        }
    }

    fn unreachable(error: Error) -> Self {
        Self {
            error: PeerError::Unreachable(error),
            why: Why::Unreachable,
        }
    }

    fn not_connected(member: &Member) -> Self {
        let what = format!("{} can't be connected to", member.id);
        Self::unreachable(Error::new(ErrorKind::PeerUnreachable, what))
    }

    fn answered(error: Error) -> Self {
        Self {
            error: PeerError::Answered(error),
            why: Why::Error,
        }
    }
}

#[async_trait]
impl Peers for GrpcPeers {
    fn usable(&self, member: &Member) -> bool {
        !self.inner.ejected.contains(member)
    }

    async fn fetch(
        &self,
        member: &Member,
        group: &str,
        key: &str,
    ) -> Result<PeerAnswer, PeerError> {
        self.fetch_traced(member, group, key).await
    }

    async fn peek(&self, member: &Member, group: &str, key: &str) -> Result<Peeked, PeerError> {
        let found = match self.link(Lane::Data, member) {
            Ok(link) => {
                self.call_peek(member, &link, PEEK_TIMEOUT, (group, key))
                    .await
            }
            Err(failed) => Err(failed),
        };
        found.map_err(|failed| failed.error)
    }

    async fn remove(
        &self,
        member: &Member,
        group: &str,
        key: Option<&str>,
    ) -> Result<Removed, PeerError> {
        let request = wire::RemoveHereRequest {
            group: group.to_owned(),
            key: key.map(str::to_owned),
        };
        let send = |mut client: PeerClient<Channel>| {
            let request = request.clone();
            async move { client.remove(request).await }
        };
        let answer = self.ask(member, self.inner.rules.timeout, send).await?;
        Ok(Removed {
            entries: answer.entries,
            incarnation: IdHash(answer.incarnation),
        })
    }

    async fn vouch(
        &self,
        member: &Member,
        asker: IdHash,
        counted: &[IdHash],
    ) -> Result<Voucher, PeerError> {
        let request = wire::VouchRequest {
            asker: asker.0,
            counted: counted.iter().map(|it| it.0).collect(),
        };
        let send = |mut client: PeerClient<Channel>| {
            let request = request.clone();
            async move { client.vouch(request).await }
        };
        Ok(convert::voucher(
            self.ask(member, self.inner.rules.timeout, send).await?,
        ))
    }

    async fn promise(&self, member: &Member, against: IdHash) -> Result<IdHash, PeerError> {
        let request = wire::PromiseRequest { against: against.0 };
        let send = |mut client: PeerClient<Channel>| async move { client.promise(request).await };
        let answer = self.ask(member, self.inner.rules.timeout, send).await?;
        Ok(IdHash(answer.incarnation))
    }

    async fn handoff(
        &self,
        member: &Member,
        revision: u64,
    ) -> Result<Box<dyn HandoffStream>, PeerError> {
        let opened = GrpcHandoffStream::open(self, member, revision).await;
        Ok(Box::new(opened?))
    }

    async fn await_revision(&self, member: &Member, revision: u64) -> Result<(), PeerError> {
        let request = wire::AwaitRevisionRequest { revision };
        let send =
            |mut client: PeerClient<Channel>| async move { client.await_revision(request).await };
        // Its caller bounds it: the answer waits for what the member is to see.
        self.ask(member, Duration::MAX, send).await.map(|_| ())
    }
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
