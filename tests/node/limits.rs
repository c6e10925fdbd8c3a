//! What a client may take of a node: connections, time, frames, keys.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use gaocache::internal::wire;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, body::Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::common::{get_request as get, *};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Sends these bytes, and reads until the node hangs up.
async fn hung_up(address: SocketAddr, bytes: &'static [u8]) {
    let ended = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        // An end and a reset are the same to this client.
        stream.set_read_timeout(Some(LONG)).unwrap();
        let end = stream.read_to_end(&mut Vec::new());
        let late = end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!late, "the node doesn't hang up");
    });
    within("the node hangs up", ended).await.unwrap();
}

/// How often connections of clients were cut for this reason.
async fn cuts(node: &TestNode, reason: &str) -> f64 {
    let mut count = 0.0;
    for listener in ["grpc", "http", "peer"] {
        let listener = format!("listener=\"{listener}\"");
        count += metric(node, "gaocache_connection_cuts_total", &[&listener, reason]).await;
    }
    count
}

#[tokio::test]
async fn who_does_not_greet_is_cut() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &["limits.handshake_timeout_seconds=0.2"]).await;
    let Addresses {
        grpc,
        peer,
        http,
        admin,
        redis: _,
    } = nodes[0].addresses;
    hung_up(grpc, b"").await;
    hung_up(grpc, &PREFACE[..12]).await;
    hung_up(grpc, PREFACE).await;
    hung_up(peer, b"").await;
    hung_up(http, b"").await;
    hung_up(http, &PREFACE[..12]).await;
    hung_up(http, b"GET /v1/users/alice HTTP/1.1\r\nhost").await;
    assert_eq!(
        cuts(&nodes[0], "handshake").await,
        6.0,
        "one was cut by hyper"
    );
    hung_up(admin, b"").await;
    let mut client = nodes[0].client().await;
    client.get(get("alice")).await.expect("others are served");
}

#[tokio::test]
async fn connections_that_ask_nothing_do_not_keep_probes_out() {
    let origin = CountingOrigin::start().await;
    let further = ["limits.max_admin_connections=3"];
    let nodes = cluster(1, &origin.url(), &further).await;
    let admin = nodes[0].addresses.admin;
    let silent = async |last: u8| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let from = SocketAddr::from(([127, 0, 0, last], 0));
        socket.bind(from).unwrap();
        socket.connect(admin).await.unwrap()
    };
    let _held = [silent(2).await, silent(3).await, silent(4).await];
    let ready = http().get(nodes[0].admin("/readyz"));
    let ready = ready.send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let cut = ["listener=\"admin\"", "displaced"];
    let cuts = metric(&nodes[0], "gaocache_connection_cuts_total", &cut).await;
    assert!(cuts >= 1.0, "{cuts}");
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_that_waits_for_a_load_is_not() {
    let origin = CountingOrigin::start().await;
    let further = [
        "limits.idle_timeout_seconds=0.3",
        "limits.write_timeout_seconds=0.2",
    ];
    let nodes = cluster(1, &origin.url(), &further).await;
    origin.hold();
    let mut client = nodes[0].client().await;
    let waiting = tokio::spawn(async move { client.get(get("alice")).await });
    origin.is_asked().await;
    let stream = tokio::net::TcpStream::connect(nodes[0].addresses.grpc).await;
    let io = TokioIo::new(stream.unwrap());
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (_sender, idle) = builder.handshake::<_, String>(io).await.unwrap();
    within("the node closes it", idle).await.expect("in order");
    assert_eq!(cuts(&nodes[0], "idle").await, 1.0);
    origin.release();
    let answer = within("the answer", waiting).await.unwrap();
    assert_eq!(
        answer.expect("a value").into_inner().value,
        "value of alice"
    );
}

