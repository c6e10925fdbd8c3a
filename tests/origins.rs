//! Origins that misbehave on the socket: each gives the right error, and the node and its other
//! keys go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

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
    let answer: Vec<u8> = if says("hangs") {
        std::future::pending().await
    } else if says("headers-then-hangs") {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nval")
            .await;
        std::future::pending().await
    } else if says("resets") {
        // Closing with unread data pending resets the connection.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
        return;
    } else if says("short") {
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort".to_vec()
    } else if says("large") {
        let mut body = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
        body.resize(body.len() + 2 * (1 << 20), b'x');
        body
    } else if says("announces-large") {
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()
    } else if says("fails") {
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .to_vec()
    } else if says("redirects") {
        b"HTTP/1.1 302 Found\r\nlocation: /value\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .to_vec()
    } else if says("garbage") {
        b"\x00\x01\x02 this is no HTTP\r\n\r\n".to_vec()
    } else if says("recovers") && tries.load(Ordering::SeqCst) < 3 {
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .to_vec()
    } else if says("no-store") {
        b"HTTP/1.1 200 OK\r\ncache-control: no-store\r\ncontent-length: 5\r\nconnection: close\r\n\r\nvalue".to_vec()
    } else if says("max-age") {
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=30\r\ncontent-length: 5\r\nconnection: close\r\n\r\nvalue".to_vec()
    } else {
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nvalue".to_vec()
    };
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
    // Read to the end, so that closing does not reset what was sent.
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
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
    let groups = format!(
        "groups=[{{ name = \"users\", ttl_seconds = 600, max_value = \"1MiB\", origin = {{ kind = \"http\", url = \"http://{address}/{{key}}\", timeout_seconds = 0.3, retries = 2, honour_cache_control = {honour} }} }}]"
    );
    let mut nodes = cluster(1, "http://unused/{key}", &[&groups]).await;
    nodes.pop().unwrap()
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
        ("redirects", 502, "origin_failed", 3),
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
