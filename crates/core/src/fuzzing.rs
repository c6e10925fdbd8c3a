//! Histories that a fuzzer writes: gets, removals, purges, and members that come, leave and crash,
//! in any order, checked against a ledger. The nodes are those of the tests, in virtual time. It
//! exists only with the feature `fuzzing`, and is not part of the API.
//!
//! Two rules are checked. No get brings a version older than one whose removal was acknowledged
//! before the get began. And what all nodes could serve before a member came or left, they serve
//! after it without a load.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use fastrand::Rng;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::BoxError,
    harness_tests::{
        Plan, TTL_MS, TestNet, TestNode, group_rules,
        simulation::{ENDS, Ledger, VirtualClock, runtime},
    },
    membership::{Member, MemberState, View},
    ports::{Loaded, Origin, Timestamp},
};

const IDS: [&str; 4] = ["a", "b", "c", "d"];
const KEYS: usize = 4;
/// The longest history.
const MOST_STEPS: usize = 48;
/// Virtual. After it, no entry is on its way any more.
const SETTLED: Duration = Duration::from_secs(8);
const LEASE: Duration = Duration::from_secs(3);
/// Virtual. For as long, no removed key is taken from another node.
const TOMBSTONES: Duration = Duration::from_secs(20);

/// A value is its version.
struct Versions {
    ledger: Arc<Ledger>,
    clock: Arc<VirtualClock>,
    held: watch::Sender<bool>,
    /// How often each key was loaded, and when last.
    loads: Mutex<HashMap<String, (usize, Timestamp)>>,
}

#[async_trait]
impl Origin for Versions {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        use crate::ports::Clock;
        let version = self.ledger.version(key);
        {
            let mut loads = self.loads.lock();
            let load = loads.entry(key.to_owned()).or_default();
            *load = (load.0 + 1, self.clock.now());
        }
        let mut held = self.held.subscribe();
        held.wait_for(|held| !*held).await?;
        sleep(Duration::from_millis(3)).await;
        Ok(version.to_string().into_bytes().into())
    }
}

/// The cluster that a history happens to.
struct World {
    plan: Plan,
    ledger: Arc<Ledger>,
    origin: Arc<Versions>,
    members: Vec<Member>,
    revision: u64,
    nodes: Vec<Arc<TestNode>>,
    stops: HashMap<Arc<str>, CancellationToken>,
    calls: JoinSet<()>,
    alive: Arc<Mutex<HashSet<usize>>>,
    /// Loads of each key when all nodes served it, and nothing was removed since.
    served: HashMap<String, usize>,
    changes: usize,
    /// When each key was removed last.
    removed: HashMap<String, Timestamp>,
}

/// Lives or lives not: by address, since an id may have several processes.
fn process(node: &Arc<TestNode>) -> usize {
    Arc::as_ptr(node).addr()
}

fn key(number: u8) -> String {
    format!("k{}", usize::from(number) % KEYS)
}

impl World {
    fn new(replicas: usize, seed: u64) -> Self {
        let ways = Mutex::new(Rng::with_seed(seed));
        let net = Arc::<TestNet>::default();
        *net.passing.lock() = Some(Arc::new(Box::new(move |_, _| {
            let micros = ways.lock().u64(..8_000);
            async move {
                sleep(Duration::from_micros(micros)).await;
                true
            }
            .boxed()
        })));
        let (ledger, clock) = (Arc::<Ledger>::default(), Arc::new(VirtualClock::shared()));
        let origin = Arc::new(Versions {
            ledger: ledger.clone(),
            clock: clock.clone(),
            held: watch::Sender::new(false),
            loads: Mutex::default(),
        });
        let plan = Plan {
            rules: group_rules(),
            replicas,
            capacity: 1 << 20,
            bytes_per_second: 1 << 16,
            lease: Some(LEASE),
            clock,
            origin: origin.clone(),
            net,
        };
        Self {
            plan,
            ledger,
            origin,
            members: Vec::new(),
            revision: 0,
            nodes: Vec::new(),
            stops: HashMap::new(),
            calls: JoinSet::new(),
            alive: Arc::default(),
            served: HashMap::new(),
            changes: 0,
            removed: HashMap::new(),
        }
    }

    /// All see the same list at once: what happens while they differ is the subject of
    /// `cuts_tests`.
    fn announce(&mut self, id: &str, state: Option<MemberState>) {
        self.revision += 1;
        let since = self.revision;
        self.members.retain(|it| *it.id != *id);
        self.members.extend(state.map(|state| Member {
            state,
            since,
            instance: since.to_string().into(),
            ..Member::new(id, format!("{id}:1"))
        }));
        let view = View::new(self.revision, self.members.iter().cloned());
        for node in &self.nodes {
            node.install(&view);
        }
        self.changes += 1;
    }

    fn join(&mut self, id: &'static str) {
        let node = Arc::new(self.plan.node(id));
        let wanted = node.queued_copies.lock().take().expect("once");
        let (handoff, stop) = (node.handoff.clone(), CancellationToken::new());
        self.stops.insert(id.into(), stop.clone());
        tokio::spawn(async move { handoff.follow(wanted, stop).await });
        self.alive.lock().insert(process(&node));
        self.nodes.push(node.clone());
        self.announce(id, Some(MemberState::Serving));
        let now = self.plan.clock.now();
        node.standing.fence.extend(now, Timestamp::NEVER);
    }

