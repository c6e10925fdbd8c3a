//! Nodes of an older build are replaced by this one, one by one, and then again by the older: real
//! processes, a real etcd, gets and removals all the time. `make roll-test`
//!
//! No get fails that may be answered, nothing that was removed is served, no removal is refused,
//! and no node takes a healthy one for unreachable: whatever the other build says or has in its
//! settings. Where these differ, nodes really ask each other for what the other can't answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod origin;
mod traffic;

use std::{path::PathBuf, sync::Arc, sync::atomic::Ordering};

use common::{etcd::Etcd, process::NodeProcess};
use origin::Versions;
use traffic::{Further, Traffic};

/// What a node says when it takes another for unreachable, and why it may: at a node that is being
/// replaced, nothing listens for a moment.
const EJECTED: &str = "can't be reached; the next member in ring order";
const REFUSED: &str = "Connection refused";

/// What the new build has in its settings and the old one has not.
#[derive(Clone, Copy)]
struct Change {
    name: &'static str,
    /// What is asked for besides the group `users`.
    further: Option<Further>,
    /// The limits on values, before and after.
    max_value: [&'static str; 2],
    /// What new nodes hear from old ones, as `gaocache_peer_fetches_total` counts it.
    heard: Option<&'static str>,
}

const SMALL: &str = "64KiB";
/// More than the values of the group `large` have.
const AMPLE: &str = "2MiB";

const CHANGES: [Change; 4] = [
    Change {
        name: "the same settings",
        further: None,
        max_value: [SMALL, SMALL],
        heard: None,
    },
    Change {
        name: "a larger max_value",
        further: Some(Further {
            group: "large",
            old_has_it: false,
            new_has_it: true,
        }),
        max_value: [SMALL, AMPLE],
        heard: Some("error"),
    },
    Change {
        name: "a smaller max_value",
        further: Some(Further {
            group: "large",
            old_has_it: true,
            new_has_it: false,
        }),
        max_value: [AMPLE, SMALL],
        heard: Some("error"),
    },
    Change {
        name: "a group more",
        further: Some(Further {
            group: "added",
            old_has_it: false,
            new_has_it: true,
        }),
        max_value: [SMALL, SMALL],
        heard: Some("unavailable"),
    },
];

/// The groups as a setting. Both builds have the group `large`, each with its own limit.
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
    heard: Option<&'static str>,
    /// How often new nodes heard that from others.
    heard_times: f64,
}

impl Roll {
    /// Replaces one node after the other by another build with these settings.
    async fn to(&mut self, program: &std::path::Path, settings: &str, is_new: bool) {
        for (node, door) in self.nodes.iter_mut().zip(&self.traffic.doors) {
            let closed = door.open.write().await;
            if let (false, Some(heard)) = (is_new, self.heard) {
                let heard = format!("\"{heard}\"");
                self.heard_times += node.metric("gaocache_peer_fetches_total", &heard).await;
            }
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
    let is_wrong = |line: &&String| line.contains(EJECTED) && !line.contains(REFUSED);
    let lines = log.iter().filter(is_wrong);
    lines.map(|line| format!("{}: {line}", node.id)).collect()
}

async fn roll(change: Change, old: &std::path::Path, new: &std::path::Path) -> bool {
    let (etcd, versions) = (Etcd::start().await, Arc::<Versions>::default());
    let origin = versions.serve().await;
    let before = groups(&origin, &["users", "large"], change.max_value[0]);
    let after = groups(&origin, &["users", "large", "added"], change.max_value[1]);
    let further = ["cache.in_flight=32MiB"];
    let prepare = |id| NodeProcess::prepared(id, &[&etcd.url], &origin, &further, &[]);
    let mut nodes = ["n0", "n1", "n2"].map(prepare);
    nodes
        .iter_mut()
        .for_each(|it| it.revive_as(old, &[&before]));
    common::process::agree(&nodes).await;
    let ports = nodes.each_ref().map(|node| node.http);
    let mut roll = Roll {
        nodes: nodes.into(),
        traffic: Traffic::start(&ports, &versions, change.further),
        ejections: Vec::new(),
        heard: change.heard,
        heard_times: 0.0,
    };
    roll.traffic.go_on().await;
    roll.to(new, &after, true).await;
    roll.to(old, &before, false).await;
    let Roll {
        nodes,
        traffic,
        mut ejections,
        heard_times,
        ..
    } = roll;
    let seen = traffic.end().await;
    ejections.extend(nodes.iter().flat_map(self::ejections));
    let count = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::SeqCst);
    let [failed, stale, refused] = [&seen.failed, &seen.stale, &seen.refused].map(count);
    println!(
        "| {} | {} | {failed} | {stale} | {} | {refused} | {} | {heard_times} | {} |",
        change.name,
        count(&seen.gets),
        count(&seen.removed),
        ejections.len(),
        count(&versions.loads),
    );
    ejections.iter().for_each(|line| eprintln!("{line}"));
    let has_heard = change.heard.is_none() || heard_times > 0.0;
    failed + stale + refused + ejections.len() == 0 && count(&seen.removed) > 0 && has_heard
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
        "| the new one has | gets | failed | stale | removals | refused | ejections \
         | can't answer the other | origin loads |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut held = true;
    for change in CHANGES {
        if wanted.as_deref().is_none_or(|it| change.name.contains(it)) {
            held &= roll(change, &old, &new).await;
        }
    }
    assert!(held, "a promise was broken; see the table");
}
