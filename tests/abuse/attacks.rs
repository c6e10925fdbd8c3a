//! What attackers do, each for as long as it takes.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    attack::{Attack, attack},
    connections::{again, hold, pour},
    http2,
    target::Target,
    wire::*,
};

const TLS: &[&str] = &[
    "http.tls.cert=FOLDER/server.pem",
    "http.tls.key=FOLDER/server.key",
];
const FIFO_GROUP: &str = "groups=[{ name = \"users\", ttl_seconds = 600, origin = { kind = \"http\", url = \"ORIGIN\" } }, { name = \"files\", origin = { kind = \"file\", path = \"FOLDER/files\" } }]";

/// All of them.
pub fn all() -> Vec<Attack> {
    let others = [
        attack("PUT /log with a filter of regexes", |it| {
            Box::pin(log_filter(it))
        }),
        Attack {
            connections: 10_000,
            ..attack("10,000 idle connections", |it| Box::pin(idle(it)))
        },
        attack("6,000 scrapes", |it| Box::pin(scrapes(it))),
        attack("log injection", |it| Box::pin(log_injection(it))),
        attack("DNS rebinding (Host)", |it| Box::pin(rebinding(it))),
        attack("slow heads of HTTP/1", |it| Box::pin(slow_heads(it))),
        attack("a FIFO in a file origin", |it| Box::pin(fifo(it))).with(&[FIFO_GROUP]),
        attack("TLS: garbage", |it| Box::pin(tls_garbage(it))).with(TLS),
        attack("TLS: 9,000 unfinished handshakes", |it| {
            Box::pin(unfinished(it))
        })
        .with(TLS),
        attack("junk at all listeners", |it| Box::pin(junk(it))),
        attack("strangers at the peer port", |it| Box::pin(strangers(it))),
        Attack {
            descriptors: Some(256),
            ..attack("out of descriptors", |it| Box::pin(descriptors(it)))
        },
    ];
    let mut all = http2::all();
    all.extend(redis());
    all.extend(others);
    all
}

/// Those on the listener for Redis clients.
fn redis() -> [Attack; 5] {
    [
        attack("Redis: pipelines byte by byte", |it| {
            Box::pin(slow_pipelines(it))
        }),
        attack("Redis: bulks of 512 MB announced", |it| {
            Box::pin(redis_flood(it, b"*2\r\n$3\r\nGET\r\n$536870912\r\n"))
        }),
        attack("Redis: deep arrays", |it| {
            Box::pin(redis_flood(it, b"*1\r\n*1\r\n*1\r\n*1\r\n"))
        }),
        attack("Redis: arrays of 2^31 announced", |it| {
            Box::pin(redis_flood(it, b"*2147483647\r\n"))
        }),
        attack("Redis: AUTH by brute force", |it| {
            Box::pin(redis_flood(it, b"AUTH guess\r\nDEL users:k1\r\n"))
        }),
    ]
}

async fn log_filter(target: Arc<Target>) {
    let filter = (0..12).map(|n| format!("a[{{x=(a|b|c|d|e|f|g){{{n},999}}}}]=info"));
    let filter = filter.collect::<Vec<_>>().join(",");
    let request = format!(
        "PUT /log HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{filter}",
        filter.len()
    );
    let port = target.node.admin;
    again(4, move |_| {
        let request = request.clone();
        async move { drop(ask(port, request.as_bytes()).await) }
    })
    .await;
}

async fn idle(target: Arc<Target>) {
    hold(target.node.grpc, 10_000, 12, greeting()).await;
}

