//! Reads, removals and refusals, as clients see them.

use redis::{AsyncCommands, ErrorKind, RedisResult, ServerErrorKind, Value, cmd};

use super::*;

#[tokio::test]
async fn values_are_read_and_removed_in_both_versions_of_the_protocol() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    for (version, loads) in [(2, 1), (3, 3)] {
        let mut client = redis_client(&nodes[0], version).await;
        let found: String = client.get("users:alice").await.unwrap();
        assert_eq!(found, "value of alice");
        let colons: String = client.get("users:a:b").await.unwrap();
        assert_eq!(colons, "value of a:b", "the group ends at the first colon");
        let none: Option<String> = client.get("users:missing").await.unwrap();
        assert_eq!(none, None);
        let keys = ["users:alice", "users:missing", "users:bob"];
        let many: Vec<Option<String>> = client.mget(&keys).await.unwrap();
        let expected = [Some("value of alice"), None, Some("value of bob")];
        assert_eq!(
            many.iter().map(Option::as_deref).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(origin.loads_of("alice"), loads);
        let removed: i64 = client.del(&["users:alice", "users:bob"]).await.unwrap();
        assert_eq!(removed, 2);
        let again: String = client.get("users:alice").await.unwrap();
        assert_eq!(again, "value of alice");
        assert_eq!(origin.loads_of("alice"), loads + 1);
        let removed: i64 = client.unlink("users:alice").await.unwrap();
        assert_eq!(removed, 1);
    }
    let gets = metric(
        &nodes[0],
        "gaocache_redis_commands_total",
        &["class=\"read\""],
    )
    .await;
    assert_eq!(gets, 10.0);
    let removals = metric(
        &nodes[0],
        "gaocache_redis_commands_total",
        &["class=\"remove\""],
    )
    .await;
    assert_eq!(removals, 4.0);
    let group = ["group=\"users\""];
    let requests = metric(&nodes[0], "gaocache_requests_total", &group).await;
    assert_eq!(requests, 14.0, "each key is a request of its group");
}

#[tokio::test]
async fn the_keys_of_an_mget_take_one_message_to_their_owner() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(2, &origin, &[]).await;
    let mut client = redis_client(&nodes[0], 3).await;
    let keys: Vec<String> = (0..100).map(|number| format!("users:{number}")).collect();
    for round in [1.0, 2.0] {
        let many: Vec<String> = client.mget(&keys).await.unwrap();
        for (number, value) in many.iter().enumerate() {
            assert_eq!(*value, format!("value of {number}"));
        }
        let messages = |call: &'static str| {
            let node = &nodes[0];
            async move { metric(node, "gaocache_peer_messages_total", &[call]).await }
        };
        assert_eq!(messages("fetch_many").await, round);
        assert_eq!(messages("\"fetch\"").await, 0.0);
    }
    assert_eq!(origin.loads(), 100);
}

#[tokio::test]
async fn presence_length_and_life_are_those_of_the_value_that_a_get_would_bring() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    for version in [2, 3] {
        let mut client = redis_client(&nodes[0], version).await;
        let keys = ["users:alice", "users:missing", "users:bob"];
        let present: i64 = client.exists(&keys).await.unwrap();
        assert_eq!(present, 2);
        let length: i64 = client.strlen("users:alice").await.unwrap();
        assert_eq!(length, 14);
        let seconds: i64 = cmd("TTL")
            .arg("users:alice")
            .query_async(&mut client)
            .await
            .unwrap();
        assert!((590..=600).contains(&seconds), "{seconds}");
        let millis: i64 = cmd("PTTL")
            .arg("users:alice")
            .query_async(&mut client)
            .await
            .unwrap();
        assert!((590_000..=600_000).contains(&millis), "{millis}");
        let none: i64 = cmd("TTL")
            .arg("users:missing")
            .query_async(&mut client)
            .await
            .unwrap();
        assert_eq!(none, -2);
    }
    assert_eq!(origin.loads_of("alice"), 1);
}

