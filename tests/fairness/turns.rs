//! Places of loads, by turns: no client delays the loads of another by more than its share.

use super::*;

/// Asks for these keys, and returns when all are under way at the node. The origin is asked for the
/// first alone.
async fn all_wait(
    node: &TestNode,
    origin: &OrderedOrigin,
    from: [u8; 4],
    keys: &[String],
) -> [JoinSet<Code>; 2] {
    let client = client_from(from, node.addresses.grpc).await;
    let first = ask(&client, keys[..1].iter().cloned());
    origin.is_asked_for(1).await;
    let rest = ask_and_join(node, from, &keys[1..]).await;
    [first, rest]
}

#[tokio::test]
async fn a_client_that_asks_for_hundreds_of_keys_delays_another_by_its_share() {
    let origin = OrderedOrigin::start().await;
    let nodes = cluster(1, "", &[&origin.group("")]).await;
    let address = nodes[0].addresses.grpc;
    let keys: Vec<String> = (0..600).map(|number| format!("bad-{number:03}")).collect();
    let all_of_greedy = all_wait(&nodes[0], &origin, ATTACKER, &keys).await;
    let good = client_from(GOOD, address).await;
    let joined_before = joined(&nodes[0]).await;
    // A key of its own, and one that the other wants as well.
    let wanted = ["good-00", "bad-599"];
    let asked = ask(&good, [wanted[1].to_owned()].into_iter());
    until_joined(&nodes[0], joined_before + 1.0).await;
    let own = ask_and_join(&nodes[0], GOOD, &[wanted[0].to_owned()]).await;
    origin.open.send_replace(true);
    all_answered(asked).await;
    all_answered(own).await;
    for asked in all_of_greedy {
        all_answered(asked).await;
    }
    for key in wanted {
        let before = origin.before(key);
        assert!(before <= 6, "{key} waited for {before} of 600 others");
    }
    assert_eq!(origin.asked.lock().len(), 601, "one load a key");
}

#[tokio::test]
async fn it_does_so_too_if_another_node_owns_the_keys() {
    let origin = OrderedOrigin::start().await;
    // Both clients wait for the slots of one connection.
    let further = [&origin.group(""), "node.worker_threads=1"];
    let nodes = cluster(2, "", &further).await;
    let of_other = |key: &String| owned_by(&nodes[1], key);
    let named = |name: &'static str| (0..).map(move |number| format!("{name}-{number:04}"));
    // More than there are places on the connection to the owner.
    let keys: Vec<String> = named("bad").filter(of_other).take(600).collect();
    let wanted = named("god").find(of_other).unwrap();
    let all_of_greedy = all_wait(&nodes[0], &origin, ATTACKER, &keys).await;
    let good = ask_and_join(&nodes[0], GOOD, std::slice::from_ref(&wanted)).await;
    origin.open.send_replace(true);
    all_answered(good).await;
    for asked in all_of_greedy {
        all_answered(asked).await;
    }
    let before = origin.before(&wanted);
    assert!(before <= 100, "it waited for {before} of 600 others");
}

#[tokio::test]
async fn it_does_so_too_if_the_keys_leave_in_one_message() {
    let origin = OrderedOrigin::start().await;
    let nodes = cluster(2, "", &[&origin.group("")]).await;
    let address = nodes[0].addresses.grpc;
    let keys = (0..).map(|number| format!("bad-{number:04}"));
    let keys: Vec<String> = { keys }
        .filter(|key| owned_by(&nodes[1], key))
        .take(600)
        .collect();
    // The last one, which the owner has not begun: another client wants it.
    let wanted = keys[599].clone();
    let request = GetManyRequest {
        group: "users".into(),
        keys,
    };
    let greedy = client_from(ATTACKER, address).await;
    let mut greedy = { greedy }.get_many(request).await.unwrap().into_inner();
    origin.is_asked_for(1).await;
    let before = in_flight(&nodes[1]).await;
    let good = client_from(GOOD, address).await;
    let good = ask(&good, [wanted.clone()].into_iter());
    until_in_flight(&nodes[1], |bytes| bytes > before).await;
    within("a fetch of its own", async {
        let sent = ["call=\"fetch\""];
        while metric(&nodes[0], "gaocache_peer_messages_total", &sent).await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.open.send_replace(true);
    all_answered(good).await;
    let before = origin.before(&wanted);
    assert!(before <= 100, "it waited for {before} of 600 others");
    let mut answers = 0;
    while let Some(_answer) = within("an answer", greedy.message()).await.unwrap() {
        answers += 1;
    }
    assert_eq!((answers, origin.asked.lock().len()), (600, 600));
}

#[tokio::test]
async fn a_key_waits_at_its_owner_for_all_clients_that_other_nodes_name() {
    let origin = OrderedOrigin::start().await;
    let further = [&origin.group(""), "peer.insecure=true"];
    let nodes = cluster(1, "", &further).await;
    let peer = format!("http://{}", nodes[0].addresses.peer);
    let peer = PeerClient::connect(peer).await.expect("connects");
    let keys: Vec<String> = (0..40).map(|number| format!("key-{number:02}")).collect();
    let fetch = |key: &str, clients: &[&'static str]| {
        let mut request = tonic::Request::new(FetchRequest {
            group: "users".into(),
            key: key.into(),
        });
        for client in clients {
            let name = "gaocache-client";
            request.metadata_mut().append(name, client.parse().unwrap());
        }
        let mut peer = peer.clone();
        async move { peer.fetch(request).await.map(drop) }
    };
    let mut fetches = JoinSet::new();
    fetches.spawn(fetch(&keys[0], &["1"]));
    origin.is_asked_for(1).await;
    // Each twice: the last of the two joins the flight. One is wanted by another client from the
    // beginning, one later.
    for key in keys[1..39].iter().flat_map(|key| [key, key]) {
        fetches.spawn(fetch(key, &["1"]));
    }
    until_joined(&nodes[0], 38.0).await;
    for key in [&keys[39], &keys[39]] {
        fetches.spawn(fetch(key, &["1", "2"]));
    }
    until_joined(&nodes[0], 39.0).await;
    let want = WantRequest {
        group: "users".into(),
        key: keys[38].clone(),
        clients: vec![2],
    };
    peer.clone().want(want).await.expect("heard");
    origin.open.send_replace(true);
    while let Some(fetched) = within("an answer", fetches.join_next()).await {
        fetched.unwrap().expect("a value");
    }
    for key in &keys[38..] {
        let before = origin.before(key);
        assert!(before <= 6, "{key} waited for {before} of 40 others");
    }
}
