//! A group with a loader of your own, on three nodes in one process, each standing for one pod:
//! `cargo run --example embedded`. The loader runs once, however many callers there are.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gaocache::{GroupDefinition, NodeBuilder, config, loader, registry::memory::MemoryRegistry};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let loads = Arc::new(AtomicUsize::new(0));
    let registry = Arc::new(MemoryRegistry::default());
    let stop = CancellationToken::new();
    let mut nodes = Vec::new();
    for number in 0..3 {
        let counter = loads.clone();
        let square = loader(move |key: String| {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                let n: u64 = key
                    .parse()
                    .map_err(|_| gaocache::Error::not_found("not a number"))?;
                Ok::<_, gaocache::Error>(format!("{n}² = {} (load {number})", n * n))
            }
        });
        let settings = config::loopback(&format!("node-{number}"), &[])?;
        let node = NodeBuilder::new(settings)
            .registry(registry.clone())
            .group(GroupDefinition::new(
                "squares",
                Duration::from_secs(60),
                square,
            ))
            .bind()
            .await?;
        let (service, mut rings) = (node.service(), node.rings());
        let running = tokio::spawn(node.run(stop.clone().cancelled_owned()));
        nodes.push((service, running));
        rings.wait_for(|ring| ring.ring_len() == number + 1).await?;
    }
    for (service, _) in nodes.iter().cycle().take(6) {
        let answer = service.get("squares", "12").await?;
        let text = String::from_utf8_lossy(&answer.value).into_owned();
        println!("{text} from {:?}, owner {}", answer.source, answer.owner);
    }
    println!("{} load for six gets", loads.load(Ordering::SeqCst));
    stop.cancel();
    for (_, running) in nodes {
        running.await??;
    }
    Ok(())
}
