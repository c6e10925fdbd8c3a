//! A tonic channel over a discovery. Every endpoint has its own connection, and each request goes
//! to an endpoint that is ready.
//!
//! An endpoint is ready when it is connected and its health check reports that it is serving. An
//! endpoint without the health service counts as healthy while it is connected. An endpoint stops
//! being ready immediately when its connection breaks, its health check fails, or it leaves etcd.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code, Status,
    body::Body,
    transport::{self, Channel},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::Service;

use super::{
    endpoint::Endpoint,
    pick::{Canary, Candidate, Picker, Preferences, Throw, pick},
    watch::Discovery,
};

use crate::backoff::Pauses;

/// The request header (gRPC metadata) that [`Picker::ConsistentHash`] hashes.
pub const HASH_KEY_HEADER: &str = "x-hash-key";

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Interval of TCP keepalives, which detect a host that is gone. HTTP/2 pings are not used: by
/// default, a Go server closes the connection of a client that pings more than once in five
/// minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The options of a balanced channel.
///
/// ```
/// use gaocache_discovery::{ChannelOptions, Picker};
///
/// let options = ChannelOptions::default().with_picker(Picker::ConsistentHash).with_zone("a");
/// # drop(options);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// How requests are distributed.
    pub picker: Picker,
    /// The zone whose endpoints are preferred, by their metadata `zone`.
    pub zone: Option<String>,
    /// Requests in flight at an endpoint of the preferred zone beyond which other zones are used
    /// too.
    pub spill_over_at: usize,
    /// A fixed share of the traffic for certain endpoints.
    pub canary: Option<Canary>,
    /// The service name to query the health service for.
    pub health_service: String,
    /// Time limit for connecting to an endpoint.
    pub connect_timeout: Duration,
    /// How long a request waits for an endpoint to become ready before it fails as unavailable.
    pub wait_for_ready: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            picker: Picker::RoundRobin,
            zone: None,
            spill_over_at: 100,
            canary: None,
            health_service: String::new(),
            connect_timeout: Duration::from_secs(1),
            wait_for_ready: Duration::from_secs(5),
        }
    }
}

impl ChannelOptions {
    /// Shares requests out like this.
    #[must_use]
    pub fn with_picker(mut self, picker: Picker) -> Self {
        self.picker = picker;
        self
    }

    /// Prefers endpoints of this zone.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Lets other zones help out from so many requests under way on.
    #[must_use]
    pub fn with_spill_over_at(mut self, spill_over_at: usize) -> Self {
        self.spill_over_at = spill_over_at;
        self
    }

    /// Sends a share of the traffic to certain endpoints.
    #[must_use]
    pub fn with_canary(mut self, canary: Canary) -> Self {
        self.canary = Some(canary);
        self
    }

    /// Asks the health service for this name.
    #[must_use]
    pub fn with_health_service(mut self, health_service: impl Into<String>) -> Self {
        self.health_service = health_service.into();
        self
    }

    /// With this bound on connecting to an endpoint.
    #[must_use]
    pub fn with_connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// With this bound on waiting for an endpoint that is ready.
    #[must_use]
    pub fn with_wait_for_ready(mut self, wait_for_ready: Duration) -> Self {
        self.wait_for_ready = wait_for_ready;
        self
    }
}

/// The channel. Cheap to clone; connections close when the last clone is dropped.
#[derive(Clone)]
pub struct BalancedChannel {
    pool: Arc<Pool>,
    _stop: Arc<DropGuard>,
}

/// An endpoint that is connected and healthy.
struct Backend {
    key: Arc<str>,
    endpoint: Endpoint,
    line: Arc<Line>,
}

/// The connection to an endpoint.
struct Line {
    channel: Channel,
    in_flight: AtomicUsize,
    /// Notified when a request finds that the connection is broken.
    broken: Notify,
}

