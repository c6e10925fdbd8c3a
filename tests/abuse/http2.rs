//! Attacks on the listeners for gRPC: frames and calls.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    attack::{Attack, attack},
    connections::{again, hold, pour},
    target::{MIB, Target},
    wire::*,
};

/// All of them.
pub fn all() -> Vec<Attack> {
    vec![
        attack("handoff of 9 MB in tiny entries", |it| {
            Box::pin(giant_handoff(it))
        })
        .with(&["peer.insecure=true"]),
        attack("GetMany of 4 MB of empty keys", |it| {
            Box::pin(empty_keys(it))
        }),
        attack("250 readers of 1 MiB that don't read", |it| {
            Box::pin(no_readers(it))
        }),
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
        attack("queue filled by clients that hang up", |it| {
            Box::pin(hang_up(it))
        })
        .of_slow_origin(),
        attack("10,000 missing keys of one client", |it| {
            Box::pin(missing_keys(it))
        })
        .of_slow_origin(),
    ]
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
