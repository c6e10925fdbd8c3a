//! What attackers do, each for as long as it takes.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    target::{MIB, Target},
    wire::*,
};

/// One attack.
pub struct Attack {
    pub name: &'static str,
    /// Of the node. `FOLDER` and `ORIGIN` stand for where its files and its origin are.
    pub settings: &'static [&'static str],
    /// So many files the node may open; `None`: as many as this process.
    pub descriptors: Option<u32>,
    /// How long the origin takes.
    pub origin_takes: Duration,
    /// Connections that count beside the usual bound on memory.
    pub connections: u64,
    pub run: Run,
}

/// Goes on until it is dropped.
type Run = fn(Arc<Target>) -> BoxFuture<'static, ()>;

const fn attack(name: &'static str, run: Run) -> Attack {
    Attack {
        name,
        settings: &[],
        descriptors: None,
        origin_takes: Duration::ZERO,
        connections: 0,
        run,
    }
}

const TLS: &[&str] = &[
    "http.tls.cert=FOLDER/server.pem",
    "http.tls.key=FOLDER/server.key",
];
const SLOW_GROUP: &str = "groups=[{ name = \"users\", ttl_seconds = 600, origin = { kind = \"http\", url = \"ORIGIN\", timeout_seconds = 5, max_concurrency = 4 } }]";
const FIFO_GROUP: &str = "groups=[{ name = \"users\", ttl_seconds = 600, origin = { kind = \"http\", url = \"ORIGIN\" } }, { name = \"files\", origin = { kind = \"file\", path = \"FOLDER/files\" } }]";

/// All of them.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn all() -> Vec<Attack> {
    let with = |settings, attack| Attack { settings, ..attack };
    let slow = |attack| Attack {
        settings: &[SLOW_GROUP],
        origin_takes: Duration::from_millis(20),
        ..attack
    };
    vec![
        attack("PUT /log with a filter of regexes", |it| {
            Box::pin(log_filter(it))
        }),
        with(
            &["peer.insecure=true"],
            attack("handoff of 9 MB in tiny entries", |it| {
                Box::pin(giant_handoff(it))
            }),
        ),
        attack("GetMany of 4 MB of empty keys", |it| {
            Box::pin(empty_keys(it))
        }),
        attack("250 readers of 1 MiB that don't read", |it| {
            Box::pin(no_readers(it))
        }),
        Attack {
            connections: 10_000,
            ..attack("10,000 idle connections", |it| Box::pin(idle(it)))
        },
        attack("2,000 half prefaces", |it| Box::pin(half_prefaces(it))),
        attack("20,000 streams without an end", |it| {
            Box::pin(silent_streams(it))
        }),
        attack("flood of PING", |it| {
            Box::pin(flood(it, frame(PING, 0, 0, &[7; 8])))
        }),
        attack("flood of SETTINGS", |it| {
            Box::pin(flood(it, frame(SETTINGS, 0, 0, &[])))
        }),
        attack("flood of PRIORITY", |it| {
            Box::pin(flood(it, frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])))
        }),
        attack("flood of WINDOW_UPDATE", |it| {
            Box::pin(flood(it, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])))
        }),
        attack("flood of empty DATA", |it| {
            Box::pin(flood(it, frame(DATA, 0, 1, &[])))
        }),
        attack("rapid resets", |it| Box::pin(rapid_resets(it))),
        attack("CONTINUATION without an end", |it| {
            Box::pin(continuations(it))
        }),
        attack("6,000 scrapes", |it| Box::pin(scrapes(it))),
        attack("log injection", |it| Box::pin(log_injection(it))),
        attack("DNS rebinding (Host)", |it| Box::pin(rebinding(it))),
        attack("slow heads of HTTP/1", |it| Box::pin(slow_heads(it))),
        slow(attack("queue filled by clients that hang up", |it| {
            Box::pin(hang_up(it))
        })),
        slow(attack("10,000 missing keys of one client", |it| {
            Box::pin(missing_keys(it))
        })),
        with(
            &[FIFO_GROUP],
            attack("a FIFO in a file origin", |it| Box::pin(fifo(it))),
        ),
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
        with(TLS, attack("TLS: garbage", |it| Box::pin(tls_garbage(it)))),
        with(
            TLS,
            attack("TLS: 9,000 unfinished handshakes", |it| {
                Box::pin(unfinished(it))
            }),
        ),
        attack("junk at all listeners", |it| Box::pin(junk(it))),
        attack("strangers at the peer port", |it| Box::pin(strangers(it))),
        Attack {
            descriptors: Some(256),
            ..attack("out of descriptors", |it| Box::pin(descriptors(it)))
        },
    ]
}

/// Does something again and again, side by side, until it is dropped.
async fn again<F>(at_once: usize, work: impl Fn(usize) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let mut tasks = JoinSet::new();
    for number in 0..at_once {
        let work = work.clone();
        tasks.spawn(async move {
            loop {
                work(number).await;
                // Who is refused at once still lets others have the processor.
                tokio::task::yield_now().await;
            }
        });
    }
    tasks.join_all().await;
}

/// Keeps connections open that have sent this; those that are cut are opened anew.
async fn hold(port: u16, count: usize, addresses: usize, bytes: Vec<u8>) {
    let bytes: Arc<[u8]> = bytes.into();
    again(count, move |number| {
        let bytes = bytes.clone();
        async move {
            let Some(mut stream) = open(port, number % addresses, &bytes).await else {
                return sleep(Duration::from_millis(100)).await;
            };
            let mut scrap = [0; 1024];
            while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
        }
    })
    .await;
}

