//! Strangers that connect to the listener for nodes, behave, and stay.

use super::{
    attacker::{Held, showing},
    common::*,
};

#[tokio::test]
async fn strangers_take_no_places_from_clients_and_shut_out_no_member() {
    const PLACES: usize = 256;
    let (origin, registry) = (CountingOrigin::start().await, gaocache::Registry::memory());
    let few = ["limits.max_connections=8"];
    let mut first = joining(&registry, "n0", &origin.url(), &few).await;
    first.ready().await;
    let held = Held::new();
    let mut config = showing(Some((&held.certificate, &held)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = std::sync::Arc::new(config);
    let mut strangers = Vec::new();
    for _ in 0..PLACES + 10 {
        let stranger = tls::connect(first.addresses.peer, "node", config.clone()).await;
        strangers.push(stranger.expect("a handshake"));
    }
    let labels = ["listener=\"peer\"", "reason=\"displaced\""];
    let cut = "gaocache_connection_cuts_total";
    within("the oldest are cut", async {
        while metric(&first, cut, &labels).await < 10.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = client(first.addresses.grpc).await;
        client.get(get_request("a")).await.expect("a value");
        clients.push(client);
    }
    // Nor do clients that have taken all places shut out a member.
    let mut second = joining(&registry, "n1", &origin.url(), &few).await;
    for node in [&mut first, &mut second] {
        node.ring_of(2).await;
        node.ready().await;
    }
    let mut through_second = client(second.addresses.grpc).await;
    for number in 0..20 {
        let got = through_second.get(get_request(&format!("k{number}"))).await;
        got.expect("a value");
    }
    let failed = metric(&second, "gaocache_peer_fetches_total", &["unreachable"]).await;
    assert_eq!(failed, 0.0);
    let open = ["listener=\"peer\""];
    let open = metric(&first, "gaocache_connections", &open).await as usize;
    assert!((PLACES..PLACES + 8).contains(&open), "{open}");
}
