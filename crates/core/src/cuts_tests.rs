//! Nodes of core over a registry with leases, and a network whose links are cut: any, one way or
//! both. Messages that meet a cut are lost, or arrive when it is mended. Processes stand still,
//! crash and are started again under their ids, and every clock shows another time. Many seeds,
//! virtual time.
//!
//! Checked at every answer: no get fails, and none brings what was removed before it was asked.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
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
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{BoxError, Error, ErrorKind, Result},
    expulsion::Expulsion,
    harness_tests::{Plan, TestNet, TestNode, peers},
    membership::{IdHash, Member, MemberState, View},
    ports::{Clock, Loaded, Notice, Notices, Origin, RegistryHealth, Session, Timestamp},
    standing::Standing,
};

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
const ETCD: &str = "etcd";
const KEYS: usize = 6;
const LEASE: Duration = Duration::from_secs(3);
/// Virtual.
const RUN: Duration = Duration::from_secs(60);
/// Virtual; what takes longer hangs.
const ENDS: Duration = Duration::from_secs(120);
/// Bound on a call to the registry.
const CALL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// A clock that shows a time of its own.
struct OwnClock {
    began: Instant,
    shows: u64,
}

impl Clock for OwnClock {
    fn now(&self) -> Timestamp {
        let passed = u64::try_from(self.began.elapsed().as_millis()).expect("a short run");
        Timestamp(self.shows + passed)
    }
}

/// Each key has a version, which a value tells.
#[derive(Default)]
struct Versions(Mutex<HashMap<String, u64>>);

#[async_trait]
impl Origin for Versions {
    async fn load(&self, key: &str) -> Result<Loaded, BoxError> {
        let version = self.0.lock().get(key).copied().unwrap_or(0);
        sleep(Duration::from_millis(fastrand::u64(1..200))).await;
        Ok(version.to_string().into_bytes().into())
    }
}

/// Which links are cut, by direction, and who stands still.
#[derive(Default)]
struct Faults {
    cut: HashSet<(String, String)>,
    still: HashSet<String>,
}

struct Links {
    faults: watch::Sender<Faults>,
    rng: Mutex<Rng>,
}

impl Links {
    /// A message on its way; false if it is lost.
    async fn pass(&self, from: &str, to: &str) -> bool {
        let (millis, waits) = {
            let mut rng = self.rng.lock();
            let slow = rng.u32(..50) == 0;
            (rng.u64(..if slow { 3_000 } else { 20 }), rng.bool())
        };
        sleep(Duration::from_millis(millis)).await;
        let way = (from.to_owned(), to.to_owned());
        let mut faults = self.faults.subscribe();
        if faults.borrow().cut.contains(&way) && !waits {
            sleep(CALL).await;
            return false;
        }
        let runs = |it: &Faults| !it.still.contains(from) && !it.still.contains(to);
        let arrives = faults
            .wait_for(|it| !it.cut.contains(&way) && runs(it))
            .await;
        arrives.is_ok()
    }

    async fn runs(&self, id: &str) {
        let mut faults = self.faults.subscribe();
        let running = faults.wait_for(|it| !it.still.contains(id)).await;
        drop(running);
    }
}

/// What stands in the registry.
#[derive(Default)]
struct Stored {
    revision: u64,
    leases: HashMap<i64, Instant>,
    next_lease: i64,
    keys: BTreeMap<Arc<str>, Member>,
    records: BTreeMap<Arc<str>, Member>,
    notices: Notices,
}

impl Stored {
    /// Takes away the keys whose leases have ended.
    fn sweep(&mut self) -> bool {
        let now = Instant::now();
        self.leases.retain(|_, until| now < *until);
        let before = self.keys.len();
        self.keys
            .retain(|_, member| self.leases.contains_key(&member.lease));
        let changed = self.keys.len() < before;
        self.revision += u64::from(changed);
        changed
    }

