//! Nodes of core over a registry with leases, and a network whose links are cut: any, one way or
//! both. Messages that meet a cut are lost, or arrive when it is mended. Processes are paused,
//! crash and are started again under their ids, and every clock shows another time. For a part of
//! the seeds, the registry loses its data; keys are deleted in it by hand. Many seeds, virtual
//! time.
//!
//! Checked at every answer: no get fails, and none brings what was removed before it was asked. For
//! a part of the seeds, values live short, may be served past their life, and the origin often
//! fails: a get may fail there as the origin did, and stale values are held against removals too.

mod bound;
mod faults;
mod process;
mod registry;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fastrand::Rng;
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use faults::Links;
use process::Process;
use registry::{Stored, Way};

use crate::{
    error::{BoxError, Error, ErrorKind, Result},
    group::{GroupRules, Source},
    harness_tests::{
        Plan, TestNet, TestNode, group_rules,
        simulation::{
            Dice, ENDS, Ledger, VirtualClock, all_end, runtime, seeds, some_keys, tag_of, tagged,
        },
    },
    membership::{Member, MemberState},
    ports::{Loaded, Origin},
};

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
const ETCD: &str = "etcd";
const KEYS: usize = 6;
const LEASE: Duration = Duration::from_secs(3);
/// Virtual.
const RUN: Duration = Duration::from_secs(60);
/// For how long nobody joins in a registry that lost its data.
const YOUNG: Duration = LEASE.saturating_add(Duration::from_secs(2));
/// For how long members are kept that a registry that lost its data doesn't know.
const HOLD: Duration = YOUNG;
/// Bound on a call to the registry.
const CALL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// A value contains its version.
struct Versions {
    ledger: Arc<Ledger>,
    /// Whether a half of the loads fails.
    fails: bool,
}

/// So that within a run values expire, may be served as stale, and are then forgotten.
const SHORT_TTL: Duration = Duration::from_secs(2);
const WHILE_REVALIDATING: Duration = Duration::from_secs(2);
const IF_ERROR: Duration = Duration::from_secs(10);

#[async_trait]
impl Origin for Versions {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let version = self.ledger.version(key);
        sleep(Duration::from_millis(fastrand::u64(1..200))).await;
        if self.fails && fastrand::bool() {
            return Err(Error::origin_failed("down").into());
        }
        Ok(tagged(version.to_string(), key, version))
    }
}

/// The world of one seed.
struct World {
    replicas: usize,
    /// Values may be served past their life, and the origin fails.
    stale: bool,
    /// The registry loses its data now and then.
    loses: bool,
    stale_answers: AtomicUsize,
    net: Arc<TestNet>,
    links: Arc<Links>,
    ledger: Arc<Ledger>,
    began: Instant,
    etcd: Mutex<Stored>,
    changed: watch::Sender<()>,
    alive: Mutex<Vec<Arc<TestNode>>>,
    expulsions: AtomicUsize,
    dice: Dice,
}

