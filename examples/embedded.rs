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

use gaocache::{GroupDefinition, NodeBuilder, Registry, Settings, loader};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let loads = Arc::new(AtomicUsize::new(0));
    let registry = Registry::memory();
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
        let mut settings = Settings::loopback(format!("node-{number}"));
        settings.http = None;
        let node = NodeBuilder::new(settings)
            .registry(registry.clone())
            .group(GroupDefinition::new("squares", square).ttl(Duration::from_secs(60)))
            .bind()
            .await?;
        let (cache, status) = (node.cache(), node.status());
        let running = tokio::spawn(node.run(stop.clone().cancelled_owned()));
        nodes.push((cache, running));
        status.wait_for_members(number + 1).await?;
    }
    for (cache, _) in nodes.iter().cycle().take(6) {
        let answer = cache.get("squares", "12").await?;
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