    fn grant(&mut self) -> i64 {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, Instant::now() + LEASE);
        self.next_lease
    }

    fn renew(&mut self, lease: i64) -> bool {
        let found = self.leases.get_mut(&lease);
        found.map(|until| *until = Instant::now() + LEASE).is_some()
    }

    fn write(&mut self, mut member: Member) {
        self.revision += 1;
        member.recorded_at = i64::try_from(self.revision).expect("few");
        self.keys.insert(member.id.clone(), member.clone());
        let record = Member {
            vanished: true,
            ..member
        };
        self.records.insert(record.id.clone(), record);
    }

    fn lists(&self, member: &Member) -> bool {
        let record = self.records.get(&member.id);
        record.is_some_and(|it| it.instance == member.instance)
    }

    fn view(&self) -> View {
        let known = self.records.values().chain(self.keys.values());
        View::new(self.revision, known.cloned())
    }
}

/// The world of one seed.
struct World {
    replicas: usize,
    net: Arc<TestNet>,
    links: Arc<Links>,
    origin: Arc<Versions>,
    began: Instant,
    etcd: Mutex<Stored>,
    changed: watch::Sender<()>,
    alive: Mutex<Vec<Arc<TestNode>>>,
    floors: Mutex<HashMap<String, u64>>,
    gets: AtomicUsize,
    removals: AtomicUsize,
    expulsions: AtomicUsize,
    rng: Mutex<Rng>,
}

/// One node's way to the registry.
struct Way {
    world: Arc<World>,
    id: Arc<str>,
    notices: watch::Sender<Notices>,
}

impl Way {
    /// A call to the registry.
    async fn call<T>(&self, work: impl FnOnce(&mut Stored) -> T) -> Result<T> {
        let answer = async {
            let links = &self.world.links;
            if !links.pass(&self.id, ETCD).await {
                return None;
            }
            let done = work(&mut self.world.etcd.lock());
            self.world.changed.send_replace(());
            links.pass(ETCD, &self.id).await.then_some(done)
        };
        let answer = timeout(CALL, answer).await.ok().flatten();
        answer.ok_or_else(|| Error::new(ErrorKind::Registry, "out of reach"))
    }
}

#[async_trait]
impl Session for Way {
    fn views(&self) -> watch::Receiver<View> {
        watch::Sender::new(View::default()).subscribe()
    }

    async fn has_ended(&self, member: &Member) -> Result<bool> {
        let lease = member.lease;
        self.call(|it| !it.leases.contains_key(&lease)).await
    }

    async fn expel(&self, member: &Member) -> Result<bool> {
        let done = self.call(|it| {
            let record = it.records.get(&member.id);
            let unchanged = record.is_some_and(|it| it.recorded_at == member.recorded_at);
            if unchanged {
                it.records.remove(&member.id);
                it.revision += 1;
            }
            unchanged
        });
        let done = done.await?;
        self.world
            .expulsions
            .fetch_add(usize::from(done), Ordering::Relaxed);
        Ok(done)
    }

    async fn post(&self, notice: &Notice) -> Result<u64> {
        self.call(|it| {
            it.revision += 1;
            it.notices.standing.insert(it.revision, notice.clone());
            it.revision
        })
        .await
    }

    async fn withdraw(&self, revision: u64) -> Result<()> {
        self.call(|it| it.notices.standing.remove(&revision))
            .await
            .map(|_| ())
    }

    async fn confirm(&self, me: IdHash, revision: u64) -> Result<()> {
        self.call(|it| it.notices.confirmed.insert(me, revision))
            .await
            .map(|_| ())
    }

    fn notices(&self) -> Option<watch::Receiver<Notices>> {
        Some(self.notices.subscribe())
    }

    fn health(&self) -> watch::Receiver<RegistryHealth> {
        watch::Sender::new(RegistryHealth::default()).subscribe()
    }

    async fn announce(&self, _: MemberState) -> Result<Option<u64>> {
        Ok(None)
    }

