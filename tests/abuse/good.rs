//! The good client: hits, now and then a miss, a hit over the protocol of Redis, and a probe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use gaocache::internal::wire::cache_client::CacheClient;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use super::{
    common::{self, get_request},
    target::Target,
};

/// Whatever takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);
const KEYS: u64 = 100;

/// What the good client has seen.
#[derive(Default)]
pub struct Seen {
    /// When each request began, and how long it took.
    requests: Mutex<Vec<(Instant, Duration)>>,
    errors: Mutex<Vec<(Instant, String)>>,
    stop: AtomicBool,
}

/// The same within a time.
pub struct Phase {
    pub requests: usize,
    pub errors: usize,
    pub p99: Duration,
    pub first_error: Option<String>,
}

impl Seen {
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn between(&self, from: Instant, to: Instant) -> Phase {
        let requests = self.requests.lock();
        let within = requests.iter().filter(|(at, _)| (from..to).contains(at));
        let mut times: Vec<Duration> = within.map(|(_, took)| *took).collect();
        times.sort_unstable();
        let errors = self.errors.lock();
        let within = errors.iter().filter(|(at, _)| (from..to).contains(at));
        let errors: Vec<&String> = within.map(|(_, what)| what).collect();
        Phase {
            requests: times.len(),
            errors: errors.len(),
            p99: times
                .get(times.len() * 99 / 100)
                .copied()
                .unwrap_or_default(),
            first_error: errors.first().map(|it| (*it).clone()),
        }
    }

    /// How long after `ended` a row of requests was as fast as before.
    pub fn calm_again(&self, ended: Instant, calm: Duration) -> Option<Duration> {
        const ROW: usize = 50;
        let fast = (3 * calm).max(Duration::from_millis(10));
        let requests = self.requests.lock();
        let after: Vec<_> = requests.iter().filter(|(at, _)| *at >= ended).collect();
        let row = after
            .windows(ROW)
            .find(|row| row.iter().all(|it| it.1 <= fast));
        row.map(|row| row[0].0 - ended)
    }

    fn note(&self, began: Instant, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.requests.lock().push((began, began.elapsed())),
            Err(what) => self.errors.lock().push((began, what)),
        }
    }
}

/// Asks until it is stopped, on a thread of its own: it must not wait for the attackers' tasks.
pub fn start(target: Arc<Target>, seen: Arc<Seen>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(ask(target, seen));
    })
}

async fn ask(target: Arc<Target>, seen: Arc<Seen>) {
    let mut client = common::client(([127, 0, 0, 1], target.node.grpc).into()).await;
    let mut redis = TcpStream::connect(("127.0.0.1", target.redis))
        .await
        .unwrap();
    for number in 0.. {
        if seen.stop.load(Ordering::Relaxed) {
            return;
        }
        let began = Instant::now();
        let asked = async {
            match number % 20 {
                7 => by_redis(&mut redis).await,
                13 => probe(target.node.admin).await,
                17 => get(&mut client, &format!("new-{number}")).await,
                _ => get(&mut client, &format!("k{}", number % KEYS)).await,
            }
        };
        let outcome = timeout(PATIENCE, asked).await;
        seen.note(began, outcome.unwrap_or_else(|_| Err("no answer".into())));
        sleep(PAUSE).await;
    }
}

async fn get(client: &mut CacheClient<Channel>, key: &str) -> Result<(), String> {
    let answer = client.get(get_request(key)).await;
    let answer = answer.map_err(|status| format!("get: {status}"))?;
    let is_right = answer.into_inner().value == format!("value of {key}");
    is_right.then_some(()).ok_or("another value".into())
}

async fn by_redis(stream: &mut TcpStream) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("redis: {error}");
    stream
        .write_all(b"GET users:k1\r\n")
        .await
        .map_err(failed)?;
    let mut answer = [0; 17];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    let is_right = &answer == b"$11\r\nvalue of k1\r";
    // The end of the line.
    stream.read_exact(&mut [0]).await.map_err(failed)?;
    is_right.then_some(()).ok_or("another value".into())
}

/// As the kubelet asks: over a connection of its own.
async fn probe(port: u16) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("probe: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .map_err(failed)?;
    let request = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(failed)?;
    let is_right = answer.starts_with(b"HTTP/1.1 200");
    is_right
        .then_some(())
        .ok_or("a probe that is not answered".into())
}
