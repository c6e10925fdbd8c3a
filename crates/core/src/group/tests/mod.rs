//! Read-through and removal over nodes without a network: peers call each other directly, time is
//! set by hand, origins can be held back.

mod absence;
mod coming_and_going;
mod lives;
mod many;
mod pass_through;
mod reading;
mod removal;
mod renewal;
mod stale_model;
mod staleness;
mod tags;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Semaphore;

use super::*;
use crate::ports::{Freshness, Loaded, Origin, Removal, Timestamp};
use crate::{
    cluster::Cluster,
    harness_tests::{
        HOT_AFTER, HandClock, Plan, TTL_MS, TestNet, TestOrigin, group_rules, ranked, view,
    },
    membership::{Member, View},
    standing::Standing,
};

struct TestCluster {
    groups: Vec<Arc<Group>>,
    clusters: Vec<Arc<Cluster>>,
    standings: Vec<Arc<Standing>>,
    peers: Arc<TestNet>,
    origin: Arc<TestOrigin>,
    clock: Arc<HandClock>,
}

fn cluster(size: usize) -> TestCluster {
    cluster_of(size, group_rules())
}

fn cluster_of(size: usize, rules: GroupRules) -> TestCluster {
    cluster_with(size, rules, 1 << 20)
}

fn cluster_with(size: usize, rules: GroupRules, capacity: u64) -> TestCluster {
    let origin = Arc::<TestOrigin>::default();
    let (peers, clock) = (Arc::<TestNet>::default(), Arc::<HandClock>::default());
    let plan = Plan {
        rules,
        replicas: 1,
        capacity,
        bytes_per_second: 1 << 40,
        lease: None,
        clock: clock.clone(),
        origin: origin.clone(),
        net: peers.clone(),
    };
    let ids: Vec<String> = (0..size).map(|n| format!("n{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let nodes: Vec<_> = ids.iter().map(|id| plan.node(id)).collect();
    nodes.iter().for_each(|node| node.install(&view(1, &ids)));
    TestCluster {
        groups: nodes.iter().map(|node| node.group.clone()).collect(),
        clusters: nodes.iter().map(|node| node.cluster.clone()).collect(),
        standings: nodes.iter().map(|node| node.standing.clone()).collect(),
        peers,
        origin,
        clock,
    }
}

impl TestCluster {
    fn loads(&self) -> usize {
        self.origin.loads.load(Ordering::SeqCst)
    }

    /// A key and the numbers of its owner and of its stand-in.
    fn key_and_ranks(&self) -> (String, usize, usize) {
        let key = "alice".to_owned();
        let view = self.clusters[0].snapshot().view.clone();
        let number = |id: &Arc<str>| id[1..].parse().expect("a number");
        let ranked: Vec<usize> = ranked(&self.groups[0], &key, &view)
            .iter()
            .map(number)
            .collect();
        (key, ranked[0], ranked[1])
    }

    fn hold_origin(&self) {
        self.origin.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    async fn until_loads(&self, loads: usize) {
        /// Far more than any load needs to begin; without a bound a broken flight would hang
        /// instead of fail.
        const TURNS: usize = 100_000;
        for _ in 0..TURNS {
            if self.loads() >= loads {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("load {loads} never began");
    }
}