struct Pool {
    preferences: Preferences,
    options: ChannelOptions,
    turn: AtomicUsize,
    lines: Mutex<BTreeMap<Arc<str>, Arc<Line>>>,
    endpoints: Mutex<Arc<BTreeMap<Arc<str>, Endpoint>>>,
    ready: watch::Sender<Arc<[Backend]>>,
}

impl BalancedChannel {
    /// A channel over all endpoints that `discovery` finds.
    pub fn new(discovery: Discovery, picker: Picker) -> Self {
        let options = ChannelOptions {
            picker,
            ..ChannelOptions::default()
        };
        Self::with_options(discovery, options)
    }

    /// As [`BalancedChannel::new`], with all options.
    pub fn with_options(discovery: Discovery, options: ChannelOptions) -> Self {
        let pool = Arc::new(Pool {
            preferences: Preferences {
                picker: options.picker,
                zone: options.zone.clone(),
                spill_over_at: options.spill_over_at,
                canary: options.canary.clone(),
            },
            options,
            turn: AtomicUsize::new(0),
            lines: Mutex::default(),
            endpoints: Mutex::default(),
            ready: watch::Sender::new(Arc::from([])),
        });
        let stop = CancellationToken::new();
        tokio::spawn(supervise(pool.clone(), discovery, stop.clone()));
        Self {
            pool,
            _stop: Arc::new(stop.drop_guard()),
        }
    }

    /// The keys of the endpoints that are currently ready.
    pub fn ready(&self) -> Vec<String> {
        let ready = self.pool.ready.borrow().clone();
        ready
            .iter()
            .map(|backend| backend.key.to_string())
            .collect()
    }

    /// Resolves when `enough` returns true for the keys of the endpoints that are ready.
    pub async fn until_ready(&self, enough: impl Fn(&[String]) -> bool) {
        let mut changes = self.pool.ready.subscribe();
        while !enough(&self.ready()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Follows the discovery and runs one task per endpoint.
async fn supervise(pool: Arc<Pool>, discovery: Discovery, stop: CancellationToken) {
    let mut changes = discovery.changes();
    changes.mark_changed();
    let mut tasks: HashMap<Arc<str>, (Arc<str>, DropGuard)> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        let endpoints = changes.borrow_and_update().endpoints.clone();
        tasks.retain(|key, (address, _)| {
            endpoints
                .get(key)
                .is_some_and(|endpoint| endpoint.address == *address)
        });
        *pool.endpoints.lock() = endpoints.clone();
        pool.lines.lock().retain(|key, _| tasks.contains_key(key));
        for (key, endpoint) in endpoints.iter() {
            if tasks.contains_key(key) {
                continue;
            }
            let token = CancellationToken::new();
            let tending = tend(pool.clone(), key.clone(), endpoint.address.clone());
            let stopped = token.clone();
            tokio::spawn(async move { stopped.run_until_cancelled(tending).await });
            tasks.insert(key.clone(), (endpoint.address.clone(), token.drop_guard()));
        }
        pool.publish();
    }
}

/// Maintains the connection to one endpoint until it is cancelled.
async fn tend(pool: Arc<Pool>, key: Arc<str>, address: Arc<str>) {
    let mut pauses = Pauses::new(FIRST_PAUSE, LAST_PAUSE);
    loop {
        if let Some(channel) = connect(&pool.options, &address).await {
            pauses.reset();
            let line = Arc::new(Line {
                channel,
                in_flight: AtomicUsize::new(0),
                broken: Notify::new(),
            });
            tokio::select! {
                () = follow_health(&pool, &key, &line) => {}
                () = line.broken.notified() => {}
            }
            pool.set_line(&key, None);
        }
        tokio::time::sleep(pauses.next()).await;
    }
}

async fn connect(options: &ChannelOptions, address: &str) -> Option<Channel> {
    let endpoint = transport::Endpoint::from_shared(format!("http://{address}")).ok()?;
    let endpoint = endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEP_ALIVE))
        .tcp_keepalive_interval(Some(KEEP_ALIVE))
        .tcp_keepalive_retries(Some(3));
    // In addition to the connect timeout: a host may accept the connection and then stay silent.
    let connected = tokio::time::timeout(options.connect_timeout * 2, endpoint.connect());
    connected.await.ok()?.ok()
}