/// Sends this without a pause for as long as the node takes it, and reads what it answers.
async fn pour(mut stream: TcpStream, bytes: &[u8]) {
    let (mut from, mut to) = stream.split();
    let mut scrap = vec![0; 16_384];
    let reads = async { while matches!(from.read(&mut scrap).await, Ok(1..)) {} };
    let writes = async { while to.write_all(bytes).await.is_ok() {} };
    tokio::select! {
        () = reads => {}
        () = writes => {}
    }
}

async fn flood(target: Arc<Target>, one: Vec<u8>) {
    let (port, many): (_, Arc<[u8]>) = (target.node.grpc, one.repeat(512).into());
    again(4, move |number| {
        let many = many.clone();
        async move {
            if let Some(stream) = open(port, number, &greeting()).await {
                pour(stream, &many).await;
            }
        }
    })
    .await;
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

/// Sends a call with this body, and waits for the begin of its answer.
async fn call(port: u16, path: &str, body: &[u8]) {
    let headers = frame(HEADERS, END_HEADERS, 1, &grpc_headers(path));
    let bytes = [greeting(), headers, data(1, &message(body))].concat();
    let sent = async {
        // What is refused early is not taken in whole.
        if let Some(mut stream) = open(port, 0, &bytes).await {
            let _ = stream.read(&mut [0; 1024]).await;
        }
    };
    let _ = timeout(Duration::from_secs(5), sent).await;
}

async fn giant_handoff(target: Arc<Target>) {
    // An entry of no content is two bytes.
    let batch: Arc<[u8]> = [0x1a, 0].repeat(4_650_000).into();
    let port = target.node.peer;
    again(2, move |_| {
        let batch = batch.clone();
        async move { call(port, "/gaocache.v1.Peer/Handoff", &batch).await }
    })
    .await;
}

async fn empty_keys(target: Arc<Target>) {
    let keys = [b"\n\x05users".to_vec(), [0x12, 0].repeat(2_000_000)].concat();
    let (port, keys): (_, Arc<[u8]>) = (target.node.grpc, keys.into());
    again(4, move |_| {
        let keys = keys.clone();
        async move { call(port, "/gaocache.v1.Cache/GetMany", &keys).await }
    })
    .await;
}

async fn no_readers(target: Arc<Target>) {
    let port = target.node.grpc;
    again(25, move |number| async move {
        let mut bytes = greeting_with_wide_windows();
        for stream in 0..10 {
            bytes.extend(get_call(
                1 + 2 * stream,
                &format!("size-{}", MIB - number as u64),
            ));
        }
        if let Some(stream) = open(port, number, &bytes).await {
            // Until it is cut.
            let _ = stream.ready(tokio::io::Interest::ERROR).await;
        }
    })
    .await;
}

async fn idle(target: Arc<Target>) {
    hold(target.node.grpc, 10_000, 12, greeting()).await;
}

async fn half_prefaces(target: Arc<Target>) {
    hold(target.node.grpc, 2_000, 3, PREFACE[..12].to_vec()).await;
}

async fn silent_streams(target: Arc<Target>) {
    let headers = grpc_headers("/gaocache.v1.Cache/Get");
    let begin = |number: u32| frame(HEADERS, END_HEADERS, 1 + 2 * number, &headers);
    let streams: Vec<u8> = (0..1_000).flat_map(begin).collect();
    hold(target.node.grpc, 20, 20, [greeting(), streams].concat()).await;
}

async fn rapid_resets(target: Arc<Target>) {
    let port = target.node.grpc;
    again(4, move |number| async move {
        let Some(mut stream) = open(port, number, &greeting()).await else {
            return;
        };
        let headers = grpc_headers("/gaocache.v1.Cache/Get");
        for first in (0..u32::MAX / 4).step_by(100) {
            let mut bytes = BytesMut::new();
            for number in first..first + 100 {
                let id = 1 + 2 * number;
                bytes.extend(frame(HEADERS, END_HEADERS, id, &headers));
                bytes.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
            }
            if stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    })
    .await;
}

async fn continuations(target: Arc<Target>) {
    let port = target.node.grpc;
    again(4, move |number| async move {
        let begin = [greeting(), frame(HEADERS, 0, 1, &[0x83, 0x86])].concat();
        // A literal that is never indexed, a kilobyte of it a frame.
        let header = [&[0x10, 1, b'x', 0x7f, 0x81, 7][..], &[b'a'; 1024]].concat();
        if let Some(stream) = open(port, number, &begin).await {
            pour(stream, &frame(CONTINUATION, 0, 1, &header)).await;
        }
    })
    .await;
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

async fn hang_up(target: Arc<Target>) {
    let port = target.node.grpc;
    again(8, move |number| async move {
        let mut bytes = greeting();
        for stream in 0..500 {
            let key = format!("gone-{}", fastrand::u32(..));
            bytes.extend(get_call(1 + 2 * stream, &key));
        }
        drop(open(port, number % 2, &bytes).await);
        sleep(Duration::from_millis(20)).await;
    })
    .await;
}

async fn missing_keys(target: Arc<Target>) {
    let port = target.node.grpc;
    again(10, move |_| async move {
        let mut bytes = greeting_with_wide_windows();
        for stream in 0..1_000 {
            let key = format!("more-{}", fastrand::u32(..));
            bytes.extend(get_call(1 + 2 * stream, &key));
        }
        let Some(mut stream) = open(port, 0, &bytes).await else {
            return;
        };
        let mut scrap = vec![0; 16_384];
        let reads = async { while matches!(stream.read(&mut scrap).await, Ok(1..)) {} };
        let _ = timeout(Duration::from_secs(2), reads).await;
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
