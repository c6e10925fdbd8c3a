//! What `benches/instructions.rs` counts the instructions of: the steps that every request takes,
//! and those of a handoff. It exists only with the feature `fuzzing`, and is no part of the API.
//!
//! It must not read a clock, nor draw random numbers that change what is done: counts have to
//! repeat.

use std::{hint::black_box, sync::Arc};

use tokio::runtime::{Builder, Runtime};

use crate::{
    cluster::{Cluster, Owner},
    handoff::{HandoffRules, plan},
    harness_tests::{HandClock, Plan, TestNet, TestNode, TestOrigin, entry, group_rules, view},
    key::{GroupId, HashedKey},
    ports::Timestamp,
    ring::hash_key,
};

/// More than are ever asked for, so that nothing is evicted.
const CAPACITY: u64 = 256 << 20;
/// Keys that are in memory.
const KEPT: usize = 1_000;
const MEMBERS: [usize; 2] = [3, 1_000];

/// What is counted.
pub const SCENARIOS: [&str; 6] = [
    "hit",
    "miss",
    "lookup among 3 members",
    "lookup among 1,000 members",
    "plan among 3 members",
    "plan among 3 members, two replicas",
];

/// Does the step of that name so many times, after what is needed before it.
pub fn run(scenario: &str, times: usize) {
    match scenario {
        "hit" => hits(times),
        "miss" => misses(times),
        "lookup among 3 members" => lookups(MEMBERS[0], times),
        "lookup among 1,000 members" => lookups(MEMBERS[1], times),
        "plan among 3 members" => plans(1, times),
        "plan among 3 members, two replicas" => plans(2, times),
        other => panic!("there is no scenario '{other}'"),
    }
}

fn node() -> (Runtime, TestNode) {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let plan = Plan {
        rules: group_rules(),
        replicas: 1,
        capacity: CAPACITY,
        bytes_per_second: 1 << 40,
        lease: None,
        clock: Arc::<HandClock>::default(),
        origin: Arc::<TestOrigin>::default(),
        net: Arc::<TestNet>::default(),
    };
    let node = plan.node("n0");
    node.install(&view(1, &["n0"]));
    (runtime, node)
}

fn key(number: usize) -> String {
    format!("user/{number:012}")
}

fn hits(times: usize) {
    let (runtime, node) = node();
    let keys: Vec<String> = (0..KEPT).map(key).collect();
    for key in &keys {
        runtime.block_on(node.group.get(key)).expect("loaded");
    }
    for number in 0..times {
        let held = node
            .groups
            .held("users", &keys[number % KEPT], Timestamp(0));
        black_box(held.expect("in memory").expect("a value"));
    }
}

fn misses(times: usize) {
    let (runtime, node) = node();
    for number in 0..times {
        let loaded = runtime.block_on(node.group.get(&key(number)));
        black_box(loaded.expect("loaded"));
    }
}

fn cluster(members: usize) -> Cluster {
    let ids: Vec<String> = (0..members).map(|number| format!("n{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let cluster = Cluster::new("n0");
    cluster.install(view(1, &ids));
    cluster
}

fn lookups(members: usize, times: usize) {
    let cluster = cluster(members);
    let keys: Vec<String> = (0..KEPT).map(key).collect();
    let mut mine = 0;
    for number in 0..times {
        let hash = hash_key(7, &keys[number % KEPT]);
        mine += usize::from(cluster.topology().owner(hash) == Owner::Me);
    }
    black_box(mine);
}

fn plans(replicas: usize, times: usize) {
    let cluster = cluster(MEMBERS[0]);
    let hashes: Vec<_> = (0..KEPT).map(|number| hash_key(7, &key(number))).collect();
    let entry = entry(&HashedKey::new(GroupId(0), "key"), 100, Timestamp::NEVER);
    let rules = HandoffRules {
        replicas,
        copy_from_use_count: 0,
        bytes_per_second: 1 << 40,
    };
    let topology = cluster.topology();
    for number in 0..times {
        black_box(plan(&topology, hashes[number % KEPT], &entry, rules));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_can_be_taken() {
        for scenario in SCENARIOS {
            run(scenario, 3);
        }
    }
}