#[tokio::test]
async fn a_value_without_an_expiry_says_so() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &["groups.0.ttl_seconds=0"]).await;
    let mut client = redis_client(&nodes[0], 3).await;
    let seconds: i64 = cmd("TTL")
        .arg("users:alice")
        .query_async(&mut client)
        .await
        .unwrap();
    assert_eq!(seconds, -1);
}

#[tokio::test]
async fn a_removal_is_one_everywhere_before_it_is_answered() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(3, &origin, &["cache.hot_after_requests=1"]).await;
    for node in &nodes {
        let mut client = redis_client(node, 3).await;
        for _ in 0..3 {
            let found: String = client.get("users:alice").await.unwrap();
            assert_eq!(found, "value of alice");
        }
    }
    assert_eq!(origin.loads_of("alice"), 1);
    let removed: i64 = redis_client(&nodes[0], 2)
        .await
        .del("users:alice")
        .await
        .unwrap();
    assert_eq!(removed, 1);
    for node in &nodes {
        let _: String = redis_client(node, 2)
            .await
            .get("users:alice")
            .await
            .unwrap();
    }
    assert_eq!(origin.loads_of("alice"), 2);
}

/// What a command is refused with.
async fn refusal(
    client: &mut redis::aio::MultiplexedConnection,
    words: &[&str],
) -> (String, String) {
    let mut command = cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    let answer: RedisResult<Value> = command.query_async(client).await;
    let error = answer.expect_err(words[0]);
    let code = error.code().unwrap_or("none").to_owned();
    if code == "ERR" {
        assert_eq!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ResponseError)
        );
    }
    (code, error.detail().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn what_can_t_be_had_is_refused_with_the_reason() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    let mut client = redis_client(&nodes[0], 3).await;
    let long = format!("users:{}", "k".repeat(4097));
    for (words, reason) in [
        (&["GET", "users:broken"][..], "origin_failed: "),
        (&["MGET", "users:alice", "users:broken"], "origin_failed: "),
        (
            &["EXISTS", "users:alice", "users:broken"],
            "origin_failed: ",
        ),
        (
            &["GET", "strangers:alice"],
            "unknown_group: no group 'strangers'",
        ),
        (&["GET", "alice"], "group:key"),
        (&["GET", "users:"], "invalid_request: the key is empty"),
        (&["GET", &long], "invalid_request: the key has 4097 bytes"),
        (&["DEL", "alice"], "group:key"),
        (&["DEL", "strangers:alice"], "unknown_group"),
        (&["GET"], "wrong number of arguments for 'get' command"),
        (&["GET", "users:a", "users:b"], "wrong number"),
        (&["MGET"], "wrong number"),
        (
            &["SET", "users:alice", "v"],
            "gaocache is read-through: it has no command 'SET'",
        ),
        (&["EXPIRE", "users:alice", "9"], "gaocache is read-through"),
        (&["SUBSCRIBE", "x"], "gaocache is read-through"),
        (&["CLIENT", "TRACKING", "ON"], "CLIENT TRACKING is refused"),
        (&["CLIENT", "TRACKING", "ON"], "use PTTL for how long"),
        (&["CLIENT", "PAUSE", "9"], "CLIENT pause"),
        (&["SELECT", "1"], "out of range"),
    ] {
        let (code, detail) = refusal(&mut client, words).await;
        assert_eq!(code, "ERR", "{words:?}: {detail}");
        assert!(detail.contains(reason), "{words:?}: {detail}");
    }
    let mut command = cmd("GET");
    command.arg(&b"users:\xff"[..]);
    let answer: RedisResult<Value> = command.query_async(&mut client).await;
    let error = answer.expect_err("no text");
    assert!(
        error.detail().is_some_and(|it| it.contains("UTF-8")),
        "{error}"
    );
    let refused = metric(
        &nodes[0],
        "gaocache_redis_commands_total",
        &["class=\"refused\""],
    )
    .await;
    assert_eq!(refused, 3.0);
}
