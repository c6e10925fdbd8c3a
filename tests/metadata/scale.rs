//! How long the purge of a tag takes among a million entries.

use std::time::{Duration, Instant};

use gaocache::{
    Error, GroupDefinition, Loaded, Metadata, NodeBuilder, Origin as Loader, Registry, Settings,
    internal::wire::PurgeTagRequest,
};

use super::*;

const ENTRIES: u32 = 1_000_000;
const PURGES: u32 = 200;
/// Keys that are asked for at once.
const BATCH: u32 = 10_000;

/// Each value has a tag that a thousand others have, too. Values of a number are counted by loads.
struct Numbers;

fn load(key: &str) -> Result<Loaded, gaocache::BoxError> {
    let number: u32 = key.parse()?;
    let tags = Metadata::default().with_tags([format!("t{}", number % 1000).as_str()])?;
    Ok(Loaded::from("v").with_metadata(tags))
}

#[gaocache::async_trait]
impl Loader for Numbers {
    async fn load(&self, key: &str) -> Result<Loaded, gaocache::BoxError> {
        load(key)
    }

    fn batch_size(&self) -> usize {
        BATCH as usize
    }

    async fn load_many(&self, keys: &[&str]) -> Vec<Result<Loaded, gaocache::BoxError>> {
        keys.iter().map(|key| load(key)).collect()
    }
}

async fn node(id: &str, registry: &Registry) -> gaocache::Node {
    let mut settings = Settings::loopback(id);
    settings.capacity = 1 << 30;
    settings.in_flight = 256 << 20;
    settings.auth.anonymous = [gaocache::Action::Read, gaocache::Action::Purge].into();
    let group = GroupDefinition::new("numbers", std::sync::Arc::new(Numbers)).max_value(1 << 10);
    let node = NodeBuilder::new(settings).group(group);
    node.registry(registry.clone()).bind().await.expect("binds")
}

/// `cargo test --test metadata a_million -- --nocapture` prints the figures; the goal is 50 ms. No
/// test may fail on time, so what is asserted is what a purge took.
#[allow(clippy::disallowed_methods, reason = "what is printed is real time")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_is_purged_over_the_wire_among_a_million_entries() {
    let registry = Registry::memory();
    let nodes = [node("n0", &registry).await, node("n1", &registry).await];
    let (statuses, caches) = (
        nodes.each_ref().map(|it| it.status()),
        nodes.each_ref().map(|it| it.cache()),
    );
    let grpc = nodes[0].addresses().grpc.expect("listens");
    for node in nodes {
        tokio::spawn(node.run(std::future::pending()));
    }
    for status in &statuses {
        within("both", status.wait_for_members(2))
            .await
            .expect("running");
        within("readiness", status.ready()).await.expect("running");
    }
    for first in (0..ENTRIES).step_by(BATCH as usize) {
        let keys: Vec<String> = (first..first + BATCH).map(|it| it.to_string()).collect();
        let answers = within("a batch", caches[0].get_many("numbers", &keys)).await;
        let failed: Option<Error> = answers.into_iter().find_map(Result::err);
        assert!(failed.is_none(), "{failed:?}");
    }
    let source = async |number: u32| {
        let answer = caches[0].get("numbers", &number.to_string()).await;
        answer.expect("a value").source
    };
    let mut client = client(grpc).await;
    let mut took = Vec::new();
    for tag in 0..PURGES {
        let request = PurgeTagRequest {
            group: "numbers".into(),
            tag: format!("t{tag}"),
        };
        let began = Instant::now();
        within("a purge", client.purge_tag(request))
            .await
            .expect("purged");
        took.push(began.elapsed());
        for number in [tag, tag + 500_000, tag + 999_000] {
            assert_eq!(source(number).await, gaocache::Source::Origin, "{number}");
        }
        let other = tag + 1000 * (tag + 1) + PURGES;
        assert_ne!(source(other).await, gaocache::Source::Origin, "{other}");
    }
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let max: Duration = at(1.0);
    println!(
        "two nodes, {ENTRIES} entries, {PURGES} purges of a tag over gRPC: p50 {:?}, p99 {:?}, max {max:?}",
        at(0.5),
        at(0.99)
    );
}
