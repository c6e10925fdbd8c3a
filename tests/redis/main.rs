//! The listener for Redis clients: what clients ask of it, and what they may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod limits;
mod pipelines;
mod sessions;

use common::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Has the nodes listen for Redis clients.
const LISTEN: &str = "redis.listen=127.0.0.1:0";

/// Nodes that listen for Redis clients.
async fn nodes(count: usize, origin: &CountingOrigin, further: &[&str]) -> Vec<TestNode> {
    cluster(count, &origin.url(), &[&[LISTEN], further].concat()).await
}

/// A client that speaks this version of the protocol.
async fn redis_client(node: &TestNode, version: u8) -> redis::aio::MultiplexedConnection {
    let address = node.addresses.redis.expect("it listens");
    let url = format!("redis://{address}/?protocol=resp{version}");
    let client = redis::Client::open(url).expect("a good address");
    // Its own limit is half a second, which a busy machine may need.
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(LONG));
    let connected = client.get_multiplexed_async_connection_with_config(&patient);
    within("a connection", connected).await.expect("connects")
}

/// A connection without a client's library.
struct Raw(TcpStream);

impl Raw {
    async fn connect(node: &TestNode) -> Self {
        let address = node.addresses.redis.expect("it listens");
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.0.write_all(bytes.as_ref());
        within("the node reads", sent).await.expect("it is open");
    }

    /// The next bytes are these.
    async fn answers(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut answer = vec![0; expected.len()];
        let read = within("an answer", self.0.read_exact(&mut answer)).await;
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        if let Err(error) = read {
            panic!("{error}: {} instead of {}", shown(&answer), shown(expected));
        }
        assert!(
            answer == expected,
            "{} instead of {}",
            shown(&answer),
            shown(expected)
        );
    }

    /// All that comes until the node hangs up. An end and a reset are the same to this client.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = within("the node hangs up", self.0.read_to_end(&mut bytes)).await;
        bytes.escape_ascii().to_string()
    }
}

/// A command as clients send it.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// How the node writes a value.
fn value(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
