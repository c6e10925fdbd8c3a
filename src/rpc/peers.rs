//! The way to other nodes: a pool of connections, and which of them are ejected after a failure.
//!
//! Each worker thread has connections of its own, so that no request changes threads on its way;
//! the other threads, handoff among them, share one set. A peer thus has as many connections from
//! this node as it has workers, and one. A member that fails is ejected at once, and a task probes
//! it with growing pauses until it answers its health check; meanwhile the next member in ring
//! order stands in for it.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{runtime::Handle, time::Instant};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use tracing::Instrument;

use super::{
    convert,
    handoff::GrpcHandoffStream,
    wire::{self, peer_client::PeerClient},
};
use crate::{
    backoff::pauses,
    status::grpc::from_status,
    telemetry::{
        metrics::Metrics,
        throttle::Throttle,
        trace::{self, Told},
    },
};
use gaocache_core::{
    cluster::Cluster,
    error::{Error, ErrorKind, Result},
    membership::{IdHash, Member},
    ports::{Clock, HandoffStream, PeerAnswer, PeerError, Peers, Removed, Timestamp, Voucher},
};

/// How often an idle or waiting connection is tested, and how long an answer may take. Together
/// they bound how long a node that froze (not one that died: its kernel answers) holds up requests.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Room for a megabyte under way in a call, and eight on a connection: a large value doesn't wait
/// for window updates.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Pauses between probes of a member that is ejected.
const FIRST_PROBE: Duration = Duration::from_millis(100);
const LAST_PROBE: Duration = Duration::from_secs(5);
/// Bound on a call that a member answers from what it knows: removals, words and promises.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bound on a look, which its peer answers from memory: past it the next is asked, and then the
/// origin.
const PEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// What a message holds beside its largest value: key, numbers, and in a handoff the smaller
/// entries of the same batch.
const MESSAGE_OVERHEAD_BYTES: u64 = 1024 * 1024;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Tells the pool which worker this thread is. Threads that don't say share connections of their
/// own.
pub fn this_thread_is_worker(number: usize) {
    WORKER.set(number);
}

/// How peers are called.
#[derive(Clone, Copy, Debug)]
pub struct PeerRules {
    /// Bound on connecting.
    pub connect_timeout: Duration,
    /// Bound on a fetch, its load from the origin included.
    pub timeout: Duration,
    /// The largest value of any group, in bytes.
    pub max_value: u64,
    /// Worker threads.
    pub workers: usize,
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
    /// By worker, the other threads last; then by address.
    pools: Vec<Mutex<HashMap<Arc<str>, Channel>>>,
    ejected: Mutex<HashSet<Arc<str>>>,
    /// The size of `ejected`, to be read without its lock: nearly always zero.
    ejected_count: AtomicUsize,
    /// Where probes run, so that they outlive the request that found the failure.
    runtime: Handle,
    throttle: Throttle,
}

