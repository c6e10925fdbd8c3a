//! Scripted scenarios: each makes a cluster of its own, does one thing to it, and says what held.

mod cut_off;
mod etcd;
mod joiner;
mod load;
mod ring;
mod stage;
mod time;

use std::pin::Pin;

use anyhow::Result;
use serde_json::{Value, json};

use crate::setup::Setup;
pub use stage::Stage;

type Run = for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A scenario.
pub struct Scenario {
    pub name: &'static str,
    /// What is promised.
    pub promise: &'static str,
    pub setup: fn() -> Setup,
    pub run: Run,
}

/// How a scenario ended.
pub struct Verdict {
    pub name: &'static str,
    pub failures: Vec<String>,
    pub notes: Vec<String>,
    /// Why it could not be run.
    pub skipped: Option<String>,
}

impl Verdict {
    /// For people, in a few lines.
    pub fn text(&self) -> String {
        let word = match (&self.skipped, &*self.failures) {
            (Some(_), _) => "skipped",
            (None, []) => "ok",
            _ => "FAILED",
        };
        let skipped = self.skipped.iter().map(|why| format!("  {why}\n"));
        let notes = self.notes.iter().map(|note| format!("  {note}\n"));
        let failures = self.failures.iter().map(|it| format!("  failed: {it}\n"));
        let lines: String = skipped.chain(notes).chain(failures).collect();
        format!("{:<22}{word}\n{lines}", self.name)
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({
            "scenario": self.name, "failures": self.failures, "notes": self.notes,
            "skipped": self.skipped,
        })
    }
}

macro_rules! scenario {
    ($name:literal, $promise:literal, $setup:path, $run:path) => {
        Scenario {
            name: $name,
            promise: $promise,
            setup: $setup,
            run: |stage| Box::pin($run(stage)),
        }
    };
}

/// All of them, in the order in which `all` runs them.
pub const ALL: &[Scenario] = &[
    scenario!(
        "etcd-link-lost",
        "a node that lost only etcd for longer than its lease serves nothing that was removed",
        Setup::default,
        cut_off::etcd_link_lost
    ),
    scenario!(
        "cut-off",
        "nor does one that lost etcd and all members",
        Setup::default,
        cut_off::cut_off
    ),
    scenario!(
        "cut-off-now",
        "a removal right after a node was cut off is acknowledged within lease + 2 s",
        Setup::default,
        cut_off::cut_off_now
    ),
    scenario!(
        "off-members",
        "so is a removal while a node reaches etcd but no member",
        Setup::default,
        cut_off::off_members
    ),
    scenario!(
        "never-reached-etcd",
        "a node that never reached etcd promises nothing it can't keep",
        cut_off::one_spare,
        cut_off::never_reached_etcd
    ),
    scenario!(
        "joiner-unseen-by-one",
        "a removal at the only member, which can't see the joiner, reaches the joiner",
        joiner::setup_of_one,
        joiner::unseen_by_one
    ),
    scenario!(
        "joiner-unseen",
        "the same with another member that sees both",
        joiner::setup_of_two,
        joiner::unseen
    ),
    scenario!(
        "replicas-full",
        "with two replicas and full stores a SIGKILL costs 2 % of the keys in use at most",
        load::replicas_setup,
        load::replicas_full
    ),
    scenario!(
        "slow-origin",
        "a slow origin is asked once a key, and hits of another group don't wait",
        load::slow_origin_setup,
        load::slow_origin
    ),
    scenario!(
        "slow-readers",
        "clients that don't read cost no more memory than is promised",
        load::slow_readers_setup,
        load::slow_readers
    ),
    scenario!(
        "clocks",
        "clocks that are 60 s apart keep no value beyond its life",
        time::setup,
        time::clocks
    ),
    scenario!(
        "growth-8",
        "growing from 3 to 8 loads 0.5 % of the moved keys again at most",
        ring::growth_8_setup,
        ring::growth
    ),
    scenario!(
        "growth-12",
        "so does growing from 3 to 12",
        ring::growth_12_setup,
        ring::growth
    ),
    scenario!(
        "bigger-max-value",
        "rolling a bigger max_value ejects no healthy owner",
        ring::max_value_setup,
        ring::bigger_max_value
    ),
    scenario!(
        "etcd-down",
        "with etcd away and the members in touch nothing is lost and removals go on",
        Setup::default,
        etcd::down
    ),
    scenario!(
        "majority-off-etcd",
        "with most nodes cut from etcd, but in touch, what is acknowledged is removed",
        etcd::setup_of_five,
        etcd::majority_off
    ),
    scenario!(
        "majority-apart",
        "the same with those nodes cut from the other members too",
        etcd::setup_of_five,
        etcd::majority_apart
    ),
    scenario!(
        "key-deleted",
        "a node whose key was deleted by hand comes back and serves nothing that was removed",
        Setup::default,
        etcd::key_deleted
    ),
    scenario!(
        "key-deleted-cut-off",
        "the same with that node cut off, its lease still running",
        Setup::default,
        etcd::key_deleted_cut_off
    ),
];
