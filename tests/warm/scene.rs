//! A cluster of real processes over an etcd and an origin, all keys warm.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::future::join_all;
use gaocache::internal::wire::{
    GetManyRequest, cache_client::CacheClient, get_many_response::Outcome,
};

use crate::{
    common::{self, etcd::Etcd, process::NodeProcess},
    origin::{Origin, expected},
};

pub(crate) struct Scene {
    pub(crate) etcd: Etcd,
    pub(crate) origin: Origin,
    pub(crate) nodes: Vec<NodeProcess>,
    pub(crate) further: Vec<String>,
    pub(crate) keys: usize,
}

impl Scene {
    pub(crate) async fn start(size: usize, keys: usize, further: &[&str]) -> Self {
        let mut scene = Self {
            etcd: Etcd::start().await,
            origin: Origin::start(keys).await,
            nodes: Vec::new(),
            further: further.iter().map(|&it| it.to_owned()).collect(),
            keys,
        };
        for _ in 0..size {
            scene.join();
        }
        scene.agreed().await;
        let failed = scene.sweep().await;
        assert_eq!(failed, 0, "while warming");
        assert_eq!(scene.origin.loads(), keys as u64, "while warming");
        scene
    }

    pub(crate) fn join(&mut self) {
        let id = format!("n{}", self.nodes.len());
        let mut further = vec![
            "cache.capacity=512MiB",
            "log.level=warn,gaocache::node=info",
        ];
        further.extend(self.further.iter().map(String::as_str));
        let node = NodeProcess::start(&id, &[&self.etcd.url], &self.origin.url, &further);
        self.nodes.push(node);
    }

    pub(crate) async fn agreed(&self) {
        let ids: Vec<&str> = self.nodes.iter().map(|node| &*node.id).collect();
        for node in &self.nodes {
            node.until_ready().await;
            node.until_ring(&ids).await;
        }
    }

    /// Reads every key once, at any node. Returns how many reads failed.
    pub(crate) async fn sweep(&self) -> usize {
        const AT_ONCE: usize = 1_000;
        let failed = AtomicU64::new(0);
        let streams = self.nodes.iter().enumerate().map(|(stream, node)| {
            let url = format!("http://127.0.0.1:{}", node.grpc);
            let failed = &failed;
            async move {
                let client = CacheClient::connect(url).await.expect("connects");
                let mut client = client.max_decoding_message_size(usize::MAX);
                let keys: Vec<usize> = (0..self.keys).skip(stream).step_by(self.nodes.len()).collect();
                for keys in keys.chunks(AT_ONCE) {
                    let request = GetManyRequest {
                        group: "users".into(),
                        keys: keys.iter().map(usize::to_string).collect(),
                    };
                    let mut answers = client.get_many(request).await.expect("answers").into_inner();
                    let mut right = 0;
                    while let Ok(Some(answer)) = answers.message().await {
                        let key: usize = answer.key.parse().expect("a key");
                        let found = matches!(&answer.outcome, Some(Outcome::Found(it)) if it.value == expected(key));
                        right += usize::from(found);
                    }
                    failed.fetch_add((keys.len() - right) as u64, Ordering::Relaxed);
                }
            }
        });
        join_all(streams).await;
        failed.into_inner() as usize
    }

    /// Waits until a node holds a copy of each entry, by the sum of what all hold.
    pub(crate) async fn copied(&self) {
        common::within("copies of all entries", async {
            loop {
                let mut items = 0.0;
                for node in &self.nodes {
                    items += node.metric("gaocache_store_items", "owned").await;
                }
                if items >= 2.0 * self.keys as f64 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }
}
