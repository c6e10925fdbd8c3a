//! Origins that misbehave on the socket: each gives the right error, and the node and its other
//! keys go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod connections;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::*;
use gaocache_testing::NamedPipe;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// For how long an origin that is slow says nothing.
const SLOW: Duration = Duration::from_millis(60);

/// What the origin does with a connection, by the first word of the key.
async fn misbehave(mut stream: TcpStream, tries: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    tries.fetch_add(1, Ordering::SeqCst);
    let request = String::from_utf8_lossy(&request).into_owned();
    let says = |behaviour: &str| request.starts_with(&format!("GET /{behaviour}"));
    if says("hangs") {
        std::future::pending::<()>().await;
    }
    if says("headers-then-hangs") {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nval")
            .await;
        std::future::pending::<()>().await;
    }
    if says("resets") {
        // Closing with unread data pending resets the connection.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        return;
    }
    if says("slow") {
        tokio::time::sleep(SLOW).await;
    }
    let answer = answer(&request, tries.load(Ordering::SeqCst));
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
    // Read to the end, so that closing does not reset what was sent.
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

/// What it answers to the request; `tries` counts it.
fn answer(request: &str, tries: usize) -> Vec<u8> {
    const HEALTHY: &str = "200 OK";
    let says = |behaviour: &str| request.starts_with(&format!("GET /{behaviour}"));
    let value = |headers| whole(HEALTHY, headers, "value");
    if says("short") {
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort".to_vec()
    } else if says("large") {
        let mut body = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        body.resize(body.len() + 2 * (1 << 20), b'x');
        body
    } else if says("announces-large") {
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()
    } else if says("garbage") {
        b"\x00\x01\x02 this is no HTTP\r\n\r\n".to_vec()
    } else if says("fails") {
        whole("500 Internal Server Error", "", "")
    } else if says("redirects") {
        whole("302 Found", "location: /value\r\n", "")
    } else if let Some(status) = asked_status(request) {
        let after = request.split_once("?after=").map(|(_, rest)| rest);
        let after = after.and_then(|rest| rest.split([' ', '&']).next());
        let after = after.map_or(String::new(), |it| format!("retry-after: {it}\r\n"));
        whole(&format!("{status} X"), &after, "")
    } else if says("recovers") && tries < 3 {
        whole("503 Service Unavailable", "", "")
    } else if says("no-store") {
        value("cache-control: no-store\r\n")
    } else if says("aged") {
        value("cache-control: max-age=600, max-age=300\r\nage: 290\r\nvary: accept-encoding\r\n")
    } else if says("varies") {
        value("cache-control: max-age=30\r\nvary: cookie\r\n")
    } else if says("max-age") {
        value("cache-control: max-age=30\r\n")
    } else {
        value("")
    }
}

/// An answer with nothing wrong about its form.
fn whole(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// `/status-503` wants that status, and `/status-503?after=1` with that `Retry-After`.
fn asked_status(request: &str) -> Option<u16> {
    let status = request.strip_prefix("GET /status-")?.get(..3)?;
    status.parse().ok()
}

async fn origin() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(misbehave(stream, counted.clone()));
        }
    });
    (address, tries)
}

async fn node(address: SocketAddr, honour: bool) -> TestNode {
    let origin = format!("retries = 2, honour_cache_control = {honour}");
    node_of(address, "", &origin).await
}

/// A node whose group and origin have these further settings.
async fn node_of(address: SocketAddr, group: &str, origin: &str) -> TestNode {
    one_group(&format!(
        "ttl_seconds = 600, {group} origin = {{ kind = \"http\", url = \"http://{address}/{{key}}\", timeout_seconds = 0.3, {origin} }}"
    ))
    .await
}

async fn one_group(settings: &str) -> TestNode {
    let groups = format!("groups=[{{ name = \"users\", max_value = \"1MiB\", {settings} }}]");
    let mut nodes = cluster(1, "http://unused/{key}", &[&groups]).await;
    nodes.pop().unwrap()
}

/// The status, the kind of error and `Retry-After` of a get.
async fn outcome(node: &TestNode, key: &str) -> (u16, String, String) {
    let path = node.http(&format!("/v1/users/{key}"));
    let answer = within(key, http().get(path).send()).await.unwrap();
    let header = |name: &str| match answer.headers().get(name) {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => String::new(),
    };
    let status = answer.status().as_u16();
    (status, header("gaocache-error"), header("retry-after"))
}

