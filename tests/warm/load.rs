//! A steady load of gets, and what it saw.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use gaocache::{Client, ClientOptions};
use gaocache_core::group::Source;
use gaocache_discovery::EtcdConfig;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{CALLERS, RATE, WINDOW, ZIPF_EXPONENT, common, origin::expected, scene::Scene};

/// Draws keys, the first the most often: the inverse of the continuous approximation of Zipf's
/// distribution function.
fn zipf(keys: usize) -> usize {
    let rest = 1.0 - ZIPF_EXPONENT;
    let total = ((keys as f64).powf(rest) - 1.0) / rest;
    let at = (fastrand::f64() * total * rest + 1.0).powf(1.0 / rest);
    (at as usize - 1).min(keys - 1)
}

/// Gets at a steady rate, until it is ended.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
    seen: Arc<Seen>,
    /// Gets before the event.
    before: u64,
}

#[derive(Default)]
pub(crate) struct Seen {
    during: AtomicBool,
    /// Microseconds of hits before the event, and during it.
    hits: [Mutex<Vec<u32>>; 2],
    pub(crate) gets: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Load {
    pub(crate) async fn start(scene: &Scene) -> Self {
        let etcd = EtcdConfig::new([&scene.etcd.url]);
        let client = Client::new(etcd, "gaocache", ClientOptions::default());
        let known = client.wait_for_members(scene.nodes.len());
        common::within("the client's ring", known)
            .await
            .expect("running");
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Seen>::default());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (client, seen, stop, keys) =
                (client.clone(), seen.clone(), stop.clone(), scene.keys);
            callers.spawn(async move {
                let mut beat = interval(Duration::from_secs(1) * CALLERS / RATE);
                beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
                while !stop.load(Ordering::Relaxed) {
                    beat.tick().await;
                    seen.get(&client, zipf(keys)).await;
                }
            });
        }
        let mut load = Self {
            stop,
            callers,
            seen,
            before: 0,
        };
        load.go_on_for(WINDOW).await;
        load.seen.during.store(true, Ordering::Relaxed);
        load.before = load.seen.gets.load(Ordering::Relaxed);
        load
    }

    async fn go_on_for(&self, gets: u64) {
        let until = self.seen.gets.load(Ordering::Relaxed) + gets;
        common::within("the load", async {
            while self.seen.gets.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    pub(crate) async fn end(self) -> Arc<Seen> {
        let during = self.seen.gets.load(Ordering::Relaxed) - self.before;
        self.go_on_for(WINDOW.saturating_sub(during)).await;
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        self.seen
    }
}

impl Seen {
    async fn get(&self, client: &Client, key: usize) {
        let started = Instant::now();
        let got = client.get("users", &key.to_string()).await;
        let took = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.gets.fetch_add(1, Ordering::Relaxed);
        match got {
            Ok(answer) if answer.value == expected(key) => {
                if answer.source == Source::Hit {
                    let phase = usize::from(self.during.load(Ordering::Relaxed));
                    self.hits[phase].lock().push(took);
                }
            }
            got => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                eprintln!("a get failed: {:?}", got.map(|it| it.value.len()));
            }
        }
    }

    pub(crate) fn p99(&self, phase: usize) -> u32 {
        let mut hits = self.hits[phase].lock().clone();
        hits.sort_unstable();
        hits.get(hits.len() * 99 / 100).copied().unwrap_or(0)
    }
}
