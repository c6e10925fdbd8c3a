//! Embeds a node that is alone, and two that share their keys.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gaocache::{
    Cache, Error, ErrorKind, GroupDefinition, Node, NodeBuilder, Registry, Settings, Source, loader,
};
use tokio::{sync::watch, task::JoinHandle};

/// Squares of numbers, and how often one was loaded.
fn squares(loads: &Arc<AtomicUsize>) -> GroupDefinition {
    let loads = loads.clone();
    let squares = loader(move |key: String| {
        loads.fetch_add(1, Ordering::SeqCst);
        async move {
            let number: u64 = key.parse().map_err(|_| Error::not_found("not a number"))?;
            Ok::<_, Error>((number * number).to_string())
        }
    });
    GroupDefinition::new("squares", squares).ttl(Duration::from_secs(60))
}

fn run(node: Node, stop: &watch::Sender<bool>) -> JoinHandle<gaocache::Result<()>> {
    let mut stopped = stop.subscribe();
    tokio::spawn(node.run(async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }))
}

async fn exercise(cache: &Cache) {
    let first = cache.get("squares", "12").await.expect("a square");
    assert_eq!(
        (first.value.as_ref(), first.source),
        (&b"144"[..], Source::Origin)
    );
    let again = cache.get("squares", "12").await.expect("a square");
    assert_eq!((again.value, again.source), (first.value, Source::Hit));
    assert!(
        again
            .ttl_remaining
            .is_some_and(|left| left <= Duration::from_secs(60))
    );

    // From a task of its own, as a server's handler would.
    let clone = cache.clone();
    let many = tokio::spawn(async move { clone.get_many("squares", &["3", "x", "4"]).await });
    let many = many.await.expect("no panic");
    let [three, none, four] = &many[..] else {
        panic!("an answer for each key: {many:?}");
    };
    let value =
        |answer: &gaocache::Result<gaocache::Answer>| answer.clone().expect("a square").value;
    assert_eq!(
        (value(three).as_ref(), value(four).as_ref()),
        (&b"9"[..], &b"16"[..])
    );
    assert_eq!(
        none.as_ref().expect_err("no number").kind(),
        ErrorKind::NotFound
    );

    cache.remove("squares", "12").await.expect("removed");
    let anew = cache.get("squares", "12").await.expect("a square");
    assert_eq!(anew.source, Source::Origin);
    assert!(cache.purge("squares").await.expect("purged") >= 3);
}

/// Neither gRPC nor HTTP, and it works before the node runs.
async fn a_node_alone() {
    let loads = Arc::default();
    let builder = NodeBuilder::new(Settings::standalone("only")).group(squares(&loads));
    let node = builder.bind().await.expect("nothing to bind");
    let addresses = node.addresses();
    assert_eq!(
        (addresses.grpc, addresses.http, addresses.admin),
        (None, None, None)
    );
    let (cache, status, stop) = (node.cache(), node.status(), watch::Sender::new(false));
    exercise(&cache).await;
    let running = run(node, &stop);
    status.ready().await.expect("ready");
    exercise(&cache).await;
    stop.send_replace(true);
    running.await.expect("no panic").expect("no error");
}

/// A key is loaded once, whichever node is asked. Neither serves HTTP.
async fn two_nodes() {
    let (registry, stop) = (Registry::memory(), watch::Sender::new(false));
    let loads = Arc::<AtomicUsize>::default();
    let (mut nodes, mut running) = (Vec::new(), Vec::new());
    for id in ["a", "b"] {
        let mut settings = Settings::loopback(id);
        settings.admin = None;
        settings.http = None;
        let builder = NodeBuilder::new(settings).registry(registry.clone());
        let node = builder.group(squares(&loads)).bind().await.expect("binds");
        nodes.push((node.cache(), node.status()));
        running.push(run(node, &stop));
    }
    for (_, status) in &nodes {
        status.wait_for_members(2).await.expect("runs");
        status.ready().await.expect("runs");
    }
    for key in 0..20 {
        for (cache, _) in &nodes {
            let answer = cache
                .get("squares", &key.to_string())
                .await
                .expect("a square");
            assert_eq!(answer.value, (key * key).to_string());
        }
    }
    assert_eq!(loads.load(Ordering::SeqCst), 20);
    stop.send_replace(true);
    for running in running {
        running.await.expect("no panic").expect("no error");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    a_node_alone().await;
    two_nodes().await;
    println!("outside: ok");
}