impl GrpcPeers {
    /// A pool without connections; they are made when first needed. Probes run on the current
    /// runtime.
    pub fn new(
        cluster: Arc<Cluster>,
        rules: PeerRules,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let pools = (0..=rules.workers).map(|_| Mutex::default()).collect();
        Self {
            inner: Arc::new(Inner {
                cluster,
                rules,
                metrics,
                clock,
                pools,
                ejected: Mutex::default(),
                ejected_count: AtomicUsize::new(0),
                runtime: Handle::current(),
                throttle: Throttle::default(),
            }),
        }
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

    /// A short call that a member answers from what it knows.
    async fn told<T>(
        &self,
        member: &Member,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, PeerError> {
        let answer = tokio::time::timeout(REMOVE_TIMEOUT, call).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => match from_status(&status) {
                Some(error) => Err(PeerError::Answered(error)),
                None => Err(self.failed(member, &status).0),
            },
        }
    }

    /// Lets go of connections to addresses that no member has any more.
    pub fn keep_only(&self, addresses: &HashSet<Arc<str>>) {
        for pool in &self.inner.pools {
            pool.lock().retain(|address, _| addresses.contains(address));
        }
        let mut ejected = self.inner.ejected.lock();
        ejected.retain(|address| addresses.contains(address));
        self.inner.count_ejected(&ejected);
    }

    fn channel(&self, address: &Arc<str>) -> Result<Channel, PeerError> {
        let pools = &self.inner.pools;
        let mut pool = pools[WORKER.get().min(pools.len() - 1)].lock();
        if let Some(channel) = pool.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.inner.endpoint(address)?.connect_lazy();
        pool.insert(address.clone(), channel.clone());
        Ok(channel)
    }

    pub(super) fn client(&self, member: &Member) -> Result<PeerClient<Channel>, PeerError> {
        let limit = message_limit(self.inner.rules.max_value);
        Ok(PeerClient::new(self.channel(&member.address)?).max_decoding_message_size(limit))
    }

    /// Sorts a failed call: an answer of the peer's, or a failure to reach it, which ejects it.
    pub(super) fn failed(&self, member: &Member, status: &Status) -> (PeerError, &'static str) {
        if let Some(error) = from_status(status) {
            return match error.kind() {
                // It doesn't know the group yet (a rollout), or is going: another member may
                // answer.
                ErrorKind::UnknownGroup | ErrorKind::NotReady => {
                    (PeerError::Unreachable(error), "unavailable")
                }
                _ => (PeerError::Answered(error), "error"),
            };
        }
        let error = Error::new(
            ErrorKind::PeerUnreachable,
            format!("{}: {}", status.code(), status.message()),
        )
        .with_source(status.clone());
        if status.code() == Code::Unimplemented {
            // Something answers there, but not this release's service. Ejecting it wouldn't change
            // that.
            self.log(member, "runs an incompatible version", status);
            return (PeerError::Unreachable(error), "incompatible");
        }
        self.eject(member);
        self.log(
            member,
            "can't be reached; the next member in ring order stands in for it",
            status,
        );
        (PeerError::Unreachable(error), "unreachable")
    }

    fn log(&self, member: &Member, what: &str, status: &Status) {
        if let Some(suppressed) = self.inner.throttle.due(&member.id) {
            tracing::warn!(
                peer = %member.id, address = %member.address, code = %status.code(),
                cause = status.message(), suppressed, "a peer {what}"
            );
        }
    }

    fn eject(&self, member: &Member) {
        let address = member.address.clone();
        let mut ejected = self.inner.ejected.lock();
        if !ejected.insert(address.clone()) {
            return;
        }
        self.inner.count_ejected(&ejected);
        drop(ejected);
        let inner = self.inner.clone();
        self.inner
            .runtime
            .spawn(async move { inner.probe(address).await });
    }

    async fn call_fetch(
        &self,
        member: &Member,
        group: &str,
        key: &str,
    ) -> Result<PeerAnswer, PeerError> {
        let mut request = trace::request(wire::FetchRequest {
            group: group.to_owned(),
            key: key.to_owned(),
        });
        let timeout = self.inner.rules.timeout;
        request.set_timeout(timeout);
        let mut client = self.client(member)?;
        let asked_at = self.now();
        let call = tokio::time::timeout(timeout, client.fetch(request)).await;
        let answered = call.unwrap_or_else(|_| Err(Status::deadline_exceeded("timed out")));
        let answered =
            answered.map(|response| convert::peer_answer(response.into_inner(), asked_at));
        let (result, outcome) = match answered {
            Ok(Some(answer)) => {
                let outcome = if answer.was_hit { "hit" } else { "origin" };
                (Ok(answer), outcome)
            }
            Ok(None) => {
                let status = Status::unimplemented("unknown entry format");
                let (error, outcome) = self.failed(member, &status);
                (Err(error), outcome)
            }
            Err(status) => {
                let (error, outcome) = self.failed(member, &status);
                (Err(error), outcome)
            }
        };
        self.inner
            .metrics
            .peer_fetches
            .with_label_values(&[&*member.id, outcome])
            .inc();
        let value = result.as_ref().ok();
        let value = value.and_then(|it| it.record.value.as_ref());
        trace::ended(
            match &result {
                Ok(_) => Ok(outcome),
                Err(PeerError::Answered(error) | PeerError::Unreachable(error)) => Err(error),
            },
            Told {
                bytes: value.map(Bytes::len),
                ..Told::default()
            },
        );
        result
    }
}

#[async_trait]
impl Peers for GrpcPeers {
    fn usable(&self, member: &Member) -> bool {
        self.inner.ejected_count.load(Ordering::Acquire) == 0
            || !self.inner.ejected.lock().contains(&member.address)
    }