    async fn leave(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// What a node knows of its registration.
#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    id: i64,
    /// The revision at which it was written.
    at: u64,
    end: Option<Timestamp>,
    expelled: bool,
}

/// A node's process.
struct Process {
    world: Arc<World>,
    node: Arc<TestNode>,
    way: Arc<Way>,
    clock: Arc<OwnClock>,
    me: Mutex<Member>,
    lease: watch::Sender<Lease>,
}

impl Process {
    fn me(&self) -> Member {
        self.me.lock().clone()
    }

    /// Brings each view and the notices, late.
    async fn watch(self: Arc<Self>) {
        let mut changed = self.world.changed.subscribe();
        changed.mark_changed();
        while changed.changed().await.is_ok() {
            self.world.pause(100).await;
            if !self.world.links.pass(ETCD, &self.node.id).await {
                changed.mark_changed();
                continue;
            }
            let (view, notices) = {
                let etcd = self.world.etcd.lock();
                (etcd.view(), etcd.notices.clone())
            };
            self.node.install(&view);
            self.way.notices.send_replace(notices);
        }
    }

    /// Keeps the registration, as `gaocache_discovery`'s keeper does.
    async fn register(self: Arc<Self>) {
        loop {
            sleep(LEASE / 6).await;
            let asked_at = self.clock.now();
            let (me, known) = (self.me(), *self.lease.borrow());
            if known.expelled {
                continue;
            }
            let end = asked_at.after(LEASE);
            let first = known.id == 0;
            let renewed = self.way.call(|it| {
                if it.renew(known.id) {
                    return Lease {
                        end: Some(end),
                        ..known
                    };
                }
                if !first && !it.lists(&me) {
                    return Lease {
                        expelled: true,
                        ..Lease::default()
                    };
                }
                let id = it.grant();
                it.write(Member { lease: id, ..me });
                Lease {
                    id,
                    at: it.revision,
                    end: Some(end),
                    expelled: false,
                }
            });
            if let Ok(lease) = renewed.await {
                self.lease.send_replace(lease);
            }
        }
    }

    /// As `node::standing` does it.
    async fn live_on(self: Arc<Self>) {
        loop {
            self.join_others().await;
            self.stay().await;
            self.node.standing.fence.close();
            self.node.groups.drop_everything();
            let life = self.world.rng.lock().u64(..).to_string();
            {
                let mut me = self.me.lock();
                me.instance = life.into();
                me.state = MemberState::Joining;
                me.restarted = false;
            }
            self.lease.send_replace(Lease::default());
        }
    }

    /// The revision of a view that has this life; `None` if others have taken it off the list.
    async fn listed(&self) -> Option<u64> {
        let life = self.me().instance;
        let mut rings = self.node.cluster.rings();
        let mut leases = self.lease.subscribe();
        loop {
            let ring = rings.borrow_and_update().clone();
            let lease = *leases.borrow_and_update();
            let known = RegistryHealth {
                written: (lease.at > 0).then(|| (life.clone(), lease.at)),
                ..RegistryHealth::default()
            };
            if Standing::is_listed(&ring, &life, &known) {
                return Some(ring.view.revision);
            }
            if lease.expelled {
                return None;
            }
            tokio::select! {
                biased;
                changed = rings.changed() => changed.expect("lives"),
                changed = leases.changed() => changed.expect("lives"),
            }
        }
    }

    async fn join_others(&self) {
        let Some(revision) = self.listed().await else {
            return;
        };
        let mut seen = HashSet::new();
        loop {
            let topology = self.node.cluster.snapshot();
            for member in topology.others() {
                if !seen.contains(&member.incarnation()) && self.has_seen(member, revision).await {
                    seen.insert(member.incarnation());
                }
            }
            let topology = self.node.cluster.snapshot();
            if topology.others().all(|it| seen.contains(&it.incarnation())) {
                break;
            }
            sleep(TICK).await;
        }
        self.node.groups.drop_everything();
        let serving = Member {
            state: MemberState::Serving,
            ..self.me()
        };
        self.me.lock().state = MemberState::Serving;
        while !self.lease.borrow().expelled {
            let lease = self.lease.borrow().id;
            let serving = Member {
                lease,
                ..serving.clone()
            };
            let written = self.way.call(|it| {
                let ours = it
                    .keys
                    .get(&serving.id)
                    .is_some_and(|key| key.lease == lease);
                ours.then(|| it.write(serving)).is_some()
            });
            if matches!(written.await, Ok(true)) {
                return;
            }
            sleep(TICK).await;
        }
    }