impl World {
    fn new(seed: u64, replicas: usize, slow: bool, [stale, loses]: [bool; 2]) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(seed);
        let links = Arc::new(Links {
            faults: watch::Sender::default(),
            slow,
            rng: Mutex::new(rng.fork()),
        });
        let net = Arc::<TestNet>::default();
        let ways = links.clone();
        *net.passing.lock() = Some(Arc::new(Box::new(move |from, to| {
            let (links, from, to) = (ways.clone(), from.to_owned(), to.to_owned());
            async move { links.pass(&from, &to).await }.boxed()
        })));
        Arc::new(Self {
            replicas,
            stale,
            loses,
            stale_answers: AtomicUsize::new(0),
            net,
            links,
            ledger: Arc::default(),
            began: Instant::now(),
            etcd: Mutex::default(),
            changed: watch::Sender::default(),
            alive: Mutex::default(),
            expulsions: AtomicUsize::new(0),
            dice: Dice::new(rng),
        })
    }

    /// A node's processes, one after the other.
    async fn live(self: Arc<Self>, id: &'static str, until: Instant) {
        while Instant::now() < until {
            let (node, mut tasks) = self.start(id);
            self.dice.pause(60_000).await;
            tasks.abort_all();
            self.crashed(&node);
            self.dice.pause(4_000).await;
        }
    }

    fn rules(&self) -> GroupRules {
        if !self.stale {
            return group_rules();
        }
        GroupRules {
            ttl: Some(SHORT_TTL),
            stale_while_revalidate: WHILE_REVALIDATING,
            stale_if_error: IF_ERROR,
            ..group_rules()
        }
    }

    /// A process of that node.
    fn start(self: &Arc<Self>, id: &'static str) -> (Arc<TestNode>, JoinSet<()>) {
        let shows = self.dice.number(1_000_000..1_000_000_000);
        let clock = Arc::new(VirtualClock::new(self.began, shows));
        let plan = Plan {
            rules: self.rules(),
            replicas: self.replicas,
            capacity: 1 << 20,
            bytes_per_second: 1 << 20,
            lease: Some(LEASE),
            clock: clock.clone(),
            origin: Arc::new(Versions {
                ledger: self.ledger.clone(),
                fails: self.stale,
            }),
            net: self.net.clone(),
        };
        let node = Arc::new(plan.node(id));
        let way = Arc::new(Way {
            world: self.clone(),
            id: id.into(),
            notices: watch::Sender::default(),
            lease: watch::Sender::default(),
        });
        node.standing.joined(way.clone());
        let instance = self.dice.number(..).to_string();
        let me = Member {
            state: MemberState::Joining,
            instance: instance.into(),
            ..Member::new(id, format!("{id}:1"))
        };
        let process = Arc::new(Process {
            world: self.clone(),
            node: node.clone(),
            way,
            clock,
            me: Mutex::new(me),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(process.clone().watch());
        tasks.spawn(process.clone().register());
        tasks.spawn(process.clone().live_on());
        tasks.spawn(process.clone().expel());
        tasks.spawn(process.clone().carry_out());
        let wanted = node.queued_copies.lock().take().expect("once");
        let handoff = node.handoff.clone();
        tasks.spawn(async move { handoff.follow(wanted, CancellationToken::new()).await });
        self.alive.lock().push(node.clone());
        (node, tasks)
    }

    /// That node's process is gone.
    fn crashed(&self, node: &Arc<TestNode>) {
        self.alive.lock().retain(|it| !Arc::ptr_eq(it, node));
        self.net.groups.lock().remove(&node.id);
    }

    /// A node that isn't paused.
    fn somebody(&self) -> Option<Arc<TestNode>> {
        let node = self.dice.one_of(&self.alive)?;
        let still = &self.links.faults.borrow().still;
        (!still.contains(&*node.id)).then_some(node)
    }

    async fn read(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.dice.pause(100).await;
            let Some(node) = self.somebody() else {
                continue;
            };
            let keys = some_keys(&self.dice, KEYS);
            let floors: Vec<u64> = keys.iter().map(|key| self.ledger.floor(key)).collect();
            let got = timeout(ENDS, node.get_all(&keys)).await.expect("ends");
            for ((key, floor), got) in keys.iter().zip(floors).zip(got) {
                let answer = match got {
                    Err(error) if self.stale && error.kind() == ErrorKind::OriginFailed => continue,
                    got => got.expect("no get fails"),
                };
                if answer.source == Source::Stale {
                    self.stale_answers.fetch_add(1, Ordering::Relaxed);
                }
                let version = std::str::from_utf8(&answer.value)
                    .expect("text")
                    .parse::<u64>();
                let version = version.expect("a number");
                self.ledger.got(&node, key, version, floor);
            }
        }
    }

    async fn remove(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.dice.pause(1_500).await;
            let Some(node) = self.somebody() else {
                continue;
            };
            let key = format!("k{}", self.dice.below(KEYS));
            let tag = (self.dice.below(3) == 0).then(|| tag_of(&key));
            let keys = match &tag {
                Some(tag) => keys_of(tag),
                None => vec![key.clone()],
            };
            let versions: Vec<u64> = keys.iter().map(|key| self.ledger.bump(key)).collect();
            let done = async {
                match &tag {
                    Some(tag) => node.group.purge_tag(tag).await,
                    None => node.group.remove(&key).await,
                }
            };
            let done = timeout(ENDS, done).await.expect("ends");
            // A process that has crashed doesn't answer.
            if done.is_ok() && self.alive.lock().iter().any(|it| Arc::ptr_eq(it, &node)) {
                for (key, version) in keys.into_iter().zip(versions) {
                    self.ledger.removed(key, version);
                }
            }
        }
    }
}

fn keys_of(tag: &str) -> Vec<String> {
    let keys = (0..KEYS).map(|key| format!("k{key}"));
    keys.filter(|key| tag_of(key) == tag).collect()
}

async fn simulate(seed: u64, replicas: usize, with: [bool; 2]) -> [usize; 4] {
    let world = World::new(seed, replicas, true, with);
    let until = Instant::now() + RUN;
    let sweeping = tokio::spawn(world.clone().sweep(TICK / 2));
    let mut tasks = JoinSet::new();
    for id in IDS {
        tasks.spawn(world.clone().live(id, until));
    }
    for _ in 0..4 {
        tasks.spawn(world.clone().read(until));
    }
    for _ in 0..2 {
        tasks.spawn(world.clone().remove(until));
    }
    tasks.spawn(world.clone().break_things(until));
    tasks.spawn(world.clone().lose_data(until));
    tasks.spawn(world.clone().delete_keys(until));
    all_end(tasks, RUN * 4, seed, replicas).await;
    sweeping.abort();
    let expulsions = world.expulsions.load(Ordering::Relaxed);
    let stale = world.stale_answers.load(Ordering::Relaxed);
    [
        world.ledger.gets(),
        world.ledger.removals(),
        expulsions,
        stale,
    ]
}

/// `make simulation-test` sets it.
fn number_of_seeds() -> u64 {
    std::env::var("GAOCACHE_SEEDS").map_or(300, |seeds| seeds.parse().expect("a number"))
}

#[test]
fn whatever_is_cut_stands_still_or_restarts_nothing_removed_is_served() {
    let number = number_of_seeds();
    let mut sums = [0; 4];
    for seed in seeds(number) {
        let replicas = 1 + usize::from(seed % 2 == 1);
        let (stale, loses) = (seed % 3 == 2, seed % 5 >= 3);
        let done = runtime(seed).block_on(simulate(seed, replicas, [stale, loses]));
        sums = std::array::from_fn(|at| sums[at] + done[at]);
    }
    let [gets, removals, expulsions, stale] = sums;
    println!(
        "{number} seeds: {gets} gets, {stale} of them stale, {removals} removals, {expulsions} \
         expulsions"
    );
    let each = |least: u64| usize::try_from(number * least).expect("few");
    assert!(
        gets > each(500) && removals > each(10) && expulsions >= each(1),
        "nothing much happened"
    );
    // One seed in three has them.
    assert!(
        number < 3 || stale > each(5),
        "hardly any stale value was served"
    );
}
