//! Requests within a time, and misses at a time.

use super::*;

/// Sends a command of Redis, and returns the first line of the answer.
async fn redis(from: [u8; 4], node: &TestNode, command: &str) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let to = node.addresses.redis.expect("listens");
    let mut stream = socket.connect(to).await.expect("connects");
    stream.write_all(command.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let read = within("an answer", stream.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Whether each request over HTTP is told to come back later.
async fn is_refused_over_http(node: &TestNode) {
    for (method, path) in [
        (Method::GET, "/v1/users/alice"),
        (Method::DELETE, "/v1/users/alice"),
        (Method::DELETE, "/v1/users?tag=red"),
        (Method::GET, "/v1/users/"),
    ] {
        let request = http().request(method.clone(), node.http(path));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 429, "{method} {path}");
        let wait = answer.headers()["retry-after"].to_str().unwrap();
        assert!(wait.parse::<u64>().unwrap() > 3_000, "{wait}");
    }
}

#[tokio::test]
async fn a_client_past_its_rate_is_told_so_by_every_listener_and_others_are_served() {
    let origin = CountingOrigin::start().await;
    let further = [
        "limits.max_requests_per_second_per_client=1",
        "redis.listen=127.0.0.1:0",
    ];
    let nodes = cluster(1, &origin.url(), &further).await;
    let mut client = client_from(GOOD, nodes[0].addresses.grpc).await;
    let many = |keys: usize| GetManyRequest {
        group: "users".into(),
        keys: (0..keys).map(|number| format!("k{number}")).collect(),
    };
    // It pays afterwards: for an hour.
    let mut answers = client.get_many(many(3_600)).await.unwrap().into_inner();
    let mut found = 0;
    while let Some(_answer) = answers.message().await.unwrap() {
        found += 1;
    }
    assert_eq!(found, 3_600);
    let removal = RemoveRequest {
        group: "users".into(),
        key: "alice".into(),
    };
    let group = String::from("users");
    let purge = PurgeRequest {
        group: group.clone(),
    };
    let purge_tag = PurgeTagRequest {
        group,
        tag: "red".into(),
    };
    let refused = [
        client.get(get("alice")).await.expect_err("too many"),
        client.get_many(many(1)).await.expect_err("too many"),
        client.remove(removal).await.expect_err("too many"),
        client.purge(purge).await.expect_err("too many"),
        client.purge_tag(purge_tag).await.expect_err("too many"),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted);
        let kind = status.metadata().get("gaocache-error").unwrap();
        assert_eq!(kind, "too_many_requests");
        assert!(status.metadata().get("gaocache-retry-after-ms").is_some());
    }
    is_refused_over_http(&nodes[0]).await;
    let get_alice = "GET users:alice\r\n";
    let refused = redis(GOOD, &nodes[0], get_alice).await;
    assert!(refused.starts_with("-BUSY too_many_requests"), "{refused}");
    let why = "requests (limits.max_requests_per_second_per_client) than one client may have";
    assert!(refused.contains(why), "{refused}");
    let refused = redis(GOOD, &nodes[0], "AUTH guess\r\n").await;
    assert!(refused.starts_with("-BUSY too_many_requests"), "{refused}");
    assert_eq!(redis(ATTACKER, &nodes[0], get_alice).await, "$14");
    let name = "gaocache_client_refusals_total";
    assert_eq!(metric(&nodes[0], name, &["reason=\"rate\""]).await, 11.0);
}

#[tokio::test]
async fn a_client_has_so_many_misses_at_a_time_and_hits_beside_them() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &["limits.max_misses_per_client=2"]).await;
    let address = nodes[0].addresses.grpc;
    let mut client = client_from(GOOD, address).await;
    client.get(get("known")).await.expect("a value");
    origin.hold();
    let keys = ["a", "b"].map(str::to_owned);
    let mut waiting = ask(&client, keys.into_iter());
    within("both wait", async {
        while origin.loads() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = client.get(get("c")).await.expect_err("a third");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    client.get(get("known")).await.expect("a hit");
    let other = client_from(ATTACKER, address).await;
    let mut other = ask(&other, ["d".to_owned()].into_iter());
    within("another's", async {
        while origin.loads_of("d") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.release();
    for waiting in [&mut waiting, &mut other] {
        while let Some(answer) = within("an answer", waiting.join_next()).await {
            assert_eq!(answer.unwrap(), Code::Ok);
        }
    }
    client.get(get("c")).await.expect("room again");
    let name = "gaocache_client_refusals_total";
    assert_eq!(metric(&nodes[0], name, &["reason=\"misses\""]).await, 1.0);
}