    /// Whether that member has seen the revision: it says so itself, or through the registry.
    async fn has_seen(&self, member: &Member, revision: u64) -> bool {
        let other = self
            .world
            .alive
            .lock()
            .iter()
            .find(|it| it.id == member.id)
            .cloned();
        let Some(other) = other else { return false };
        let links = &self.world.links;
        let direct = async {
            links.pass(&self.node.id, &member.id).await
                && other.cluster.snapshot().view.revision >= revision
                && links.pass(&member.id, &self.node.id).await
        };
        if matches!(timeout(CALL / 2, direct).await, Ok(true)) {
            return true;
        }
        let through = async {
            other.cluster.snapshot().view.revision >= revision
                && links.pass(&member.id, ETCD).await
                && links.pass(ETCD, &self.node.id).await
        };
        matches!(timeout(CALL / 2, through).await, Ok(true))
    }

    async fn stay(&self) {
        let standing = &self.node.standing;
        while !self.lease.borrow().expelled {
            sleep(TICK).await;
            self.world.links.runs(&self.node.id).await;
            let now = self.clock.now();
            let end = self.lease.borrow().end;
            let left = end.map_or(Duration::ZERO, |end| end.since(now));
            let left = left.saturating_sub(LEASE.mul_f64(0.02));
            if !left.is_zero() {
                standing.fence.extend(now, now.after(left));
            }
            if left < LEASE.mul_f64(0.6) {
                self.ask_for_words().await;
            }
        }
    }

    async fn ask_for_words(&self) {
        let standing = &self.node.standing;
        let topology = self.node.cluster.snapshot();
        let Some(me) = topology.me().map(Member::incarnation) else {
            return;
        };
        let members = topology.view.members.iter();
        let counted: Vec<IdHash> = members.map(Member::incarnation).collect();
        let asked_at = self.clock.now();
        let peers = peers(&self.world.net, &self.node.id, self.clock.clone());
        let words = topology
            .others()
            .filter(|it| !it.vanished)
            .map(async |member| {
                let word = peers.vouch(member, me, &counted);
                let word = timeout(standing.voucher() / 2, word).await.ok()?.ok()?;
                Some((member.incarnation(), word))
            });
        let words = futures::future::join_all(words).await;
        let words: Vec<_> = words.into_iter().flatten().collect();
        if standing.is_backed(&topology, &words) {
            let good = standing.voucher().mul_f64(0.98);
            standing
                .fence
                .extend(self.clock.now(), asked_at.after(good));
        }
    }

    async fn expel(self: Arc<Self>) {
        let expulsion = Expulsion {
            cluster: self.node.cluster.clone(),
            standing: self.node.standing.clone(),
            peers: peers(&self.world.net, &self.node.id, self.clock.clone()),
            clock: self.clock.clone(),
        };
        loop {
            sleep(TICK * 2).await;
            self.world.links.runs(&self.node.id).await;
            let topology = self.node.cluster.snapshot();
            let vanished = topology.others().filter(|it| it.vanished);
            for member in vanished {
                let _ = expulsion.expel(member).await;
            }
        }
    }

