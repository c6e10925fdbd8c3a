//! What was promised: the version below which no answer may be, by key; and every promise broken.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The oldest version that may be answered.
#[derive(Clone, Debug)]
pub struct Floor {
    pub version: u64,
    /// When the removal was acknowledged, and by whom; none: nothing was removed yet.
    pub promise: Option<(Instant, String)>,
}

impl Default for Floor {
    fn default() -> Self {
        Self {
            version: 1,
            promise: None,
        }
    }
}

/// A promise broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Violation {
    /// A value older than an acknowledged removal.
    Stale,
    /// A value past its life.
    Outlived,
    /// A get that failed, or took too long, at a node that was well.
    Failed,
    /// The cluster wasn't whole in time after everything was mended.
    NotHealed,
}

impl Violation {
    /// How it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stale => "STALE",
            Self::Outlived => "OUTLIVED",
            Self::Failed => "FAILED",
            Self::NotHealed => "NOT HEALED",
        }
    }
}

/// How a removal ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Promised.
    Acknowledged,
    /// Refused, or not answered: why.
    Refused(String),
}

/// A removal that ended.
#[derive(Clone, Debug)]
pub struct Removal {
    pub outcome: Outcome,
    pub took: Duration,
    /// Whether etcd and the links of the node that was asked were as they should be all the time.
    pub undisturbed: bool,
}

/// The promises.
pub struct Ledger {
    /// How many lines are printed of each kind of violation; the rest is only counted.
    shown: usize,
    floors: Mutex<HashMap<String, Floor>>,
    /// By kind, and by the node where it was seen.
    violations: Mutex<BTreeMap<(Violation, String), u64>>,
    lines: Mutex<Vec<(Violation, String)>>,
    told: Mutex<HashSet<(Violation, String)>>,
    removals: Mutex<Vec<Removal>>,
}

impl Ledger {
    /// Nothing promised yet; prints so many lines of each kind of violation.
    pub fn new(shown: usize) -> Self {
        Self {
            shown,
            floors: Mutex::default(),
            violations: Mutex::default(),
            lines: Mutex::default(),
            told: Mutex::default(),
            removals: Mutex::default(),
        }
    }

    /// What a get that begins now may answer.
    pub fn floor(&self, key: &str) -> Floor {
        self.floors.lock().get(key).cloned().unwrap_or_default()
    }

    /// A removal of `key` that began at `version` was acknowledged by `by`.
    pub fn promise(&self, key: &str, version: u64, by: &str) {
        let mut floors = self.floors.lock();
        let floor = floors.entry(key.to_owned()).or_default();
        if version > floor.version {
            floor.version = version;
            floor.promise = Some((Instant::now(), by.to_owned()));
        }
    }

    /// A removal ended.
    pub fn removed(&self, removal: Removal) {
        self.removals.lock().push(removal);
    }

    /// All removals that ended.
    pub fn removals(&self) -> Vec<Removal> {
        self.removals.lock().clone()
    }

    /// A promise was broken, at a node or by all together. Told once a node and subject.
    pub fn violated(&self, violation: Violation, node: &str, subject: &str, line: String) {
        let mut violations = self.violations.lock();
        *violations.entry((violation, node.to_owned())).or_default() += 1;
        drop(violations);
        let told = (violation, format!("{node} {subject}"));
        let mut lines = self.lines.lock();
        if !self.told.lock().insert(told) {
            return;
        }
        if lines.iter().filter(|it| it.0 == violation).count() < self.shown {
            eprintln!("{} {line}", violation.name());
            lines.push((violation, line));
        }
    }

    /// How often it was broken in this way.
    pub fn count(&self, violation: Violation) -> u64 {
        let violations = self.violations.lock();
        let of_kind = violations
            .iter()
            .filter(|((kind, _), _)| *kind == violation);
        of_kind.map(|(_, count)| count).sum()
    }

    /// Every kind of violation and node, with how often.
    pub fn broken(&self) -> Vec<String> {
        let violations = self.violations.lock();
        let told = violations
            .iter()
            .map(|((kind, node), count)| format!("{count} {} at {node}", kind.name()));
        told.collect()
    }

    /// The first lines of each kind.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock();
        let told = lines
            .iter()
            .map(|(kind, line)| format!("{} {line}", kind.name()));
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_never_sinks() {
        let ledger = Ledger::new(1);
        assert_eq!(ledger.floor("g/k").version, 1);
        ledger.promise("g/k", 5, "n0");
        // An earlier removal that is acknowledged later.
        ledger.promise("g/k", 3, "n1");
        let floor = ledger.floor("g/k");
        assert_eq!(floor.version, 5);
        assert_eq!(floor.promise.unwrap().1, "n0");
    }
}