#[tokio::test]
async fn each_way_to_misbehave_has_its_error_and_the_node_goes_on() {
    let (address, tries) = origin().await;
    let node = node(address, false).await;
    for (key, status, kind, attempts) in [
        ("hangs", 504, "origin_timeout", 1),
        ("headers-then-hangs", 504, "origin_timeout", 1),
        ("resets", 502, "origin_failed", 3),
        ("short", 502, "origin_failed", 3),
        ("large", 502, "value_too_large", 1),
        ("announces-large", 502, "value_too_large", 1),
        ("fails", 502, "origin_failed", 3),
        ("redirects", 502, "origin_failed", 1),
        ("status-204", 502, "origin_failed", 1),
        ("status-206", 502, "origin_failed", 1),
        ("status-304", 502, "origin_failed", 1),
        ("status-401", 502, "origin_failed", 1),
        ("status-403", 502, "origin_failed", 1),
        ("status-404", 404, "not_found", 1),
        ("status-410", 404, "not_found", 1),
        ("status-429", 502, "origin_failed", 1),
        ("status-501", 502, "origin_failed", 3),
        ("status-503", 502, "origin_failed", 3),
        ("garbage", 502, "origin_failed", 3),
    ] {
        tries.store(0, Ordering::SeqCst);
        let path = node.http(&format!("/v1/users/{key}"));
        let answer = within(key, http().get(path).send()).await.unwrap();
        assert_eq!(answer.status(), status, "{key}");
        assert_eq!(answer.headers()["gaocache-error"], kind, "{key}");
        assert_eq!(tries.load(Ordering::SeqCst), attempts, "{key}");
        let counted = metric(&node, "gaocache_origin_loads_total", &[kind]).await;
        assert!(counted >= 1.0, "{key}");
        let good = http()
            .get(node.http("/v1/users/value"))
            .send()
            .await
            .unwrap();
        assert_eq!(good.text().await.unwrap(), "value", "after {key}");
    }
}

#[tokio::test]
async fn an_origin_that_recovers_within_the_retries_is_no_error() {
    let (address, tries) = origin().await;
    let node = node(address, false).await;
    let answer = http()
        .get(node.http("/v1/users/recovers"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), tries.load(Ordering::SeqCst)),
        (200, 3)
    );
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_an_error_that_says_so() {
    let node = node("127.0.0.1:1".parse().unwrap(), false).await;
    let answer = http().get(node.http("/v1/users/k")).send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.headers()["retry-after"], "1");
    let text = answer.text().await.unwrap();
    assert!(text.contains("can't be reached"), "{text}");
}

#[tokio::test]
async fn cache_control_counts_when_the_group_says_so_and_only_then() {
    let (address, tries) = origin().await;
    for (honour, max_age, loads_of_no_store) in [(true, 30, 2), (false, 600, 1)] {
        let node = node(address, honour).await;
        let answer = http()
            .get(node.http("/v1/users/max-age"))
            .send()
            .await
            .unwrap();
        let control = answer.headers()["cache-control"]
            .to_str()
            .unwrap()
            .to_owned();
        let left: u64 = control.strip_prefix("max-age=").unwrap().parse().unwrap();
        assert!(left <= max_age && left + 5 > max_age, "{control}");
        tries.store(0, Ordering::SeqCst);
        for _ in 0..2 {
            let answer = http()
                .get(node.http("/v1/users/no-store"))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.text().await.unwrap(), "value");
        }
        assert_eq!(tries.load(Ordering::SeqCst), loads_of_no_store);
    }
}

/// The origin's pause is in its URL.
#[tokio::test]
async fn an_origin_that_asks_for_a_pause_is_given_it_and_the_client_hears_of_it() {
    let (address, tries) = origin().await;
    for (status, after, attempts, told) in [
        (429, "0", 3, "1"),
        (503, "0", 3, "1"),
        (429, "100", 1, "100"),
        (503, "100", 1, "100"),
        (500, "100", 3, "1"),
    ] {
        let node = one_group(&format!(
            "origin = {{ kind = \"http\", url = \"http://{address}/status-{status}?after={after}&key={{key}}\" }}"
        ))
        .await;
        tries.store(0, Ordering::SeqCst);
        let wanted = (502, "origin_failed".into(), told.into());
        assert_eq!(outcome(&node, "k").await, wanted, "{status} {after}");
        assert_eq!(tries.load(Ordering::SeqCst), attempts, "{status} {after}");
    }
}

