//! Random gets, removals, expiries and failures of the origin, held against a simple model: what
//! the origin answered, when, and what was removed since.
//!
//! Every load brings a value of its own, or renews the one that was named to the origin, so an
//! answer shows which loads it comes from.

mod model;

use std::collections::HashMap;

use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::harness_tests::simulation::{Dice, runtime, seeds};
use model::{Brought, KEYS, Model};

const SEEDS: u64 = 300;
const STEPS: usize = 60;

struct World {
    model: Arc<Model>,
    groups: Vec<Arc<Group>>,
    dice: Dice,
}

impl World {
    fn new(seed: u64) -> Self {
        let dice = Dice::new(fastrand::Rng::with_seed(seed));
        let secs = |most: u64| Duration::from_secs(most * dice.number(..2));
        let rules = GroupRules {
            stale_while_revalidate: secs(20),
            stale_if_error: secs(90),
            negative_ttl: secs(10),
            error_ttl: secs(1),
            ..group_rules()
        };
        let clock = Arc::<HandClock>::default();
        let model = Arc::new(Model::new(rules.clone(), clock.clone()));
        let plan = Plan {
            rules,
            replicas: 1,
            capacity: 1 << 20,
            bytes_per_second: 1 << 40,
            lease: None,
            clock,
            origin: model.clone(),
            net: Arc::default(),
        };
        let ids = ["n0", "n1", "n2"];
        let nodes = ids.map(|id| plan.node(id));
        nodes.iter().for_each(|node| node.install(&view(1, &ids)));
        Self {
            model,
            groups: nodes.iter().map(|node| node.group.clone()).collect(),
            dice,
        }
    }

    async fn run(&self) {
        for _ in 0..STEPS {
            match self.dice.below(4) {
                0 => self.time_passes(),
                1 => self.origin_changes(),
                _ => self.calls().await,
            }
        }
    }

    fn time_passes(&self) {
        let most = [1_000, 20_000, 61_000, 100_000][self.dice.below(4)];
        let passed = self.dice.number(..most);
        self.model.clock.0.fetch_add(passed, Ordering::SeqCst);
    }

    fn origin_changes(&self) {
        let brings = match self.dice.below(10) {
            0 => Brought::Nothing,
            1..=5 => Brought::Failure,
            6..=7 => Brought::Same,
            _ => Brought::Value,
        };
        self.model
            .with(self.key(), |key| key.will_bring = Some(brings));
    }

    fn key(&self) -> &'static str {
        KEYS[self.dice.below(KEYS.len())]
    }

    /// Some calls at once, perhaps while the origin takes its time.
    async fn calls(&self) {
        self.model.open.send_replace(self.dice.below(2) == 0);
        let mut calls = JoinSet::new();
        for _ in 0..=self.dice.below(6) {
            let (model, key) = (self.model.clone(), self.key());
            let group = self.groups[self.dice.below(self.groups.len())].clone();
            match self.dice.below(40) {
                0 => drop(calls.spawn(remove(model, group, None))),
                1..=4 => drop(calls.spawn(remove(model, group, Some(key)))),
                _ => drop(calls.spawn(async move {
                    let get = model.begin(key);
                    let answer = group.get(key).await;
                    model.check(&get, &answer);
                })),
            }
            for _ in 0..self.dice.below(20) {
                yield_now().await;
            }
        }
        self.model.open.send_replace(true);
        while let Some(call) = calls.join_next().await {
            call.expect("as the model has it");
        }
        self.model.calm_down().await;
    }
}

async fn remove(model: Arc<Model>, group: Arc<Group>, key: Option<&'static str>) {
    let keys = key.as_slice();
    let keys = if keys.is_empty() { &KEYS[..] } else { keys };
    let began = model.removing(keys);
    match key {
        Some(key) => group.remove(key).await.expect("removed"),
        None => drop(group.purge().await.expect("purged")),
    }
    model.removed(keys, began);
}

#[test]
fn no_answer_is_older_than_the_rules_allow_and_none_fails_that_could_be_old() {
    let mut seen = HashMap::<&str, usize>::new();
    for seed in seeds(SEEDS) {
        println!("seed {seed}");
        let world = runtime(seed).block_on(async {
            let world = World::new(seed);
            world.run().await;
            world
        });
        for (what, count) in &*world.model.seen.lock() {
            *seen.entry(what).or_default() += count;
        }
    }
    println!("{seen:?}");
    for what in [
        "fresh",
        "stale while revalidating",
        "stale if error",
        "renewed",
        "not found",
        "failed",
        "removed",
    ] {
        assert!(seen.contains_key(what), "never {what}: {seen:?}");
    }
}
