//! Beginning and end of a node.

use gaocache::Registry;

use super::common::{get_request as get, *};

#[tokio::test]
async fn two_nodes_with_one_id_and_a_port_in_use_are_errors_that_say_so() {
    let origin = CountingOrigin::start().await;
    let registry = Registry::memory();
    let mut first = joining(&registry, "n0", &origin.url(), &[]).await;
    first.ready().await;
    let second = joining(&registry, "n0", &origin.url(), &[]).await;
    let error = within("its end", second.running)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.message().contains("'n0'"), "{error}");
    let taken = format!("grpc.listen={}", first.addresses.grpc);
    let bound = builder(&settings("n1", &origin.url(), &[&taken]))
        .bind()
        .await;
    let error = bound.expect_err("the port is taken");
    assert!(
        error.message().contains("gRPC listener") && error.message().contains("in use"),
        "{error}"
    );
    first
        .client()
        .await
        .get(get("alice"))
        .await
        .expect("the first goes on");
}

#[tokio::test]
async fn admin_shows_health_ring_and_reasons() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &["node.zone=b"]).await;
    let fetch =
        async |node: &TestNode, path: &str| http().get(node.admin(path)).send().await.unwrap();
    assert_eq!(fetch(&nodes[0], "/livez").await.status(), 200);
    assert_eq!(fetch(&nodes[0], "/readyz").await.status(), 200);
    let mut fingerprints = std::collections::HashSet::new();
    for node in &nodes {
        let ring: serde_json::Value =
            serde_json::from_slice(&fetch(node, "/ring?key=alice").await.bytes().await.unwrap())
                .unwrap();
        assert_eq!(ring["members"].as_array().unwrap().len(), 3);
        assert_eq!(ring["members"][0]["zone"], "b");
        assert_eq!(ring["members"][0]["state"], "serving");
        let share = ring["members"][0]["share"].as_f64().unwrap();
        assert!((share - 1.0 / 3.0).abs() < 1e-9);
        fingerprints.insert((
            ring["fingerprint"].to_string(),
            ring["revision"].to_string(),
            ring["owners"].to_string(),
        ));
    }
    assert_eq!(fingerprints.len(), 1, "{fingerprints:?}");
    assert_eq!(metric(&nodes[0], "gaocache_ring_members", &[]).await, 3.0);
}

#[tokio::test]
async fn a_node_that_leaves_is_out_of_every_ring_before_it_stops_answering() {
    let origin = CountingOrigin::start().await;
    let mut nodes = cluster(3, &origin.url(), &[]).await;
    let leaving = nodes.pop().unwrap();
    let mut client = leaving.client().await;
    origin.hold();
    let mut slow = client.clone();
    let open = tokio::spawn(async move { slow.get(get("slow")).await });
    origin.is_asked().await;
    let mut readiness = leaving.readiness.clone();
    leaving.stop();
    let why = readiness.wait_for(|why_not| why_not.contains("draining"));
    within("unreadiness", why).await.unwrap();
    for node in &mut nodes {
        node.ring_of(2).await;
    }
    origin.release();
    let answer = within("the open request", open)
        .await
        .unwrap()
        .expect("finished");
    assert_eq!(answer.into_inner().value, "value of slow");
    leaving.stopped().await;
    assert!(
        client.get(get("alice")).await.is_err(),
        "its listener is closed"
    );
    for node in &nodes {
        node.client()
            .await
            .get(get("alice"))
            .await
            .expect("the others go on");
    }
}

#[tokio::test]
async fn shutdown_is_bounded_even_while_a_request_hangs() {
    let origin = CountingOrigin::start().await;
    // The origin's own bound is far away: it must not be what ends the request.
    let groups = format!(
        "groups=[{{ name = \"users\", origin = {{ kind = \"http\", url = \"{}\", timeout_seconds = 3600 }} }}]",
        origin.url()
    );
    let further = [
        "node.shutdown_timeout_seconds=0.2",
        "node.drain_timeout_seconds=0.2",
        &groups,
    ];
    let mut nodes = cluster(1, &origin.url(), &further).await;
    let node = nodes.pop().unwrap();
    origin.hold();
    let mut client = node.client().await;
    let open = tokio::spawn(async move { client.get(get("slow")).await });
    origin.is_asked().await;
    node.stopped().await;
    assert!(within("the cut request", open).await.unwrap().is_err());
}

#[tokio::test]
async fn nodes_of_a_fixed_list_share_the_keys_and_stop_without_a_registry() {
    let origin = CountingOrigin::start().await;
    let ports = [etcd::free_port(), etcd::free_port()];
    let peers = format!(
        "registry.static.peers=n0=127.0.0.1:{},n1=127.0.0.1:{}",
        ports[0], ports[1]
    );
    let mut nodes = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        let listen = format!("peer.listen=127.0.0.1:{port}");
        let further = [
            "registry.kind=static",
            &peers,
            &listen,
            "peer.insecure=true",
        ];
        let settings = settings(&format!("n{number}"), &origin.url(), &further);
        let node = builder(&settings).bind().await.expect("binds");
        nodes.push(TestNode::start(node));
    }
    let mut owners = std::collections::HashSet::new();
    for node in &mut nodes {
        node.ready().await;
        node.ring_of(2).await;
    }
    for key in 0..20 {
        for node in &nodes {
            let answer = node.client().await.get(get(&format!("k{key}"))).await;
            owners.insert(answer.expect("a value").into_inner().owner);
        }
    }
    assert_eq!((origin.loads(), owners.len()), (20, 2));
    // Its drain has no other node to wait for.
    let first = nodes.remove(0);
    first.stopped().await;
    for key in 0..20 {
        let answer = nodes[0].client().await.get(get(&format!("k{key}"))).await;
        answer.expect("the other serves alone");
    }
}