/// Puts the connection in and out of service according to the endpoint's health. Returns when the
/// health stream ends.
async fn follow_health(pool: &Pool, key: &Arc<str>, line: &Arc<Line>) {
    let request = HealthCheckRequest {
        service: pool.options.health_service.clone(),
    };
    let watched = HealthClient::new(line.channel.clone()).watch(request).await;
    let mut health = match watched {
        Ok(stream) => stream.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => {
            pool.set_line(key, Some(line.clone()));
            return std::future::pending().await;
        }
        Err(_) => return,
    };
    loop {
        match health.message().await {
            Ok(Some(answer)) => {
                let serving = answer.status() == ServingStatus::Serving;
                pool.set_line(key, serving.then(|| line.clone()));
            }
            // Some servers implement the service only partially.
            Err(status) if status.code() == Code::Unimplemented => {
                pool.set_line(key, Some(line.clone()));
                return std::future::pending().await;
            }
            Ok(None) | Err(_) => return,
        }
    }
}

impl Pool {
    fn set_line(&self, key: &Arc<str>, line: Option<Arc<Line>>) {
        match line {
            Some(line) => self.lines.lock().insert(key.clone(), line),
            None => self.lines.lock().remove(key),
        };
        self.publish();
    }

    fn publish(&self) {
        let endpoints = self.endpoints.lock().clone();
        self.ready.send_modify(|ready| {
            let lines = self.lines.lock();
            *ready = lines
                .iter()
                .filter_map(|(key, line)| {
                    Some(Backend {
                        key: key.clone(),
                        endpoint: endpoints.get(key)?.clone(),
                        line: line.clone(),
                    })
                })
                .collect();
        });
    }

    /// The connection for a request. Waits for one if none is ready.
    async fn line(&self, hash_key: Option<String>) -> Result<Arc<Line>, Status> {
        if let Some(line) = self.pick(hash_key.as_deref()) {
            return Ok(line);
        }
        let mut changes = self.ready.subscribe();
        let found = async {
            loop {
                if let Some(line) = self.pick(hash_key.as_deref()) {
                    return Some(line);
                }
                changes.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(self.options.wait_for_ready, found).await {
            Ok(Some(line)) => Ok(line),
            _ => Err(Status::unavailable("no endpoint of the service is ready")),
        }
    }

    fn pick(&self, hash_key: Option<&str>) -> Option<Arc<Line>> {
        let ready = self.ready.borrow().clone();
        let candidates: Vec<Candidate<'_>> = ready
            .iter()
            .map(|backend| Candidate {
                key: &backend.key,
                endpoint: &backend.endpoint,
                in_flight: backend.line.in_flight.load(Ordering::Relaxed),
            })
            .collect();
        let throw = Throw {
            hash_key,
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
            dice: [fastrand::f64(), fastrand::f64()],
        };
        let at = pick(&candidates, &self.preferences, throw)?;
        Some(ready[at].line.clone())
    }
}

impl Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let header = request.headers().get(HASH_KEY_HEADER);
            let hash_key = header.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
            let line = channel.pool.line(hash_key).await?;
            let counted = Counted::new(line.clone());
            let mut connection = line.channel.clone();
            let ready = std::future::poll_fn(|cx| connection.poll_ready(cx)).await;
            let answer = match ready {
                Ok(()) => connection.call(request).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => Ok(response.map(|body| {
                    Body::new(CountedBody {
                        body,
                        _counted: counted,
                    })
                })),
                Err(error) => {
                    line.broken.notify_one();
                    Err(Status::from_error(error.into()))
                }
            }
        })
    }
}

/// Counts a request as in flight until it is dropped.
struct Counted(Arc<Line>);

impl Counted {
    fn new(line: Arc<Line>) -> Self {
        line.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(line)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body; its request counts as in flight until the body ends.
struct CountedBody {
    body: Body,
    _counted: Counted,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