#[tokio::test]
async fn a_request_without_end_is_given_up() {
    let origin = CountingOrigin::start().await;
    let further = ["limits.read_timeout_seconds=0.2", "peer.insecure=true"];
    let nodes = cluster(1, &origin.url(), &further).await;
    let (clients, peers) = (nodes[0].addresses.grpc, nodes[0].addresses.peer);
    for (address, path) in [
        (clients, "Cache/Get"),
        (clients, "Cache/GetMany"),
        (clients, "Cache/Remove"),
        (peers, "Peer/Fetch"),
        (peers, "Peer/FetchMany"),
        (peers, "Peer/Remove"),
        (peers, "Peer/Handoff"),
    ] {
        let io = TokioIo::new(tokio::net::TcpStream::connect(address).await.unwrap());
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        tokio::spawn(connection);
        let part = Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 9, 1])));
        let parts = futures::stream::iter([part]);
        let body = StreamBody::new(futures::StreamExt::chain(parts, futures::stream::pending()));
        let request = Request::post(format!("http://node/gaocache.v1.{path}"))
            .header("content-type", "application/grpc")
            .body(body.boxed_unsync());
        let answer = within("an answer", sender.send_request(request.unwrap()));
        let answer = answer.await.expect("an answer");
        let status = answer.headers().get("grpc-status").cloned();
        let body = within("its end", answer.into_body().collect())
            .await
            .unwrap();
        let trailers = body
            .trailers()
            .and_then(|it| it.get("grpc-status"))
            .cloned();
        let status = status.or(trailers).expect("a status");
        assert_ne!(status, "0", "{path}");
    }
    let mut client = nodes[0].client().await;
    client.get(get("alice")).await.expect("others are served");
    let used = async {
        while metric(&nodes[0], "gaocache_in_flight_bytes", &[]).await != 0.0 {
            tokio::task::yield_now().await;
        }
    };
    within("nothing is in flight", used).await;
}

#[tokio::test]
async fn connections_beyond_the_limits_are_refused_and_a_place_that_is_free_is_given_again() {
    let origin = CountingOrigin::start().await;
    for (setting, reason) in [
        ("limits.max_connections=3", "total"),
        ("limits.max_connections_per_address=3", "address"),
    ] {
        let nodes = cluster(1, &origin.url(), &[setting]).await;
        let grpc = nodes[0].addresses.grpc;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = nodes[0].client().await;
            client.get(get("alice")).await.expect("within the limit");
            clients.push(client);
        }
        hung_up(grpc, b"").await;
        hung_up(nodes[0].addresses.http, b"").await;
        let refused = metric(&nodes[0], "gaocache_connection_refusals_total", &[reason]).await;
        assert_eq!(refused, 2.0);
        drop(clients.pop());
        let again = async {
            loop {
                let client = wire::cache_client::CacheClient::connect(format!("http://{grpc}"));
                if let Ok(mut client) = client.await
                    && client.get(get("alice")).await.is_ok()
                {
                    break;
                }
            }
        };
        within("a place", again).await;
    }
}

#[tokio::test]
async fn a_flood_of_frames_that_carry_nothing_is_cut() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &[]).await;
    for address in [nodes[0].addresses.grpc, nodes[0].addresses.http] {
        let flood = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&[PREFACE, SETTINGS].concat()).unwrap();
            let mut reader = stream.try_clone().unwrap();
            let answers =
                std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            let pings = PING.repeat(1_000);
            let sent = (0..1_000).take_while(|_| stream.write_all(&pings).is_ok());
            let sent = sent.count();
            let _ = answers.join();
            sent
        });
        let sent = within("the node hangs up", flood).await.unwrap();
        assert!(sent < 1_000, "a million pings were taken");
    }
    assert_eq!(cuts(&nodes[0], "flood").await, 2.0);
}

#[tokio::test]
async fn a_request_for_too_many_keys_is_refused() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &["limits.max_keys_per_request=100"]).await;
    let mut client = nodes[0].client().await;
    let request = |keys| wire::GetManyRequest {
        group: "users".into(),
        keys: vec!["alice".into(); keys],
    };
    let mut answers = client.get_many(request(100)).await.unwrap().into_inner();
    let mut found = 0;
    while answers.message().await.unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, 100);
    let error = client.get_many(request(101)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert!(error.message().contains("max_keys_per_request"), "{error}");
}

#[tokio::test]
async fn who_waits_for_a_change_of_the_ring_does_not_keep_others_from_the_ring() {
    let origin = CountingOrigin::start().await;
    let further = ["limits.max_admin_connections_per_address=1000"];
    let nodes = cluster(1, &origin.url(), &further).await;
    let client = http();
    let ring = client.get(nodes[0].admin("/ring")).send().await.unwrap();
    let ring: serde_json::Value = serde_json::from_slice(&ring.bytes().await.unwrap()).unwrap();
    let known = ring["fingerprint"].as_str().unwrap();
    let url = nodes[0].admin(&format!("/ring?unlike={known}"));
    let waiters: Vec<_> = (0..100)
        .map(|_| {
            let request = client.get(&url).send();
            tokio::spawn(async move { request.await.unwrap().status().as_u16() })
        })
        .collect();
    let refused = async {
        loop {
            let refused = waiters.iter().filter(|it| it.is_finished()).count();
            if refused >= 36 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("refusals", refused).await;
    let ready = client.get(nodes[0].admin("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    for waiter in waiters
        .into_iter()
        .filter(tokio::task::JoinHandle::is_finished)
    {
        assert_eq!(waiter.await.unwrap(), 503);
    }
}
