//! Tags as an outsider would misuse them, at the origin and at the listeners; and purges of tags
//! beside loads under way, while nodes die and come back.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{Router, extract::Path, routing};
use gaocache::internal::wire::PurgeTagRequest;
use gaocache_testing::Etcd;
use parking_lot::Mutex;
use tonic::Code;

use super::*;
use crate::common::process::{NodeProcess, agree};

const LONGEST: usize = 128;

#[tokio::test]
async fn a_value_whose_tags_can_t_all_be_kept_is_not_kept_either() {
    let origin = Origin::start().await;
    let nodes = nodes(2, &origin, "", "", &[]).await;
    let longest = "t".repeat(LONGEST);
    for (key, purged_by) in [
        ("tags-64", Some("63")),
        ("tags-65", None),
        ("tag-128", Some(&*longest)),
        ("tag-129", None),
        ("tag-unicode", Some("r%C3%B6t")),
        ("tag-latin", None),
        ("tag-blank", None),
        ("tag-commas", Some("b")),
    ] {
        let path = format!("/{key}");
        for (count, node) in nodes.iter().chain(&nodes).enumerate() {
            let got = get(node, key, &[]).await;
            assert_eq!(got.text().await.unwrap(), "first", "{key}");
            let loads = if purged_by.is_some() { 1 } else { count + 1 };
            assert_eq!(origin.asked(&path).len(), loads, "{key}");
        }
        if let Some(tag) = purged_by {
            let url = nodes[1].http(&format!("/v1/users?tag={tag}"));
            let purged = within(tag, http().delete(url).send()).await.unwrap();
            assert_eq!(purged.status(), 204, "{key}");
            get(&nodes[0], key, &[]).await;
            assert_eq!(origin.asked(&path).len(), 2, "{key}");
        }
    }
    let got = get(&nodes[0], "tag-control", &[]).await;
    assert_eq!(got.status(), 502, "no valid response");
}

#[tokio::test]
async fn what_can_t_be_a_tag_is_refused_and_nothing_is_purged() {
    let origin = Origin::start().await;
    let nodes = nodes(2, &origin, "", "", &[]).await;
    get(&nodes[0], "red/1", &[]).await;
    let (long, longer) = ("t".repeat(LONGEST + 1), "t".repeat(1 << 14));
    let mut client = nodes[0].client().await;
    for wrong in [
        "", " ", "a b", "a,b", "a\n", "\0", "\u{85}", "\u{2028}", &long, &longer,
    ] {
        let url = format!("{}?tag=", nodes[0].http("/v1/users"));
        let escaped: String = wrong.bytes().map(|it| format!("%{it:02x}")).collect();
        let refused = within("http", http().delete(url + &escaped).send())
            .await
            .unwrap();
        assert_eq!(refused.status(), 400, "{wrong:?}");
        let request = PurgeTagRequest {
            group: "users".into(),
            tag: wrong.into(),
        };
        let refused = within("grpc", client.purge_tag(request)).await;
        assert_eq!(
            refused.expect_err(wrong).code(),
            Code::InvalidArgument,
            "{wrong:?}"
        );
    }
    let garbled = http().delete(nodes[0].http("/v1/users?tag=%ff")).send();
    assert_ne!(within("http", garbled).await.unwrap().status(), 500);
    let got = get(&nodes[0], "red/1", &[]).await;
    assert_ne!(lines(&got, "x-cache"), ["origin"], "still held");
}

const KEYS: u64 = 60;
const TAGS: u64 = 4;
const NODES: usize = 3;

/// An origin whose values are the version that it was at when a load began; and what purges have
/// promised.
#[derive(Default)]
struct Scene {
    version: AtomicU64,
    /// By tag: no get that begins from now on returns an older version.
    promised: [AtomicU64; TAGS as usize],
    reads: AtomicU64,
    broken: Mutex<Vec<String>>,
}

impl Scene {
    async fn origin(self: &Arc<Self>) -> String {
        let scene = self.clone();
        let answer = move |Path(key): Path<u64>| {
            let version = scene.version.load(Ordering::SeqCst);
            async move {
                // Purges come while loads are under way.
                tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(0..20))).await;
                let tag = format!("t{}", key % TAGS);
                ([("cache-tag", tag)], version.to_string())
            }
        };
        let router = Router::new().route("/{key}", routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/{{key}}")
    }

    /// Reads from that node for as long as the test lasts. A node that is away is no finding.
    async fn read(self: Arc<Self>, port: u16) {
        let client = http();
        loop {
            let key = fastrand::u64(0..KEYS);
            let promised = self.promised[(key % TAGS) as usize].load(Ordering::SeqCst);
            let got = client.get(format!("http://127.0.0.1:{port}/v1/users/{key}"));
            let Ok(got) = got.send().await else {
                tokio::task::yield_now().await;
                continue;
            };
            if got.status() != 200 {
                continue;
            }
            let Ok(text) = got.text().await else { continue };
            let version: u64 = text.parse().expect("a version");
            self.reads.fetch_add(1, Ordering::SeqCst);
            if version < promised {
                let what = format!("{key} at {port}: version {version} after {promised}");
                self.broken.lock().push(what);
            }
        }
    }

    /// Makes a new version, and purges a tag until that is confirmed.
    async fn purge(&self, port: u16, tag: u64) {
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        let url = format!("http://127.0.0.1:{port}/v1/users?tag=t{tag}");
        within("a purge", async {
            let client = http();
            loop {
                let purged = client.delete(&url).send().await;
                if purged.is_ok_and(|it| it.status() == 204) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        self.promised[tag as usize].fetch_max(version, Ordering::SeqCst);
    }
}

/// Three processes, of which one dies, or leaves, and comes back, over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_outlives_the_purge_of_its_tag_while_nodes_die_and_come_back() {
    let scene = Arc::<Scene>::default();
    let (etcd, url) = (Etcd::start().await, scene.origin().await);
    let start = |number| NodeProcess::start(&format!("n{number}"), &[&etcd.url], &url, &[]);
    let mut nodes: Vec<NodeProcess> = (0..NODES).map(start).collect();
    agree(&nodes).await;
    let mut readers = tokio::task::JoinSet::new();
    for node in &nodes {
        for _ in 0..2 {
            readers.spawn(scene.clone().read(node.http));
        }
    }
    for round in 0..6 {
        let away = round % NODES;
        if round % 2 == 0 {
            nodes[away].kill();
        } else {
            nodes[away].terminate().await;
        }
        let others = [(away + 1) % NODES, (away + 2) % NODES];
        for purge in 0..2 * TAGS {
            let asked = nodes[others[purge as usize % 2]].http;
            scene.purge(asked, purge % TAGS).await;
        }
        nodes[away].revive();
        // Some of them while it joins.
        for purge in 0..4 * TAGS {
            scene.purge(nodes[others[0]].http, purge % TAGS).await;
        }
        agree(&nodes).await;
        for purge in 0..2 * TAGS {
            scene.purge(nodes[away].http, purge % TAGS).await;
        }
    }
    readers.shutdown().await;
    let reads = scene.reads.load(Ordering::SeqCst);
    println!(
        "{} purges, {reads} reads",
        scene.version.load(Ordering::SeqCst)
    );
    assert!(reads > 1000, "{reads} reads");
    let broken = scene.broken.lock();
    assert!(broken.is_empty(), "{broken:?}");
}
