//! Gets and removals all the time, at nodes that have to answer, each answer held against what was
//! promised.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use reqwest::Client;
use tokio::{sync::RwLock, task::JoinSet};

use crate::{common, origin::Versions};

pub(crate) const KEYS: usize = 200;

/// A node as its callers see it.
pub(crate) struct Door {
    http: u16,
    /// Held by whoever asks it, and by whoever takes it down: nobody may expect an answer then.
    pub(crate) open: RwLock<()>,
    /// Whether the new build answers.
    pub(crate) is_new: AtomicBool,
}

/// A group whose values not both builds can answer for.
#[derive(Clone, Copy)]
pub(crate) struct Further {
    pub(crate) group: &'static str,
    pub(crate) old_has_it: bool,
    pub(crate) new_has_it: bool,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) gets: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    pub(crate) stale: AtomicUsize,
    pub(crate) removed: AtomicUsize,
    pub(crate) refused: AtomicUsize,
}

/// The callers.
pub(crate) struct Traffic {
    pub(crate) doors: Vec<Arc<Door>>,
    pub(crate) seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

struct Caller {
    door: Arc<Door>,
    client: Client,
    versions: Arc<Versions>,
    seen: Arc<Seen>,
}

impl Traffic {
    /// At nodes with these HTTP ports.
    pub(crate) fn start(ports: &[u16], versions: &Arc<Versions>, further: Option<Further>) -> Self {
        let doors = ports.iter().map(|&http| {
            Arc::new(Door {
                http,
                open: RwLock::default(),
                is_new: AtomicBool::new(false),
            })
        });
        let doors: Vec<Arc<Door>> = doors.collect();
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Seen>::default());
        let mut callers = JoinSet::new();
        for door in &doors {
            for removes in [false, false, true] {
                let caller = Caller {
                    door: door.clone(),
                    client: common::http(),
                    versions: versions.clone(),
                    seen: seen.clone(),
                };
                let stop = stop.clone();
                callers.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        caller.call(removes, further).await;
                        // The nodes share a machine with whatever else runs there.
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    }
                });
            }
        }
        Self {
            doors,
            seen,
            stop,
            callers,
        }
    }

    /// Resolves after some more gets of each.
    pub(crate) async fn go_on(&self) {
        let until = self.seen.gets.load(Ordering::Relaxed) + 2 * KEYS;
        common::within("the callers go on", async {
            while self.seen.gets.load(Ordering::Relaxed) < until {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    pub(crate) async fn end(self) -> Arc<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await;
        self.seen
    }
}

impl Caller {
    async fn call(&self, removes: bool, further: Option<Further>) {
        let _open = self.door.open.read().await;
        let key = format!("users/{}", fastrand::usize(..KEYS));
        if removes {
            return self.remove(&key).await;
        }
        self.get(&key).await;
        // Values that are too large are loaded again and again.
        if let Some(further) = further
            && fastrand::u8(..4) == 0
        {
            self.get_of(further).await;
        }
    }

    /// A get of a value that the node at the door has, or refuses: whatever the others say.
    async fn get_of(&self, further: Further) {
        let key = format!("{}/{}", further.group, fastrand::usize(..24));
        let has_it = match self.door.is_new.load(Ordering::SeqCst) {
            true => further.new_has_it,
            false => further.old_has_it,
        };
        if has_it {
            return self.get(&key).await;
        }
        self.seen.gets.fetch_add(1, Ordering::Relaxed);
        let answer = self.client.get(self.url(&key)).send().await;
        let kind = answer.ok().and_then(|answer| {
            let kind = answer.headers().get("gaocache-error")?;
            kind.to_str().ok().map(str::to_owned)
        });
        if !matches!(kind.as_deref(), Some("value_too_large" | "unknown_group")) {
            eprintln!("{key} at {}: {kind:?}", self.door.http);
            self.seen.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn url(&self, key: &str) -> String {
        format!("http://127.0.0.1:{}/v1/{key}", self.door.http)
    }

    async fn get(&self, key: &str) {
        let (floor, seen) = (self.versions.floor(key), &self.seen);
        seen.gets.fetch_add(1, Ordering::Relaxed);
        let answer = self.client.get(self.url(key)).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let text = match answer {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        let version = match &text {
            Ok(text) => text.split(' ').next().and_then(|it| it.parse::<u64>().ok()),
            Err(error) => {
                eprintln!("{key} at {}: {error}", self.door.http);
                None
            }
        };
        match version {
            None => drop(seen.failed.fetch_add(1, Ordering::Relaxed)),
            Some(version) if version < floor => {
                eprintln!("{key} at {}: {version}, removed {floor}", self.door.http);
                seen.stale.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
        }
    }

    async fn remove(&self, key: &str) {
        let version = self.versions.change(key);
        let answer = self.client.delete(self.url(key)).send().await;
        let done = answer.is_ok_and(|answer| answer.status() == 204);
        if done {
            self.versions.removed(key, version);
        }
        let count = match done {
            true => &self.seen.removed,
            false => &self.seen.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
