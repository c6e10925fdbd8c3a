//! Nodes of an older build are replaced by this one, one by one, and then again by the older: real
//! processes, a real etcd, gets and removals all the time. `make roll-test`
//!
//! No get fails, nothing that was removed is served, no removal is refused, and no node takes a
//! healthy one for unreachable: whatever the other build says or has in its settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod origin;
mod traffic;

use std::{path::PathBuf, sync::Arc, sync::atomic::Ordering};

use common::{etcd::Etcd, process::NodeProcess};
use origin::Versions;
use traffic::Traffic;

/// What a node says when it takes another for unreachable.
const EJECTED: &str = "can't be reached; the next member in ring order";

/// What the new build has in its settings and the old one has not.
#[derive(Clone, Copy)]
struct Change {
    name: &'static str,
    /// Further groups, and the limit of each value.
    groups: &'static [&'static str],
    max_value: &'static str,
}

const CHANGES: [Change; 3] = [
    Change {
        name: "the same settings",
        groups: &[],
        max_value: "64KiB",
    },
    Change {
        name: "a larger max_value",
        groups: &["large"],
        max_value: "1MiB",
    },
    Change {
        name: "a group more",
        groups: &["added"],
        max_value: "64KiB",
    },
];

/// The groups as a setting. The old build has the group `large`, too, with its own limit.
fn groups(origin: &str, names: &[&str], max_value: &str) -> String {
    let groups = names.iter().map(|name| {
        format!(
            "{{ name = \"{name}\", ttl_seconds = 600, max_value = \"{max_value}\", origin = {{ kind \
             = \"http\", url = \"{origin}/{name}/{{key}}\", timeout_seconds = 5 }} }}"
        )
    });
    format!("groups=[{}]", groups.collect::<Vec<_>>().join(", "))
}

struct Roll {
    nodes: Vec<NodeProcess>,
    traffic: Traffic,
    /// Lines about nodes that were taken for unreachable.
    ejections: Vec<String>,
}

impl Roll {
    /// Replaces one node after the other by another build with these settings.
    async fn to(&mut self, program: &std::path::Path, settings: &str, is_new: bool) {
        for (node, door) in self.nodes.iter_mut().zip(&self.traffic.doors) {
            let closed = door.open.write().await;
            node.terminate().await;
            self.ejections.extend(ejections(node));
            node.log.lock().clear();
            node.revive_as(program, &[settings]);
            node.until_ready().await;
            node.until_ring(&["n0", "n1", "n2"]).await;
            door.is_new.store(is_new, Ordering::SeqCst);
            drop(closed);
            self.traffic.go_on().await;
        }
    }
}

fn ejections(node: &NodeProcess) -> Vec<String> {
    let log = node.log.lock();
    let lines = log.iter().filter(|line| line.contains(EJECTED));
    lines.map(|line| format!("{}: {line}", node.id)).collect()
}

async fn roll(change: Change, old: &std::path::Path, new: &std::path::Path) -> bool {
    let (etcd, versions) = (Etcd::start().await, Arc::<Versions>::default());
    let origin = versions.serve().await;
    let before = groups(&origin, &["users", "large"], "64KiB");
    let mut names = vec!["users", "large"];
    names.extend(change.groups.iter().filter(|it| **it != "large"));
    let after = groups(&origin, &names, change.max_value);
    let prepare = |id| NodeProcess::prepared(id, &[&etcd.url], &origin, &[], &[]);
    let mut nodes = ["n0", "n1", "n2"].map(prepare);
    nodes
        .iter_mut()
        .for_each(|it| it.revive_as(old, &[&before]));
    common::process::agree(&nodes).await;
    let ports = nodes.each_ref().map(|node| node.http);
    let mut roll = Roll {
        nodes: nodes.into(),
        traffic: Traffic::start(&ports, &versions, change.groups),
        ejections: Vec::new(),
    };
    roll.traffic.go_on().await;
    roll.to(new, &after, true).await;
    roll.to(old, &before, false).await;
    let Roll {
        nodes,
        traffic,
        mut ejections,
    } = roll;
    let seen = traffic.end().await;
    ejections.extend(nodes.iter().flat_map(self::ejections));
    let count = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::SeqCst);
    let [failed, stale, refused] = [&seen.failed, &seen.stale, &seen.refused].map(count);
    println!(
        "| {} | {} | {failed} | {stale} | {} | {refused} | {} | {} |",
        change.name,
        count(&seen.gets),
        count(&seen.removed),
        ejections.len(),
        count(&versions.loads),
    );
    ejections.iter().for_each(|line| eprintln!("{line}"));
    failed + stale + refused + ejections.len() == 0 && count(&seen.removed) > 0
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // A name chooses one change: `cargo test … --test roll -- group`.
    let wanted = std::env::args().nth(1).filter(|it| !it.starts_with('-'));
    let old = std::env::var("GAOCACHE_OLD_BIN").expect("GAOCACHE_OLD_BIN names the older build");
    let old = std::fs::canonicalize(old).expect("the older build");
    let new = PathBuf::from(env!("CARGO_BIN_EXE_gaocache"));
    println!("three nodes, rolled from the older build to this one and back\n");
    println!(
        "| the new one has | gets | failed | stale | removals | refused | ejections | origin loads |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut held = true;
    for change in CHANGES {
        if wanted.as_deref().is_none_or(|it| change.name.contains(it)) {
            held &= roll(change, &old, &new).await;
        }
    }
    assert!(held, "a promise was broken; see the table");
}
