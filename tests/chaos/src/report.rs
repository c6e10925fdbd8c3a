//! What a storm showed, for people and as JSON.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde_json::{Value, json};

use crate::{
    board::Row,
    ledger::{Outcome, Removal, Violation},
    storm::Weather,
    world::World,
};

/// What a removal may take on top of a lease.
pub const REMOVAL_MARGIN: Duration = Duration::from_secs(2);

const VIOLATIONS: [Violation; 4] = [
    Violation::Stale,
    Violation::Outlived,
    Violation::Failed,
    Violation::NotHealed,
];

/// Figures of all removals.
struct Removals {
    acknowledged: usize,
    refused: usize,
    /// Why, and how often.
    reasons: BTreeMap<String, u64>,
    /// 50 %, 99 % and the longest of those acknowledged.
    latency: [Duration; 3],
    /// Took longer than they should, with nothing in their way.
    late: usize,
    /// Were refused with nothing in their way.
    refused_undisturbed: usize,
}

impl Removals {
    fn of(all: &[Removal], bound: Duration) -> Self {
        let mut reasons = BTreeMap::new();
        let mut took = Vec::new();
        for removal in all {
            match &removal.outcome {
                Outcome::Acknowledged => took.push(removal.took),
                Outcome::Refused(why) => {
                    let note = if removal.undisturbed {
                        " (undisturbed)"
                    } else {
                        ""
                    };
                    *reasons.entry(sort(why) + note).or_default() += 1;
                }
            }
        }
        took.sort();
        let at = |share: usize| took.get(took.len().saturating_sub(1) * share / 100);
        let undisturbed = || all.iter().filter(|removal| removal.undisturbed);
        let refused = |it: &&Removal| matches!(it.outcome, Outcome::Refused(_));
        Self {
            acknowledged: took.len(),
            refused: all.len() - took.len(),
            reasons,
            latency: [50, 99, 100].map(|share| at(share).copied().unwrap_or_default()),
            late: undisturbed().filter(|removal| removal.took > bound).count(),
            refused_undisturbed: undisturbed().filter(refused).count(),
        }
    }

    fn json(&self) -> Value {
        let [p50, p99, max] = self.latency.map(|it| it.as_secs_f64());
        json!({
            "acknowledged": self.acknowledged, "refused": self.refused, "reasons": self.reasons,
            "p50_seconds": p50, "p99_seconds": p99, "max_seconds": max,
            "late_undisturbed": self.late, "refused_undisturbed": self.refused_undisturbed,
        })
    }
}

/// Reasons without what differs each time: `n3` and `10.77.8.2:7070` are just somebody.
fn sort(why: &str) -> String {
    let mut sorted = String::new();
    for c in why.chars() {
        match c {
            '0'..='9' if sorted.ends_with('#') => {}
            '0'..='9' if sorted.ends_with(['n', '.']) => sorted.push('#'),
            _ => sorted.push(c),
        }
    }
    // With several missing the first will do.
    let first = sorted.split("; ").next().unwrap_or_default();
    first.chars().take(160).collect()
}

/// The report as text.
pub fn text(world: &World) -> String {
    let mut out = format!(
        "{:<20}{:>6}{:>9}{:>9}{:>8}{:>7}{:>10}{:>7}{:>9}{:>8}{:>9}\n",
        "fault",
        "times",
        "seconds",
        "gets",
        "failed",
        "stale",
        "outlived",
        "acked",
        "refused",
        "loads",
        "loads/s",
    );
    for (name, row) in world.board.rows() {
        if row.times + row.gets > 0 {
            out += &line(&name, &row);
        }
    }
    out += &removals(world);
    let broken = world.ledger.broken();
    if broken.is_empty() {
        out += "no promise was broken\n";
    }
    for line in broken {
        let _ = writeln!(out, "BROKEN: {line}");
    }
    out
}

fn line(name: &str, row: &Row) -> String {
    let rate = if row.seconds > 0.0 {
        format!("{:.1}", row.loads as f64 / row.seconds)
    } else {
        "-".into()
    };
    format!(
        "{name:<20}{:>6}{:>9.1}{:>9}{:>8}{:>7}{:>10}{:>7}{:>9}{:>8}{rate:>9}\n",
        row.times,
        row.seconds,
        row.gets,
        row.failed,
        row.stale,
        row.outlived,
        row.acknowledged,
        row.refused,
        row.loads,
    )
}

fn removals(world: &World) -> String {
    let bound = world.lease() + REMOVAL_MARGIN;
    let found = Removals::of(&world.ledger.removals(), bound);
    let [p50, p99, max] = found.latency;
    let mut out = format!(
        "removals: {} acknowledged, {} refused; p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}\n\
         with etcd up and the asked node's links whole: {} took longer than {bound:?}, \
         {} refused\n",
        found.acknowledged, found.refused, found.late, found.refused_undisturbed,
    );
    for (why, times) in &found.reasons {
        let _ = writeln!(out, "  refused {times} times: {why}");
    }
    out
}

/// The report as JSON.
pub fn json(world: &World, weather: &Weather) -> Value {
    let bound = world.lease() + REMOVAL_MARGIN;
    let rows = world.board.rows().into_iter();
    let rows: Vec<Value> = rows.map(|(name, row)| row.json(&name)).collect();
    let counts = VIOLATIONS.map(|it| (it.name().to_owned(), json!(world.ledger.count(it))));
    json!({
        "seed": weather.seed, "seconds": weather.seconds, "nodes": world.setup.nodes,
        "replicas": world.setup.replicas, "faults": rows,
        "removals": Removals::of(&world.ledger.removals(), bound).json(),
        "violations": serde_json::Map::from_iter(counts), "lines": world.ledger.lines(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_differ_by_their_words_only() {
        assert_eq!(sort("503: n3 at 10.77.12.2"), sort("503: n12 at 10.77.8.2"));
        assert_eq!(sort("503: n3; n4"), sort("503: n4"));
        assert_ne!(sort("503: n3"), sort("500: n3"));
    }

    #[test]
    fn a_removal_is_late_only_with_nothing_in_its_way() {
        let removal = |seconds, undisturbed| Removal {
            outcome: Outcome::Acknowledged,
            took: Duration::from_secs(seconds),
            undisturbed,
        };
        let all = [removal(1, true), removal(9, true), removal(9, false)];
        let found = Removals::of(&all, Duration::from_secs(5));
        assert_eq!((found.acknowledged, found.late), (3, 1));
        assert_eq!(found.latency[2], Duration::from_secs(9));
    }
}
