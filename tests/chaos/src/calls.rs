//! What clients do, each answer held against the ledger.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::Method;
use tokio::{process::Command, time::Instant};

use crate::{
    http::Answer,
    ledger::{Floor, Outcome, Removal, Violation},
    node::Node,
    origin::Stamp,
    world::World,
};

/// A get that takes longer has failed.
pub const GET_BOUND: Duration = Duration::from_secs(10);

/// A removal that takes longer is given up. The promise is an answer within lease + 2 s.
pub const REMOVE_BOUND: Duration = Duration::from_secs(30);

/// How much longer than its life a value may be served.
const LIFE_MARGIN: Duration = Duration::from_secs(1);

/// What a get answered.
#[derive(Clone, Debug)]
pub struct Reading {
    pub stamp: Stamp,
    /// `hit`, `peer` or `origin`.
    pub source: String,
    /// The key's owner, as the node sees it.
    pub owner: String,
    pub took: Duration,
}

impl World {
    /// Gets a key at a node. Stale answers, and failures of a node that is well, go to the ledger.
    ///
    /// # Errors
    /// If there is no value.
    pub async fn get(&self, node: &Node, key: &str) -> Result<Reading> {
        let (well, origin_well) = (node.health.glimpse(), self.origin.health.glimpse());
        let (floor, asked) = (self.ledger.floor(key), self.origin.now());
        let began = Instant::now();
        let mut kinds = self.board.kinds();
        let answer = self.http.get(&node.url(key), GET_BOUND).await;
        let took = began.elapsed();
        kinds |= self.board.kinds();
        let blamed = node.health.well_since(well) && self.origin.health.well_since(origin_well);
        let read = answer.and_then(|answer| read(&answer, took));
        match &read {
            Ok(reading) => {
                self.board.count(kinds, |row| row.gets += 1);
                self.check(node, key, reading, &floor, asked, kinds);
            }
            Err(error) if blamed => {
                self.board.count(kinds, |row| {
                    (row.gets, row.failed) = (row.gets + 1, row.failed + 1)
                });
                let force = self.board.describe();
                let line = format!(
                    "{key} at {} after {took:.1?}: {error:#}; faults: {force}",
                    node.id
                );
                self.ledger.violated(Violation::Failed, &node.id, key, line);
            }
            Err(_) => {}
        }
        read
    }

    fn check(&self, node: &Node, key: &str, got: &Reading, floor: &Floor, asked: u64, kinds: u32) {
        let Reading { stamp, source, .. } = got;
        let age = Duration::from_millis(asked.saturating_sub(stamp.given));
        let what = || format!("{key} at {} ({source}): version {}", node.id, stamp.version);
        let subject = format!("{key} {}", stamp.version);
        let force = || self.board.describe();
        if stamp.version < floor.version {
            self.board.count(kinds, |row| row.stale += 1);
            let promise = floor
                .promise
                .as_ref()
                .map(|(when, by)| format!("{:.1} s before by {by}", when.elapsed().as_secs_f64()));
            let line = format!(
                "{}, expected {} or newer, given {age:.1?} before; removal acknowledged {}; \
                 faults: {}",
                what(),
                floor.version,
                promise.unwrap_or_default(),
                force(),
            );
            self.ledger
                .violated(Violation::Stale, &node.id, &subject, line);
        }
        let life = Duration::from_secs(self.life(key, source == "stale"));
        if !life.is_zero() && age > life + LIFE_MARGIN {
            self.board.count(kinds, |row| row.outlived += 1);
            let line = format!(
                "{}, {age:.1?} old, its life is {life:?}; faults: {}",
                what(),
                force()
            );
            self.ledger
                .violated(Violation::Outlived, &node.id, &subject, line);
        }
    }

    /// Changes a key's value at the origin and removes the key through a node.
    pub async fn remove(&self, node: &Node, key: &str) -> Removal {
        let version = self.origin.change(key);
        let url = node.url(key);
        let sent = async {
            let sent = self.http.send(Method::DELETE, &url, "", REMOVE_BOUND);
            let answer = sent.await?;
            if !answer.status.is_success() {
                bail!(answer.complaint());
            }
            Ok(())
        };
        let removal = self.removal(node, sent).await;
        if matches!(removal.outcome, Outcome::Acknowledged) {
            self.ledger.promise(key, version, &node.id);
        }
        removal
    }

    /// Changes keys of a group at the origin and purges the group through a node.
    pub async fn purge(&self, node: &Node, group: &str, keys: &[String]) -> Removal {
        let keys = keys
            .iter()
            .filter(|key| key.split('/').next() == Some(group));
        let versions: Vec<_> = keys.map(|key| (key, self.origin.change(key))).collect();
        let removal = self.removal(node, self.purge_by_command(node, group)).await;
        if matches!(removal.outcome, Outcome::Acknowledged) {
            for (key, version) in versions {
                self.ledger.promise(key, version, &node.id);
            }
        }
        removal
    }

    /// There is no purge over HTTP; the command line speaks gRPC for us.
    async fn purge_by_command(&self, node: &Node, group: &str) -> Result<()> {
        let target = format!("--target={}:7070", node.party.ip);
        let bound = format!("--timeout={}", REMOVE_BOUND.as_secs());
        let done = Command::new(&self.program)
            .args(["purge", &target, &bound, group])
            .kill_on_drop(true)
            .output();
        let done = done.await.context("gaocache purge")?;
        if !done.status.success() {
            bail!("purge: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }

    async fn removal(&self, node: &Node, sent: impl Future<Output = Result<()>>) -> Removal {
        let began = Instant::now();
        let (health, links) = (node.health.glimpse(), node.links.glimpse());
        let etcd = self.board.etcd_is_well();
        let mut kinds = self.board.kinds();
        let ended = sent.await;
        kinds |= self.board.kinds();
        let undisturbed = etcd
            && self.board.etcd_is_well()
            && node.health.well_since(health)
            && node.links.well_since(links);
        let outcome = match ended {
            Ok(()) => Outcome::Acknowledged,
            Err(error) => Outcome::Refused(format!("{error:#}")),
        };
        self.board.count(kinds, |row| match outcome {
            Outcome::Acknowledged => row.acknowledged += 1,
            Outcome::Refused(_) => row.refused += 1,
        });
        let removal = Removal {
            outcome,
            took: began.elapsed(),
            undisturbed,
        };
        self.ledger.removed(removal.clone());
        removal
    }
}

fn read(answer: &Answer, took: Duration) -> Result<Reading> {
    if !answer.status.is_success() {
        bail!(answer.complaint());
    }
    Ok(Reading {
        stamp: Stamp::read(&answer.body).context("not a value of the origin")?,
        source: answer.header("x-cache").to_owned(),
        owner: answer.header("x-cache-owner").to_owned(),
        took,
    })
}
