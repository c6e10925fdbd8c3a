//! Peers that are gone, silent, or back again.

use super::*;

#[tokio::test]
async fn the_keys_of_a_peer_that_is_gone_are_served_all_the_same() {
    let origin = CountingOrigin::start().await;
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let node = node_among(&[("gone", gone)], &origin.url(), &[]).await;
    let others = read_all(&node).await;
    assert!(others > 10, "some keys are the other's: {others}");
    assert_eq!(origin.loads(), 60);
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
    let tried = metric(
        &node,
        "gaocache_peer_fetches_total",
        &["gone", "unreachable"],
    )
    .await;
    assert!(
        (1.0..=3.0).contains(&tried),
        "ejected at once, so asked hardly ever: {tried}"
    );
    read_all(&node).await;
    assert_eq!(origin.loads(), 60, "what a stand-in loaded is kept");
}

#[tokio::test]
async fn a_peer_that_answers_nothing_is_given_up_within_its_time() {
    let origin = CountingOrigin::start().await;
    // Accepts (the kernel does) and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let further = [
        "peer.timeout_seconds=0.3",
        "peer.connect_timeout_seconds=0.3",
    ];
    let node = node_among(&[("silent", address)], &origin.url(), &further).await;
    read_all(&node).await;
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
}

/// As a frozen process does, to which this node has no connection yet.
#[tokio::test]
async fn a_peer_that_accepts_connections_and_proves_nothing_is_out_of_reach() {
    let origin = CountingOrigin::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut member = Member::new("silent", silent.local_addr().unwrap().to_string());
    member.contact.key = Some(KeyFingerprint([7; 32]));
    let node = node_with([member], &origin.url(), &["peer.insecure=false"]).await;
    let others = read_all(&node).await;
    assert!(others > 10, "some keys are the other's: {others}");
    assert_eq!(origin.loads(), 60);
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_by_probing() {
    let origin = CountingOrigin::start().await;
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let node = node_among(&[("late", address)], &origin.url(), &[]).await;
    read_all(&node).await;
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
    let listen = format!("peer.listen={address}");
    let late = settings("late", &origin.url(), &[&listen, "peer.insecure=true"]);
    let mut late = TestNode::start(builder(&late).bind().await.expect("binds"));
    late.ready().await;
    within("the probe", async {
        while metric(&node, "gaocache_peers_ejected", &[]).await > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.client()
        .await
        .purge(wire::PurgeRequest {
            group: "users".into(),
        })
        .await
        .expect("reaches it");
    read_all(&node).await;
    assert!(metric(&node, "gaocache_peer_fetches_total", &["late", "origin"]).await > 0.0);
}