    async fn fetch(
        &self,
        member: &Member,
        group: &str,
        key: &str,
    ) -> Result<PeerAnswer, PeerError> {
        let started = Instant::now();
        let span = trace::fetch_span(member, group);
        let result = self.call_fetch(member, group, key).instrument(span).await;
        let took = started.elapsed().as_secs_f64();
        self.inner.metrics.peer_fetch_duration.observe(took);
        result
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
        let mut client = self.client(member)?;
        let answer = self.told(member, client.remove(request)).await?;
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
        let mut client = self.client(member)?;
        let answer = self.told(member, client.vouch(request)).await?;
        Ok(convert::voucher(answer))
    }

    async fn promise(&self, member: &Member, against: IdHash) -> Result<IdHash, PeerError> {
        let request = wire::PromiseRequest { against: against.0 };
        let mut client = self.client(member)?;
        let answer = self.told(member, client.promise(request)).await?;
        Ok(IdHash(answer.incarnation))
    }

    async fn peek(
        &self,
        member: &Member,
        group: &str,
        key: &str,
    ) -> Result<Option<PeerAnswer>, PeerError> {
        let mut client = self.client(member)?;
        let request = wire::PeekRequest {
            group: group.to_owned(),
            key: key.to_owned(),
        };
        let asked_at = self.now();
        let call = tokio::time::timeout(PEEK_TIMEOUT, client.peek(request)).await;
        match call.unwrap_or_else(|_| Err(Status::deadline_exceeded("timed out"))) {
            Ok(response) => {
                let answer = response.into_inner().answer;
                Ok(answer.and_then(|answer| convert::peer_answer(answer, asked_at)))
            }
            Err(status) => Err(self.failed(member, &status).0),
        }
    }

    async fn handoff(&self, member: &Member) -> Result<Box<dyn HandoffStream>, PeerError> {
        Ok(Box::new(GrpcHandoffStream::open(self, member).await?))
    }

    async fn await_revision(&self, member: &Member, revision: u64) -> Result<(), PeerError> {
        let request = wire::AwaitRevisionRequest { revision };
        let answer = self.client(member)?.await_revision(request).await;
        answer
            .map(|_| ())
            .map_err(|status| self.failed(member, &status).0)
    }
}

impl Inner {
    fn endpoint(&self, address: &str) -> Result<Endpoint, PeerError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            let what = format!("invalid address '{address}': {error}");
            let unreachable = Error::new(ErrorKind::PeerUnreachable, what);
            PeerError::Unreachable(unreachable.with_source(error))
        })?;
        Ok(endpoint
            .connect_timeout(self.rules.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW))
    }

    fn count_ejected(&self, ejected: &HashSet<Arc<str>>) {
        self.ejected_count.store(ejected.len(), Ordering::Release);
        self.metrics
            .peers_ejected
            .set(i64::try_from(ejected.len()).unwrap_or(i64::MAX));
    }

    /// Tries the address until it serves, or until no member has it any more.
    async fn probe(self: Arc<Self>, address: Arc<str>) {
        for pause in pauses(FIRST_PROBE, LAST_PROBE) {
            tokio::time::sleep(pause).await;
            if !self.ejected.lock().contains(&address) {
                return;
            }
            if self.serves(&address).await {
                let mut ejected = self.ejected.lock();
                ejected.remove(&address);
                self.count_ejected(&ejected);
                tracing::info!(%address, "an ejected peer answers again");
                return;
            }
        }
    }

    async fn serves(&self, address: &str) -> bool {
        let Ok(endpoint) = self.endpoint(address) else {
            return false;
        };
        let check = async {
            let channel = endpoint.connect().await.ok()?;
            let request = HealthCheckRequest::default();
            let answer = HealthClient::new(channel).check(request).await.ok()?;
            Some(answer.into_inner().status() == ServingStatus::Serving)
        };
        let bound = self.rules.connect_timeout * 2;
        matches!(tokio::time::timeout(bound, check).await, Ok(Some(true)))
    }
}
