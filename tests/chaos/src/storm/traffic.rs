//! Clients: gets at all nodes, changes and removals, all the time.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use crate::{
    calls::{GET_BOUND, REMOVE_BOUND},
    node::Node,
    world::{HEALS_WITHIN, World},
};

/// Between two gets of a client, so that nodes and etcd have something left of the machine.
const THINKS: Duration = Duration::from_millis(15);

/// Between the beginnings of two removals.
const REMOVALS_EVERY: Duration = Duration::from_millis(120);

/// Removals at a time: a frozen node keeps its own waiting.
const REMOVALS_AT_ONCE: usize = 40;

/// One removal in so many is a purge.
const PURGES: u32 = 80;

/// The clients, until [`Traffic::end`].
pub struct Traffic {
    keys: Arc<Vec<String>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Traffic {
    /// Begins to get and to remove these keys; `clients` gets at a time.
    pub fn start(world: &Arc<World>, keys: Arc<Vec<String>>, clients: usize, mut rng: Rng) -> Self {
        let (stop, mut tasks) = (watch::Sender::new(false), JoinSet::new());
        let each = clients.div_ceil(world.nodes.len());
        // Clients of one node each: one that is paused holds up only its own.
        for node in &world.nodes {
            for _ in 0..each {
                let reader = Reader {
                    world: world.clone(),
                    node: node.clone(),
                    keys: keys.clone(),
                    rng: rng.fork(),
                };
                tasks.spawn(reader.run(stop.subscribe()));
            }
        }
        let writer = Writer {
            world: world.clone(),
            busy: Arc::new(Mutex::new(vec![false; keys.len()])),
            room: Arc::new(Semaphore::new(REMOVALS_AT_ONCE)),
            keys: keys.clone(),
            rng,
        };
        tasks.spawn(writer.run(stop.subscribe()));
        Self { keys, stop, tasks }
    }

    /// Every key at every node that runs: whatever is left anywhere of a fault shows.
    pub async fn sweep(&self, world: &Arc<World>) {
        let mut nodes = JoinSet::new();
        for node in world.running() {
            let (world, keys) = (world.clone(), self.keys.clone());
            nodes.spawn(async move {
                for key in keys.iter() {
                    let _ = world.get(&node, key).await;
                }
            });
        }
        // A node that answers nothing has shown it by then.
        let _ = timeout(HEALS_WITHIN, nodes.join_all()).await;
    }

    /// Resolves when what is under way has ended.
    pub async fn end(mut self) {
        self.stop.send_replace(true);
        let bound = GET_BOUND + REMOVE_BOUND;
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(bound, ended).await;
    }
}

/// Gets random keys at one node.
struct Reader {
    world: Arc<World>,
    node: Arc<Node>,
    keys: Arc<Vec<String>>,
    rng: Rng,
}

impl Reader {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Some(key) = self.rng.choice(&*self.keys)
                && self.node.running.load(SeqCst)
            {
                let _ = self.world.get(&self.node, key).await;
            }
            sleep(THINKS).await;
        }
    }
}

/// Changes and removes random keys through random nodes.
struct Writer {
    world: Arc<World>,
    keys: Arc<Vec<String>>,
    /// Keys whose removal is under way.
    busy: Arc<Mutex<Vec<bool>>>,
    room: Arc<Semaphore>,
    rng: Rng,
}

impl Writer {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut ticks = interval(REMOVALS_EVERY);
        let mut removals = JoinSet::new();
        while !*stop.borrow() {
            ticks.tick().await;
            let Ok(room) = self.room.clone().try_acquire_owned() else {
                continue;
            };
            let running = self.world.running();
            let Some(node) = self.rng.choice(running) else {
                continue;
            };
            let (world, keys) = (self.world.clone(), self.keys.clone());
            if self.rng.u32(0..PURGES) == 0 {
                removals.spawn(async move {
                    world.purge(&node, "forever", &keys).await;
                    drop(room);
                });
            } else if let Some(number) = self.idle_key() {
                let busy = self.busy.clone();
                removals.spawn(async move {
                    world.remove(&node, &keys[number]).await;
                    busy.lock()[number] = false;
                    drop(room);
                });
            }
            while removals.try_join_next().is_some() {}
        }
        removals.join_all().await;
    }

    fn idle_key(&mut self) -> Option<usize> {
        let number = self.rng.usize(0..self.keys.len());
        let mut busy = self.busy.lock();
        (!std::mem::replace(&mut busy[number], true)).then_some(number)
    }
}