    async fn heed(self: Arc<Self>) {
        let mut notices = self.way.notices.subscribe();
        let mut confirmed = (IdHash::NONE, 0);
        while notices.changed().await.is_ok() {
            self.world.links.runs(&self.node.id).await;
            let standing = notices.borrow_and_update().standing.clone();
            let me = self.node.standing.incarnation().unwrap_or_default();
            if confirmed.0 != me {
                confirmed = (me, 0);
            }
            let Some((&newest, _)) = standing.last_key_value() else {
                continue;
            };
            if newest <= confirmed.1 || me == IdHash::NONE {
                continue;
            }
            for notice in standing.range(confirmed.1 + 1..).map(|it| it.1) {
                if let Notice::Remove { key, .. } = notice {
                    self.node.group.remove_here(key.as_deref());
                }
            }
            while self.way.confirm(me, newest).await.is_err() {}
            confirmed.1 = newest;
        }
    }
}

impl World {
    fn new(seed: u64, replicas: usize) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(seed);
        let links = Arc::new(Links {
            faults: watch::Sender::default(),
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
            net,
            links,
            origin: Arc::default(),
            began: Instant::now(),
            etcd: Mutex::default(),
            changed: watch::Sender::default(),
            alive: Mutex::default(),
            floors: Mutex::default(),
            gets: AtomicUsize::new(0),
            removals: AtomicUsize::new(0),
            expulsions: AtomicUsize::new(0),
            rng: Mutex::new(rng),
        })
    }

    fn random(&self, bound: usize) -> usize {
        self.rng.lock().usize(..bound)
    }

    async fn pause(&self, most_millis: u64) {
        let millis = self.rng.lock().u64(..most_millis);
        sleep(Duration::from_millis(millis)).await;
    }

    /// A node's processes, one after the other.
    async fn live(self: Arc<Self>, id: &'static str, until: Instant) {
        let mut restarted = false;
        while Instant::now() < until {
            let shows = self.rng.lock().u64(1_000_000..1_000_000_000);
            let clock = Arc::new(OwnClock {
                began: self.began,
                shows,
            });
            let plan = Plan {
                replicas: self.replicas,
                capacity: 1 << 20,
                bytes_per_second: 1 << 20,
                lease: Some(LEASE),
                clock: clock.clone(),
                origin: self.origin.clone(),
                net: self.net.clone(),
            };
            let node = Arc::new(plan.node(id));
            let way = Arc::new(Way {
                world: self.clone(),
                id: id.into(),
                notices: watch::Sender::default(),
            });
            node.standing.joined(way.clone());
            let instance = self.rng.lock().u64(..).to_string();
            let me = Member {
                state: MemberState::Joining,
                instance: instance.into(),
                restarted,
                ..Member::new(id, format!("{id}:1"))
            };
            let process = Arc::new(Process {
                world: self.clone(),
                node: node.clone(),
                way,
                clock,
                me: Mutex::new(me),
                lease: watch::Sender::default(),
            });
            let mut tasks = JoinSet::new();
            tasks.spawn(process.clone().watch());
            tasks.spawn(process.clone().register());
            tasks.spawn(process.clone().live_on());
            tasks.spawn(process.clone().expel());
            tasks.spawn(process.clone().heed());
            let wanted = node.queued_copies.lock().take().expect("once");
            let handoff = node.handoff.clone();
            tasks.spawn(async move { handoff.follow(wanted, CancellationToken::new()).await });
            self.alive.lock().push(node.clone());
            self.pause(60_000).await;
            // It crashes.
            tasks.abort_all();
            restarted = node
                .cluster
                .snapshot()
                .me()
                .is_some_and(Member::can_promise);
            self.alive.lock().retain(|it| !Arc::ptr_eq(it, &node));
            self.net.groups.lock().remove(id);
            self.pause(4_000).await;
        }
    }

