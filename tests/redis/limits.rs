//! What a client may take of the listener, and what becomes of one that does not keep to it.

use std::time::Duration;

use super::*;

/// How often a connection of a Redis client was cut for this reason.
async fn cuts(node: &TestNode, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    let labels = ["listener=\"redis\"", &reason];
    metric(node, "gaocache_connection_cuts_total", &labels).await
}

/// Returns when nothing is in flight.
async fn nothing_in_flight(node: &TestNode) {
    within("nothing is in flight", async {
        while metric(node, "gaocache_in_flight_bytes", &[]).await != 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_why_and_disconnected() {
    let origin = CountingOrigin::start().await;
    let further = ["limits.max_keys_per_request=100"];
    let nodes = nodes(1, &origin, &further).await;
    let hostile: [(&[u8], &str); 9] = [
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n$-5\r\n", "invalid bulk length"),
        (b"*1\r\n$3\r\nabcde", "line break"),
        (b"*102\r\n", "limits.max_keys_per_request"),
        (
            b"*2147483647\r\n$2147483647\r\n",
            "invalid multibulk length",
        ),
        (
            b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$999999999\r\n",
            "read-through",
        ),
        (b"*99999999999999999999999999\r\n", "a number"),
        (b"*1\n", "a number"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "this is HTTP"),
    ];
    for (bytes, reason) in hostile {
        let mut raw = Raw::connect(&nodes[0]).await;
        raw.send([&command(&["PING"])[..], bytes, &[b'x'; 1_000]].concat())
            .await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("+PONG\\r\\n-ERR "), "{answer}");
        assert!(answer.contains("-ERR Protocol error: "), "{answer}");
        assert!(
            answer.contains(&reason.replace('\'', "\\'")),
            "{reason}: {answer}"
        );
    }
    let mut raw = Raw::connect(&nodes[0]).await;
    raw.send(vec![b'a'; 70_000]).await;
    let answer = raw.rest().await;
    assert!(answer.contains("too big inline request"), "{answer}");
    let counted = metric(&nodes[0], "gaocache_redis_protocol_errors_total", &[]).await;
    assert_eq!(counted, 10.0);
    let mut good = Raw::connect(&nodes[0]).await;
    let keys = vec!["users:alice"; 100];
    good.send(command(&[&["MGET"], &keys[..]].concat())).await;
    good.answers("*100\r\n").await;
    nothing_in_flight(&nodes[0]).await;
}

#[tokio::test]
async fn who_says_nothing_or_never_goes_on_is_disconnected() {
    let origin = CountingOrigin::start().await;
    let further = [
        "limits.handshake_timeout_seconds=0.2",
        "limits.read_timeout_seconds=0.2",
        "limits.idle_timeout_seconds=0.4",
        "limits.write_timeout_seconds=0.2",
    ];
    let nodes = nodes(1, &origin, &further).await;
    let mut silent = Raw::connect(&nodes[0]).await;
    assert_eq!(silent.rest().await, "");
    assert_eq!(cuts(&nodes[0], "handshake").await, 1.0);
    let mut slow = Raw::connect(&nodes[0]).await;
    slow.send("*2\r\n$3\r\nGET\r\n$11\r\nusers:").await;
    let answer = slow.rest().await;
    assert!(answer.contains("limits.read_timeout_seconds"), "{answer}");
    // Otherwise it would be idle, too.
    drop(slow);
    let mut idle = Raw::connect(&nodes[0]).await;
    idle.send("PING\r\n").await;
    assert_eq!(idle.rest().await, "+PONG\\r\\n");
    assert_eq!(cuts(&nodes[0], "idle").await, 1.0);
    // One that waits for a load is not idle.
    origin.hold();
    let mut waiting = Raw::connect(&nodes[0]).await;
    waiting.send(command(&["GET", "users:alice"])).await;
    origin.is_asked().await;
    let mut idle = Raw::connect(&nodes[0]).await;
    idle.send("PING\r\n").await;
    assert_eq!(idle.rest().await, "+PONG\\r\\n");
    origin.release();
    waiting.answers(value("value of alice")).await;
}

#[tokio::test]
async fn who_does_not_read_is_cut_and_takes_no_more_than_the_budget() {
    let origin = CountingOrigin::start().await;
    let further = ["limits.write_timeout_seconds=8", "cache.in_flight=4MiB"];
    let nodes = nodes(1, &origin, &further).await;
    let mut greedy = Vec::new();
    // Of those that come at once, some find no room, and have all their gets refused together.
    within("the room for large values is taken", async {
        while metric(&nodes[0], "gaocache_in_flight_bytes", &[]).await < 3_000_000.0 {
            let mut raw = Raw::connect(&nodes[0]).await;
            let key = format!("users:size-{}", 1_000_000 + greedy.len());
            raw.send(command(&["GET", &key]).repeat(200)).await;
            greedy.push(raw);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // Removals are heard, and a value that has no room is refused as such.
    let mut good = Raw::connect(&nodes[0]).await;
    within("a refusal", async {
        let mut number = 0;
        loop {
            number += 1;
            let key = format!("users:size-{}", 900_000 + number);
            good.send(command(&["GET", &key])).await;
            let mut first = [0];
            good.0.read_exact(&mut first).await.unwrap();
            if first == *b"-" {
                return good.answers("BUSY overloaded: the bytes in flight").await;
            }
            good = Raw::connect(&nodes[0]).await;
        }
    })
    .await;
    let mut removing = Raw::connect(&nodes[0]).await;
    removing.send(command(&["DEL", "users:alice"])).await;
    removing.answers(":1\r\n").await;
    within("those who hold values are cut", async {
        while metric(&nodes[0], "gaocache_in_flight_bytes", &[]).await > 65_536.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(cuts(&nodes[0], "stalled").await > 0.0);
    drop((good, greedy));
    nothing_in_flight(&nodes[0]).await;
    let mut good = Raw::connect(&nodes[0]).await;
    good.send(command(&["GET", "users:alice"])).await;
    good.answers(value("value of alice")).await;
}

#[tokio::test]
async fn connections_count_with_those_of_the_other_listeners() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &["limits.max_connections=2"]).await;
    let mut first = Raw::connect(&nodes[0]).await;
    first.send("PING\r\n").await;
    first.answers("+PONG\r\n").await;
    let mut second = nodes[0].client().await;
    second.get(get_request("alice")).await.expect("a place");
    let mut third = Raw::connect(&nodes[0]).await;
    assert_eq!(third.rest().await, "");
    let labels = ["listener=\"redis\"", "reason=\"total\""];
    let refused = metric(&nodes[0], "gaocache_connection_refusals_total", &labels).await;
    assert_eq!(refused, 1.0);
    let open = metric(&nodes[0], "gaocache_connections", &["listener=\"redis\""]).await;
    assert_eq!(open, 1.0);
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_was_asked() {
    let origin = CountingOrigin::start().await;
    let mut nodes = nodes(1, &origin, &[]).await;
    let mut idle = Raw::connect(&nodes[0]).await;
    idle.send("PING\r\n").await;
    idle.answers("+PONG\r\n").await;
    origin.hold();
    let mut raw = Raw::connect(&nodes[0]).await;
    raw.send([command(&["GET", "users:alice"]), command(&["PING"])].concat())
        .await;
    origin.is_asked().await;
    let node = nodes.remove(0);
    node.stop();
    assert_eq!(idle.rest().await, "", "the listeners are closed");
    origin.release();
    raw.answers(value("value of alice") + "+PONG\r\n").await;
    assert_eq!(raw.rest().await, "");
    tokio::time::timeout(Duration::from_secs(20), node.stopped())
        .await
        .expect("it stops");
}
