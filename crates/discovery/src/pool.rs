//! The connections of a balanced channel. Each endpoint has its own connection, which a task
//! maintains. It is in service while it is up and the endpoint is healthy.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code, Status,
    transport::{self, Channel},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    discovery::Discovery,
    endpoint::Endpoint,
    options::ChannelOptions,
    pick::{Candidate, Preferences, Throw, pick},
};
use crate::backoff::Pauses;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Interval of TCP keepalives, which detect a host that is gone. HTTP/2 pings are not used: by
/// default, a Go server closes the connection of a client that pings more than once in five
/// minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// An endpoint that is connected and healthy.
pub(super) struct Backend {
    pub(super) key: Arc<str>,
    endpoint: Endpoint,
    line: Arc<Line>,
}

/// The connection to an endpoint.
pub(super) struct Line {
    pub(super) channel: Channel,
    pub(super) in_flight: AtomicUsize,
    /// Notified when a request finds that the connection is broken.
    pub(super) broken: Notify,
}

/// The connections of a channel.
pub(super) struct Pool {
    preferences: Preferences,
    options: ChannelOptions,
    turn: AtomicUsize,
    lines: Mutex<BTreeMap<Arc<str>, Arc<Line>>>,
    endpoints: Mutex<Arc<BTreeMap<Arc<str>, Endpoint>>>,
    pub(super) ready: watch::Sender<Arc<[Backend]>>,
}

/// Follows the discovery and runs one task per endpoint.
pub(super) async fn supervise(pool: Arc<Pool>, discovery: Discovery, stop: CancellationToken) {
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
    /// A pool without connections.
    pub(super) fn new(options: ChannelOptions) -> Self {
        Self {
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
        }
    }

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
    pub(super) async fn line(&self, hash_key: Option<String>) -> Result<Arc<Line>, Status> {
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
