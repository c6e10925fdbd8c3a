//! Connections over sockets and over pipes in a time that stands still.

use std::pin::pin;

use futures::{FutureExt, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpListener,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::*;
use crate::traffic::Budget;
use gaocache_core::membership::KeyFingerprint;

fn links(idle: Duration) -> Links {
    let rules = PeerRules {
        connect_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        idle,
        max_value: 0,
        budget: Budget::new(1 << 20),
        workers: 1,
        loads: HashMap::new(),
        tls: PeerTls::plaintext(),
    };
    Links::new(&rules, Handle::current())
}

#[tokio::test]
async fn a_connection_is_closed_when_it_is_idle_but_not_while_a_call_is_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let member = Member::new("it", address);
    let links = links(Duration::ZERO);
    let link = links.get(Lane::Data, &member).expect("an address");
    let mut client = HealthClient::new(link.channel.clone());
    let mut call = Box::pin(client.check(HealthCheckRequest::default()));
    let (mut peer, _) = tokio::select! {
        accepted = listener.accept() => accepted.expect("a connection"),
        answered = &mut call => panic!("nobody answers: {answered:?}"),
    };
    links.close_idle();
    let same = links.get(Lane::Data, &member).expect("an address");
    assert!(Arc::ptr_eq(&link, &same), "a call holds it");
    drop(call);
    drop((client, link, same));
    links.close_idle();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), peer.read_to_end(&mut rest));
    ended.await.expect("closed").expect("read");
}

#[tokio::test]
async fn control_handoff_and_reads_have_connections_of_their_own() {
    let links = links(Duration::MAX);
    let member = Member::new("it", "127.0.0.1:1");
    let lanes = [Lane::Data, Lane::Control, Lane::Bulk];
    let of = lanes.map(|lane| links.get(lane, &member).expect("an address"));
    assert!(!Arc::ptr_eq(&of[0], &of[1]) && !Arc::ptr_eq(&of[1], &of[2]));
    assert!(!Arc::ptr_eq(&of[0], &of[2]));
    links.lose(&member, &of[1]);
    assert!(of[1].lost.is_cancelled());
    let again = links.get(Lane::Control, &member).expect("an address");
    assert!(!Arc::ptr_eq(&of[1], &again), "a new one");
}

#[tokio::test]
async fn a_member_that_moved_or_has_another_key_is_connected_to_anew() {
    let links = links(Duration::MAX);
    let member = Member::new("it", "127.0.0.1:1");
    let first = links.get(Lane::Data, &member).expect("an address");
    let mut changed = member.clone();
    changed.contact.key = Some(KeyFingerprint([1; 32]));
    let second = links.get(Lane::Data, &changed).expect("an address");
    assert!(!Arc::ptr_eq(&first, &second), "another key");
    links.keep_only(&View::new(1, [changed.clone()]));
    let same = links.get(Lane::Data, &changed).expect("an address");
    assert!(Arc::ptr_eq(&second, &same), "it leads to a member");
    links.keep_only(&View::new(2, [member]));
    let third = links.get(Lane::Data, &changed).expect("an address");
    assert!(!Arc::ptr_eq(&second, &third), "it led to no member");
}

/// A channel as peers have it, and the other end of its connection.
fn piped() -> (Channel, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    let endpoint = configured(Endpoint::from_static("http://peer"));
    let mut near = Some(hyper_util::rt::TokioIo::new(near));
    let connector = tower::service_fn(move |_| {
        let near = near.take().ok_or_else(|| std::io::Error::other("once"));
        std::future::ready(near)
    });
    (endpoint.connect_with_connector_lazy(connector), far)
}

/// Everything that was sent so far.
async fn sent(far: &mut DuplexStream) -> Vec<u8> {
    let mut sent = Vec::new();
    while let Some(read) = far.read_buf(&mut sent).now_or_never() {
        if read.expect("open") == 0 {
            break;
        }
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_silent_and_the_first_call_on_a_dead_one_ends_in_four_seconds() {
    /// An empty SETTINGS frame, which is the least that a server says.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let (channel, mut far) = piped();
    far.write_all(&SETTINGS).await.expect("open");
    let mut client = HealthClient::new(channel);
    {
        // A call that is given up, so that the connection is idle afterwards.
        let mut call = pin!(client.check(HealthCheckRequest::default()));
        for _ in 0..100 {
            assert!(poll!(call.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!sent(&mut far).await.is_empty(), "the call");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(sent(&mut far).await.is_empty(), "no pings");
    let began = Instant::now();
    let call = client.check(HealthCheckRequest::default()).await;
    let status = call.expect_err("nobody answers");
    assert!(began.elapsed() <= 2 * KEEP_ALIVE, "{:?}", began.elapsed());
    let failure = super::super::failure::Failure::of(&status);
    assert!(failure.ejects(), "{status:?}");
}

/// The streams of the requests among these frames.
fn requests(sent: &[u8]) -> Vec<u32> {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 1;
    let mut frames = &sent[PREFACE..];
    let mut streams = Vec::new();
    while let [l1, l2, l3, kind, _, s1, s2, s3, s4, ..] = *frames {
        if kind == HEADERS {
            streams.push(u32::from_be_bytes([s1, s2, s3, s4]));
        }
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        frames = &frames[9 + length..];
    }
    streams
}

/// A frame that says for a stream that nothing was found, and ends it.
fn not_found(stream: u32) -> Vec<u8> {
    const ENDS: [u8; 2] = [1, 5];
    let mut block = vec![0x88];
    for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "5")] {
        block.extend([0, name.len() as u8]);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    let mut frame = vec![0, 0, block.len() as u8];
    frame.extend(ENDS);
    frame.extend(stream.to_be_bytes());
    frame.extend(block);
    frame
}

#[tokio::test]
async fn answers_to_calls_that_were_given_up_end_no_connection() {
    const CALLS: usize = 2_500;
    let (channel, mut far) = piped();
    far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .expect("open");
    let mut client = HealthClient::new(channel);
    for _ in 0..CALLS {
        let mut call = pin!(client.check(HealthCheckRequest::default()));
        for _ in 0..10 {
            assert!(poll!(call.as_mut()).is_pending());
            tokio::task::yield_now().await;
        }
    }
    let streams = requests(&sent(&mut far).await);
    assert!(streams.len() > CALLS / 2, "{}", streams.len());
    for stream in &streams {
        far.write_all(&not_found(*stream)).await.expect("open");
        tokio::task::yield_now().await;
    }
    let mut call = pin!(client.check(HealthCheckRequest::default()));
    for _ in 0..10 {
        assert!(poll!(call.as_mut()).is_pending(), "the connection is there");
        tokio::task::yield_now().await;
    }
    let last = streams.last().expect("many") + 2;
    far.write_all(&not_found(last)).await.expect("open");
    let status = call.await.expect_err("not found");
    assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
}
