//! Nodes that have IPv6 addresses alone, as in a cluster of `ipFamily: ipv6`.

use gaocache_discovery::Endpoint;

use super::common::{
    CountingOrigin, TestNode, builder,
    etcd::{Etcd, node_settings},
    http, metric, text_at,
};

#[tokio::test]
async fn nodes_that_listen_on_ipv6_register_in_brackets_and_answer_for_each_other() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    // What the chart sets with `listenAddress: "::"`; Kubernetes sets the address.
    let listeners = ["grpc", "peer", "http"].map(|it| format!("{it}.listen=[::]:0"));
    let mut settings: Vec<&str> = listeners.iter().map(String::as_str).collect();
    settings.extend(["admin.listen=[::1]:0", "node.advertise_host=::1"]);
    let mut members = Vec::new();
    for id in ["n0", "n1"] {
        let settings = node_settings(id, &etcd.url, &origin, &settings);
        members.push(TestNode::start(
            builder(&settings).bind().await.expect("binds"),
        ));
    }
    for member in &mut members {
        member.ring_of(2).await;
        member.ready().await;
    }
    for (key, value) in etcd.keys("gaocache/").await {
        let registered = Endpoint::from_stored(value.as_bytes()).expect("an endpoint");
        let peers = registered.text("peer_address").expect("an address");
        for address in [&*registered.address, peers] {
            assert!(address.starts_with("[::1]:"), "{key}: {address}");
        }
    }
    let at = format!("[::1]:{}", members[0].addresses.http.port());
    for key in 0..20 {
        text_at(&http(), &format!("http://{at}/v1/users/k{key}")).await;
    }
    // Each key was loaded by its owner, which for some is the other node.
    let of_the_other = metric(
        &members[1],
        "gaocache_origin_loads_total",
        &["outcome=\"ok\""],
    );
    assert!(of_the_other.await > 0.0);
    assert_eq!(origin.loads(), 20);
}