    /// Cuts links, and lets processes stand still.
    async fn break_things(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.pause(6_000).await;
            let ends: Vec<&str> = IDS.iter().copied().chain([ETCD, ETCD, ETCD]).collect();
            let faults = 1 + self.random(4);
            for _ in 0..faults {
                let (a, b) = (IDS[self.random(5)], ends[self.random(ends.len())]);
                let kind = self.random(5);
                self.links.faults.send_modify(|it| {
                    let way = (a.to_owned(), b.to_owned());
                    let back = (b.to_owned(), a.to_owned());
                    match kind {
                        0 => drop(it.still.insert(a.to_owned())),
                        1 => drop(it.cut.insert(way)),
                        2 => drop(it.cut.insert(back)),
                        _ => it.cut.extend([way, back]),
                    }
                });
            }
            self.pause(12_000).await;
            self.links.faults.send_replace(Faults::default());
        }
        self.links.faults.send_replace(Faults::default());
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            sleep(TICK / 2).await;
            if self.etcd.lock().sweep() {
                self.changed.send_replace(());
            }
        }
    }

    /// A node that doesn't stand still.
    fn somebody(&self) -> Option<Arc<TestNode>> {
        let alive = self.alive.lock();
        let at = (!alive.is_empty()).then(|| self.random(alive.len()))?;
        let still = &self.links.faults.borrow().still;
        (!still.contains(&*alive[at].id)).then(|| alive[at].clone())
    }

    async fn read(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.pause(100).await;
            let Some(node) = self.somebody() else {
                continue;
            };
            let key = format!("k{}", self.random(KEYS));
            let floor = self.floors.lock().get(&key).copied().unwrap_or(0);
            let got = timeout(ENDS, node.group.get(&key)).await.expect("ends");
            let answer = got.expect("no get fails");
            let version = std::str::from_utf8(&answer.value)
                .expect("text")
                .parse::<u64>();
            let version = version.expect("a number");
            assert!(
                version >= floor,
                "{key} at {}: {version}, removed {floor}",
                node.id
            );
            self.gets.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn remove(self: Arc<Self>, until: Instant) {
        while Instant::now() < until {
            self.pause(1_500).await;
            let Some(node) = self.somebody() else {
                continue;
            };
            let key = format!("k{}", self.random(KEYS));
            let version = {
                let mut versions = self.origin.0.lock();
                let version = versions.entry(key.clone()).or_default();
                *version += 1;
                *version
            };
            let done = timeout(ENDS, node.group.remove(&key)).await.expect("ends");
            // A process that has crashed answers nobody.
            if done.is_ok() && self.alive.lock().iter().any(|it| Arc::ptr_eq(it, &node)) {
                let mut floors = self.floors.lock();
                let floor = floors.entry(key).or_default();
                *floor = version.max(*floor);
                self.removals.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn simulate(seed: u64, replicas: usize) -> [usize; 3] {
    let world = World::new(seed, replicas);
    let until = Instant::now() + RUN;
    let sweeping = tokio::spawn(world.clone().sweep());
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
    let ended = timeout(RUN * 4, async {
        while let Some(task) = tasks.join_next().await {
            task.unwrap_or_else(|error| panic!("seed {seed}, replicas {replicas}: {error}"));
        }
    });
    assert!(ended.await.is_ok(), "seed {seed} hangs");
    sweeping.abort();
    let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    [of(&world.gets), of(&world.removals), of(&world.expulsions)]
}

/// Of one thread, in virtual time. With `--cfg tokio_unstable` (`make simulation-test`), a seed's
/// runs are all alike: `select!` and `watch` make their choices by it, too.
fn runtime(seed: u64) -> Runtime {
    let mut builder = Builder::new_current_thread();
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let built = builder.enable_time().start_paused(true).build();
    built.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

/// `make simulation-test` sets it.
fn seeds() -> u64 {
    std::env::var("GAOCACHE_SEEDS").map_or(300, |seeds| seeds.parse().expect("a number"))
}

#[test]
fn whatever_is_cut_stands_still_or_restarts_nothing_removed_is_served() {
    let first: u64 = std::env::var("GAOCACHE_SEED").map_or(0, |seed| seed.parse().expect("a seed"));
    let seeds = seeds();
    let mut sums = [0; 3];
    for seed in first..first + seeds {
        let replicas = 1 + usize::from(seed % 2 == 1);
        let done = runtime(seed).block_on(simulate(seed, replicas));
        sums = std::array::from_fn(|at| sums[at] + done[at]);
    }
    let [gets, removals, expulsions] = sums;
    println!("{seeds} seeds: {gets} gets, {removals} removals, {expulsions} expulsions");
    let each = |least: u64| usize::try_from(seeds * least).expect("few");
    assert!(
        gets > each(500) && removals > each(10) && expulsions >= each(1),
        "nothing much happened"
    );
}