#[tokio::test]
async fn a_failure_is_remembered_if_the_group_says_so() {
    let (address, tries) = origin().await;
    for (group, attempts) in [("", 3), ("error_ttl_seconds = 60,", 1)] {
        let node = node_of(address, group, "retries = 0").await;
        tries.store(0, Ordering::SeqCst);
        let mut told = Vec::new();
        for _ in 0..3 {
            let (status, kind, after) = outcome(&node, "fails").await;
            assert_eq!((status, kind.as_str()), (502, "origin_failed"));
            told.push(after.parse::<u64>().unwrap());
        }
        // The first answer already says when a retry may help.
        let remembered = attempts == 1;
        let fits = |after: &u64| (30..=60).contains(after) == remembered;
        assert!(told.iter().all(fits), "{told:?}");
        assert_eq!(tries.load(Ordering::SeqCst), attempts, "{group}");
        assert_eq!(outcome(&node, "value").await.0, 200);
    }
}

const BREAKER: &str = "retries = 0, breaker_failure_ratio = 0.5, breaker_min_loads = 4";

#[tokio::test]
async fn a_dead_origin_is_left_alone_and_the_metrics_say_so() {
    let (address, tries) = origin().await;
    let breaker = format!("{BREAKER}, breaker_open_seconds = 3600");
    let node = node_of(address, "", &breaker).await;
    let state = async || metric(&node, "gaocache_origin_breaker_state", &["users"]).await;
    for key in ["value", "status-500", "status-404", "status-501"] {
        assert_eq!(state().await, 0.0, "{key}");
        assert_ne!(outcome(&node, key).await.1, "breaker_open", "{key}");
    }
    assert_eq!(state().await, 2.0, "two of four failed");
    let asked = tries.load(Ordering::SeqCst);
    for key in ["status-500", "another"] {
        let (status, kind, after) = outcome(&node, key).await;
        assert_eq!((status, kind.as_str()), (503, "breaker_open"));
        let after: u64 = after.parse().unwrap();
        assert!((3000..=3600).contains(&after), "{after}");
    }
    assert_eq!(outcome(&node, "value").await.0, 200, "from memory");
    assert_eq!(tries.load(Ordering::SeqCst), asked);
    let refused = metric(&node, "gaocache_origin_breaker_refusals_total", &["users"]).await;
    assert_eq!(refused, 2.0);
    let loads = metric(&node, "gaocache_origin_loads_total", &["users"]).await;
    assert_eq!(loads, 4.0, "what is refused is no load");
}

#[tokio::test]
async fn an_origin_that_comes_back_is_asked_again() {
    let (address, _) = origin().await;
    let breaker = format!("{BREAKER}, breaker_open_seconds = 0.01");
    let node = node_of(address, "", &breaker).await;
    for _ in 0..4 {
        outcome(&node, "fails").await;
    }
    within("recovery", async {
        while outcome(&node, "value").await.0 != 200 {}
    })
    .await;
    let state = metric(&node, "gaocache_origin_breaker_state", &["users"]).await;
    assert_eq!(state, 0.0);
    assert_eq!(outcome(&node, "another").await.0, 200);
}

/// A named pipe without a writer.
#[cfg(unix)]
#[tokio::test]
async fn a_named_pipe_in_a_directory_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let _pipe = NamedPipe::at(&folder.path().join("pipe"));
    std::fs::write(folder.path().join("good"), "value").unwrap();
    let node = one_group(&format!(
        "origin = {{ kind = \"file\", path = \"{}\", max_concurrency = 1, timeout_seconds = 3600 }}",
        folder.path().display()
    ))
    .await;
    for _ in 0..3 {
        assert_eq!(outcome(&node, "pipe").await.0, 404);
    }
    assert_eq!(outcome(&node, "good").await.0, 200);
}

#[tokio::test]
async fn a_response_that_is_old_or_depends_on_who_asks_is_kept_accordingly() {
    let (address, tries) = origin().await;
    for (honour, most, loads_of_varies) in [(true, 10, 2), (false, 600, 1)] {
        let node = node(address, honour).await;
        let mut client = node.client().await;
        let answer = client.get(get_request("aged")).await.unwrap().into_inner();
        let left = answer.ttl_remaining_ms.unwrap();
        assert!(left <= most * 1000, "{left}");
        tries.store(0, Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(outcome(&node, "varies").await.0, 200);
        }
        assert_eq!(tries.load(Ordering::SeqCst), loads_of_varies, "{honour}");
    }
}

#[tokio::test]
async fn a_value_that_comes_later_than_its_life_lasts_is_answered_and_not_kept() {
    let (address, tries) = origin().await;
    let life = SLOW.as_secs_f64() / 2.0;
    let node = node_of(address, &format!("max_ttl_seconds = {life},"), "").await;
    for loads in 1..=3 {
        let (status, _, _) = outcome(&node, "slow").await;
        assert_eq!(status, 200);
        assert_eq!(tries.load(Ordering::SeqCst), loads);
    }
}
