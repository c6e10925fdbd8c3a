//! Three nodes in one process that find each other in etcd, and a client that asks each key's
//! owner: `cargo run --example embedded_cluster -- http://127.0.0.1:2379`.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gaocache::{
    Client, ClientOptions, EtcdConfig, GroupDefinition, NodeBuilder, Registry, Settings, loader,
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1);
    let url = url.unwrap_or_else(|| "http://127.0.0.1:2379".into());
    let etcd = EtcdConfig::new([url.as_str()]);
    let registry = Registry::etcd(etcd.clone(), "embedded");
    let loads = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let mut running = Vec::new();
    for number in 0..3 {
        let counter = loads.clone();
        let shout = loader(move |key: String| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, gaocache::Error>(key.to_uppercase()) }
        });
        let node = NodeBuilder::new(Settings::loopback(format!("node-{number}")))
            .registry(registry.clone())
            .group(GroupDefinition::new("shout", shout).ttl(Duration::from_secs(60)))
            .bind()
            .await?;
        running.push(tokio::spawn(node.run(stop.clone().cancelled_owned())));
    }
    let client = Client::new(etcd, "embedded", ClientOptions::default());
    println!("waiting for three nodes to register in etcd at {url}");
    // In an etcd that holds nothing yet, no node joins for one lease TTL: ten seconds.
    let registered = tokio::time::timeout(Duration::from_secs(30), client.wait_for_members(3));
    if registered.await.is_err() {
        return Err(format!("no three nodes after 30 seconds; is etcd running at {url}?").into());
    }
    for key in ["morning", "night", "morning"] {
        let answer = client.get("shout", key).await?;
        println!(
            "{key}: {} from {:?}",
            String::from_utf8_lossy(&answer.value),
            answer.source
        );
    }
    println!(
        "{} loads for three gets of two keys",
        loads.load(Ordering::SeqCst)
    );
    stop.cancel();
    for node in running {
        node.await??;
    }
    Ok(())
}