async fn scrapes(target: Arc<Target>) {
    let port = target.node.admin;
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    again(50, move |number| async move {
        let scraped = async {
            if let Some(mut stream) = open(port, number, request).await {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        };
        let _ = timeout(Duration::from_secs(5), scraped).await;
    })
    .await;
}

async fn log_injection(target: Arc<Target>) {
    let port = target.node.http;
    again(4, move |_| async move {
        let group = "x%0a2026-01-01T00:00:00Z%20ERROR%20FORGED%1b%5b2J";
        let request = format!("GET /v1/{group}/k HTTP/1.1\r\nhost: localhost\r\n\r\n");
        ask(port, request.as_bytes()).await;
    })
    .await;
}

async fn rebinding(target: Arc<Target>) {
    let ports = [target.node.http, target.node.admin];
    again(4, move |number| async move {
        for (port, path) in ports.into_iter().zip(["/v1/users/k1", "/config"]) {
            let request = format!("GET {path} HTTP/1.1\r\nhost: evil{number}.test\r\n\r\n");
            let answer = ask(port, request.as_bytes()).await;
            let refused = answer.is_empty() || answer.starts_with(b"HTTP/1.1 421");
            assert!(refused, "answered for a host that is not its own");
        }
    })
    .await;
}

async fn slow_heads(target: Arc<Target>) {
    let port = target.node.http;
    again(500, move |number| async move {
        let begin = b"GET /v1/users/k1 HTTP/1.1\r\nx: ";
        let Some(mut stream) = open(port, number % 2, begin).await else {
            return sleep(Duration::from_millis(100)).await;
        };
        while stream.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
}

async fn fifo(target: Arc<Target>) {
    let port = target.node.http;
    again(100, move |number| async move {
        let request = format!("GET /v1/files/{number}.fifo HTTP/1.1\r\nhost: localhost\r\n\r\n");
        ask(port, request.as_bytes()).await;
        sleep(Duration::from_millis(20)).await;
    })
    .await;
}

async fn slow_pipelines(target: Arc<Target>) {
    let port = target.redis;
    again(500, move |number| async move {
        let Some(mut stream) = open(port, number % 2, b"*2\r\n").await else {
            return sleep(Duration::from_millis(100)).await;
        };
        for byte in b"$3\r\nGET\r\n$8\r\nusers:k1\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

async fn redis_flood(target: Arc<Target>, bytes: &'static [u8]) {
    let (port, many): (_, Arc<[u8]>) = (target.redis, bytes.repeat(200).into());
    again(8, move |number| {
        let many = many.clone();
        async move {
            if let Some(stream) = connect(port, number).await {
                pour(stream, &many).await;
            }
        }
    })
    .await;
}

async fn tls_garbage(target: Arc<Target>) {
    let port = target.node.http;
    again(16, move |number| async move {
        let mut garbage = vec![22, 3, 1, 0x3f, 0xff];
        garbage.extend((0..20_000).map(|_| fastrand::u8(..)));
        if number % 2 == 0 {
            // A record of a handshake whose first message is a `ClientHello`, and then anything.
            garbage[5] = 1;
            garbage[6] = 0;
        }
        if let Some(mut stream) = open(port, number, &garbage).await {
            let mut answer = [0; 64];
            let read = stream.read(&mut answer);
            let _ = timeout(Duration::from_secs(1), read).await;
        }
    })
    .await;
}

/// The first flight of a client.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

async fn unfinished(target: Arc<Target>) {
    hold(target.node.http, 9_000, 12, client_hello()).await;
}

async fn strangers(target: Arc<Target>) {
    hold(target.node.peer, 2_000, 8, client_hello()).await;
}

/// What no client sends: random bytes, random frames, odd heads.
async fn junk(target: Arc<Target>) {
    let node = &target.node;
    let ports = [node.grpc, node.http, node.admin, node.peer, target.redis];
    again(20, move |number| async move {
        let port = ports[number % ports.len()];
        let random = |most| {
            let length = fastrand::usize(1..most);
            (0..length).map(|_| fastrand::u8(..)).collect::<Vec<u8>>()
        };
        let frames = || {
            let one = |_| frame(fastrand::u8(..14), fastrand::u8(..), fastrand::u32(..9), &random(99));
            (0..40).flat_map(one).collect::<Vec<u8>>()
        };
        let bytes = match fastrand::u8(..8) {
            0 => random(3_000),
            1 => [PREFACE, &random(3_000)].concat(),
            2 => [greeting(), frames()].concat(),
            3 => [greeting(), get_call(1, "k1"), frames()].concat(),
            4 => [&b"GET /"[..], &random(500), b" HTTP/1.1\r\nhost: localhost\r\n\r\n"].concat(),
            5 => b"GET /v1/users/k1 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx".to_vec(),
            6 => [&b"*3\r\n$3\r\nGET\r\n$"[..], &random(40), b"\r\n*-1\r\n*1\r\n$-5\r\n"].concat(),
            _ => [greeting(), frame(HEADERS, END_HEADERS, 1, &random(400))].concat(),
        };
        if let Some(mut stream) = open(port, number, &bytes).await {
            let mut answer = [0; 1024];
            let _ = timeout(Duration::from_millis(20), stream.read(&mut answer)).await;
        }
    })
    .await;
}

async fn descriptors(target: Arc<Target>) {
    hold(target.node.grpc, 400, 40, greeting()).await;
}