    async fn leave(&mut self, number: usize) {
        let node = self.nodes[number].clone();
        self.stops[&node.id].cancel();
        let draining = self.members.iter_mut().find(|it| it.id == node.id);
        draining.expect("a member").state = MemberState::Draining;
        let view = View::new(self.revision + 1, self.members.iter().cloned());
        self.revision += 1;
        self.nodes.iter().for_each(|it| it.install(&view));
        let left = timeout(ENDS, node.handoff.leave(SETTLED)).await;
        assert!(left.is_ok(), "it could not give away everything");
        node.standing.fence.end();
        self.nodes.remove(number);
        self.announce(&node.id, None);
    }

    fn crash(&mut self, number: usize) {
        let node = self.nodes.remove(number);
        self.stops[&node.id].cancel();
        self.alive.lock().remove(&process(&node));
        self.plan.net.groups.lock().remove(&node.id);
        self.announce(&node.id, None);
        self.served.clear();
    }

    fn get(&mut self, node: &Arc<TestNode>, key: String) {
        let (node, ledger) = (node.clone(), self.ledger.clone());
        let alive = self.alive.clone();
        let floor = ledger.floor(&key);
        self.calls.spawn(async move {
            let got = timeout(ENDS, node.group.get(&key)).await.expect("ends");
            if !alive.lock().contains(&process(&node)) {
                return;
            }
            let answer = got.expect("no get fails");
            let version = std::str::from_utf8(&answer.value).expect("digits");
            ledger.got(&node, &key, version.parse().expect("digits"), floor);
        });
    }

    /// Removes a key, or all.
    fn remove(&mut self, node: &Arc<TestNode>, key: Option<String>) {
        let (node, ledger) = (node.clone(), self.ledger.clone());
        let alive = self.alive.clone();
        let keys = match &key {
            Some(key) => vec![key.clone()],
            None => (0..KEYS as u8).map(self::key).collect(),
        };
        for key in &keys {
            self.served.remove(key);
            self.removed.insert(key.clone(), self.plan.clock.now());
        }
        let removed: Vec<_> = keys.into_iter().map(|it| (ledger.bump(&it), it)).collect();
        self.calls.spawn(async move {
            let done = async {
                match &key {
                    Some(key) => node.group.remove(key).await,
                    None => node.group.purge().await.map(drop),
                }
            };
            let done = timeout(ENDS, done).await.expect("ends");
            if done.is_ok() && alive.lock().contains(&process(&node)) {
                for (version, key) in removed {
                    ledger.removed(key, version);
                }
            }
        });
    }

    async fn all_answered(&mut self) {
        self.origin.held.send_replace(false);
        while let Some(call) = self.calls.join_next().await {
            call.expect("a call broke a rule");
        }
    }

    fn loads(&self, key: &str) -> (usize, Timestamp) {
        let loads = self.origin.loads.lock();
        loads.get(key).copied().unwrap_or_default()
    }

    /// Waits until nothing moves, and asks every node for every key.
    async fn settle(&mut self) {
        self.all_answered().await;
        sleep(SETTLED).await;
        let now = self.plan.clock.now();
        for number in 0..KEYS as u8 {
            let key = key(number);
            let (before, at) = self.loads(&key);
            let fresh = now.since(at) + SETTLED < Duration::from_millis(TTL_MS);
            let kept = self.served.get(&key) == Some(&before) && fresh && self.changes <= 1;
            for node in self.nodes.clone() {
                self.get(&node, key.clone());
            }
            self.all_answered().await;
            let (after, _) = self.loads(&key);
            assert!(!kept || after == before, "{key} was lost on its way");
            let removed = self.removed.get(&key);
            if removed.is_none_or(|it| now.since(*it) > TOMBSTONES) {
                self.served.insert(key, after);
            }
        }
        self.changes = 0;
    }

    async fn step(&mut self, what: u8, which: u8) {
        let number = usize::from(which >> 4) % self.nodes.len();
        let node = self.nodes[number].clone();
        let few = self.nodes.len() < 2;
        match what % 16 {
            0..=3 => self.get(&node, key(which)),
            4..=6 => self.remove(&node, Some(key(which))),
            7 => self.remove(&node, None),
            8 => sleep(Duration::from_millis(which.into())).await,
            9 => sleep(Duration::from_millis(u64::from(which) * 300)).await,
            10 => drop(self.origin.held.send_replace(which & 1 == 1)),
            11 => {
                let absent = |id: &&&str| self.nodes.iter().all(|node| *node.id != ***id);
                if let Some(id) = IDS.iter().filter(absent).nth(usize::from(which & 1)) {
                    self.join(id);
                }
            }
            12 if few => {}
            12 => {
                self.origin.held.send_replace(false);
                self.leave(number).await;
            }
            13 if few => {}
            13 => self.crash(number),
            14 => self.settle().await,
            _ => self.all_answered().await,
        }
    }
}

/// A history: its first byte says how many copies there are, and each two after it are a step.
pub fn history(script: &[u8]) {
    let Some((first, steps)) = script.split_first() else {
        return;
    };
    runtime(u64::from(*first)).block_on(async {
        fastrand::seed(u64::from(*first));
        let mut world = World::new(1 + usize::from(first & 1), u64::from(*first));
        world.join(IDS[0]);
        world.join(IDS[1]);
        world.settle().await;
        for step in steps.chunks_exact(2).take(MOST_STEPS) {
            world.step(step[0], step[1]).await;
        }
        world.settle().await;
    });
}
