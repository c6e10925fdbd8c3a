//! The building blocks of scenarios.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Scenario, Verdict};
use crate::{
    ledger::{Outcome, Removal},
    node::Node,
    report::REMOVAL_MARGIN,
    world::{HEALS_WITHIN, World},
};

/// Bound on what a changed ring has to send around.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// Gets and removals at a time.
const AT_ONCE: usize = 24;

/// A scenario on its way.
pub struct Stage {
    pub world: Arc<World>,
    failures: Vec<String>,
    notes: Vec<String>,
    skipped: Option<String>,
}

/// What many gets came to.
#[derive(Default)]
pub struct Sweep {
    pub failed: usize,
    pub slowest: Duration,
}

impl Stage {
    /// Before the first line.
    pub fn new(world: Arc<World>) -> Self {
        Self {
            world,
            failures: Vec::new(),
            notes: Vec::new(),
            skipped: None,
        }
    }

    /// Something that has to hold.
    pub fn expect(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.failures.push(what.into());
        }
    }

    /// Something worth telling.
    pub fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }

    /// It can't be run here.
    pub fn skip(&mut self, why: impl Into<String>) {
        self.skipped = Some(why.into());
    }

    /// After the last line; every promise broken on the way is a failure.
    pub fn end(mut self, scenario: &Scenario, ended: Result<()>) -> Verdict {
        if let Err(error) = ended {
            self.failures.push(format!("{error:#}"));
        }
        self.failures.extend(self.world.ledger.broken());
        Verdict {
            name: scenario.name,
            failures: self.failures,
            notes: self.notes,
            skipped: self.skipped,
        }
    }

    /// The node of this number.
    pub fn node(&self, number: usize) -> Arc<Node> {
        self.world.nodes[number].clone()
    }

    /// Asks for all keys at all of these nodes.
    pub async fn read(&self, nodes: &[Arc<Node>], keys: &[String]) -> Sweep {
        let pairs: Vec<(Arc<Node>, String)> = keys
            .iter()
            .flat_map(|key| nodes.iter().map(|node| (node.clone(), key.clone())))
            .collect();
        let (pairs, next) = (Arc::new(pairs), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (world, pairs, next) = (self.world.clone(), pairs.clone(), next.clone());
            clients.spawn(async move {
                let mut sweep = Sweep::default();
                while let Some((node, key)) = pairs.get(next.fetch_add(1, SeqCst)) {
                    match world.get(node, key).await {
                        Ok(reading) => sweep.slowest = sweep.slowest.max(reading.took),
                        Err(_) => sweep.failed += 1,
                    }
                }
                sweep
            });
        }
        let all = clients.join_all().await;
        Sweep {
            failed: all.iter().map(|it| it.failed).sum(),
            slowest: all.iter().map(|it| it.slowest).max().unwrap_or_default(),
        }
    }

    /// Asks for all keys at all nodes that run, again and again for this time, but once at least.
    pub async fn watch(&self, keys: &[String], time: Duration) -> Sweep {
        let end = Instant::now() + time;
        let mut all = Sweep::default();
        loop {
            let sweep = self.read(&self.world.running(), keys).await;
            all.failed += sweep.failed;
            all.slowest = all.slowest.max(sweep.slowest);
            if Instant::now() >= end {
                return all;
            }
        }
    }

    /// Every node that runs holds these keys, its own or as copies.
    pub async fn warm(&self, keys: &[String]) -> Result<()> {
        for _ in 0..4 {
            let sweep = self.read(&self.world.running(), keys).await;
            anyhow::ensure!(
                sweep.failed == 0,
                "{} gets failed while warming",
                sweep.failed
            );
        }
        Ok(())
    }

    /// Changes and removes all keys through one node.
    pub async fn remove(&self, number: usize, keys: &[String]) -> Vec<Removal> {
        let mut removals = JoinSet::new();
        for key in keys {
            let (world, node, key) = (self.world.clone(), self.node(number), key.clone());
            removals.spawn(async move { world.remove(&node, &key).await });
        }
        removals.join_all().await
    }

    /// All of these had to be acknowledged within lease + 2 s.
    pub fn expect_promised(&mut self, removals: &[Removal]) {
        let bound = self.world.lease() + REMOVAL_MARGIN;
        let slowest = removals.iter().map(|it| it.took).max().unwrap_or_default();
        let refused = self.note_removals(removals);
        self.expect(refused == 0, format!("{refused} removals refused"));
        self.expect(
            slowest <= bound,
            format!("the slowest removal took {slowest:.1?}, the bound is {bound:?}"),
        );
    }

    /// Tells how they ended; how many were refused.
    pub fn note_removals(&mut self, removals: &[Removal]) -> usize {
        let reasons: Vec<&String> = removals
            .iter()
            .filter_map(|removal| match &removal.outcome {
                Outcome::Refused(why) => Some(why),
                Outcome::Acknowledged => None,
            })
            .collect();
        let slowest = removals.iter().map(|it| it.took).max().unwrap_or_default();
        let (all, refused) = (removals.len(), reasons.len());
        let why = reasons.first().map(|why| format!(" ({why})"));
        self.note(format!(
            "removals: {} acknowledged, {refused} refused{}, the slowest took {slowest:.1?}",
            all - refused,
            why.unwrap_or_default(),
        ));
        refused
    }

    /// Resolves when all that run are one ring again.
    pub async fn heal(&self) -> Result<()> {
        self.world.agree(HEALS_WITHIN).await.context("not healed")
    }

    /// Resolves when no node has anything left to send to another, twice in a row.
    pub async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLES_WITHIN;
        let mut quiet = 0;
        while quiet < 2 {
            anyhow::ensure!(
                Instant::now() < deadline,
                "entries still wait to be handed over"
            );
            let mut waiting = 0.0;
            for node in self.world.running() {
                waiting += self
                    .metric(&node, "gaocache_handoff_waiting_entries")
                    .await?;
            }
            quiet = if waiting == 0.0 { quiet + 1 } else { 0 };
            // Between two questions: a walk over the store begins a moment after the ring changed.
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// A metric of a node, summed over its samples.
    pub async fn metric(&self, node: &Node, name: &str) -> Result<f64> {
        let url = format!("http://{}:9090/metrics", node.party.ip);
        let answer = self.world.http.get(&url, Duration::from_secs(5)).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{'])
                .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(samples.sum())
    }
}

/// `group/k0`, `group/k1` and so on.
pub fn keys(group: &str, many: usize) -> Vec<String> {
    (0..many)
        .map(|number| format!("{group}/k{number}"))
        .collect()
}
