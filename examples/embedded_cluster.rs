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

use gaocache::{Client, ClientOptions, GroupDefinition, NodeBuilder, config, loader};
use gaocache_discovery::EtcdConfig;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let etcd = std::env::args().nth(1);
    let etcd = etcd.unwrap_or_else(|| "http://127.0.0.1:2379".into());
    let loads = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let mut running = Vec::new();
    for number in 0..3 {
        let counter = loads.clone();
        let shout = loader(move |key: String| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, gaocache::Error>(key.to_uppercase()) }
        });
        let endpoints = format!("registry.etcd.endpoints={etcd}");
        let further = [
            "registry.kind=etcd",
            "registry.service=embedded",
            &endpoints,
        ];
        let settings = config::loopback(&format!("node-{number}"), &further)?;
        let node = NodeBuilder::new(settings)
            .group(GroupDefinition::new(
                "shout",
                Duration::from_secs(60),
                shout,
            ))
            .bind()
            .await?;
        running.push(tokio::spawn(node.run(stop.clone().cancelled_owned())));
    }
    let client = Client::new(
        EtcdConfig::new([etcd]),
        "embedded",
        ClientOptions::default(),
    );
    client.rings().wait_for(|ring| ring.ring_len() == 3).await?;
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
