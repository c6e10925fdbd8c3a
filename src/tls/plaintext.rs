//! Clients that speak plaintext to a listener with TLS: they get the reason in their own protocol.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::bounded::HANDSHAKE_BYTES;

/// The type of the record with which each handshake begins.
const HANDSHAKE: u8 = 22;
/// What an HTTP/2 client begins with. No method of HTTP/1 does.
const PREFACE: &[u8; 3] = b"PRI";
/// The reason.
pub(crate) const SPEAKS_TLS: &str = "this listener speaks TLS; use https://";
/// The answer to a Redis client.
const TOLD_REDIS: &str = "this listener speaks TLS; use rediss://, or redis-cli --tls";
/// An empty `SETTINGS` frame, which is how a server begins.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// `GOAWAY` with the error `INADEQUATE_SECURITY`: type, flags, stream, last stream, error.
const GOAWAY: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc];

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// With a handshake of TLS.
    WithTls,
    /// With HTTP/2 in plaintext.
    WithHttp2,
    /// With something else.
    Otherwise,
    /// It ended before it began.
    Never,
}

/// Looks at the first bytes, and leaves them where they are.
pub(super) async fn begins(stream: &TcpStream) -> io::Result<Begins> {
    let mut first = [0; PREFACE.len()];
    let seen = stream.peek(&mut first).await?;
    Ok(match &first[..seen] {
        [] => Begins::Never,
        [HANDSHAKE, ..] => Begins::WithTls,
        seen if PREFACE.starts_with(seen) => Begins::WithHttp2,
        _ => Begins::Otherwise,
    })
}

/// What clients of a listener speak beside HTTP/2, which shows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.
    Http,
    /// The protocol of Redis.
    Redis,
}

/// A client that speaks plaintext and has not been told yet.
#[derive(Debug)]
pub struct Untold {
    stream: TcpStream,
    begins: Begins,
}

impl Untold {
    pub(super) fn new(stream: TcpStream, begins: Begins) -> Self {
        Self { stream, begins }
    }

    /// Tells the client, and closes the connection. Takes as long as the client wants to read, so
    /// it needs a time limit.
    pub async fn tell(self, speaks: Speaks) {
        // Who doesn't wait for the answer doesn't need it.
        let _ = tell(self.stream, self.begins, speaks).await;
    }
}

async fn tell(mut stream: TcpStream, begins: Begins, speaks: Speaks) -> io::Result<()> {
    let answer = match (begins, speaks) {
        (_, Speaks::Redis) => format!("-ERR {TOLD_REDIS}\r\n").into_bytes(),
        (Begins::WithHttp2, Speaks::Http) => {
            let mut answer = Vec::from(SETTINGS);
            let length = GOAWAY.len() - 6 + SPEAKS_TLS.len();
            // The length of a payload takes three bytes.
            answer.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
            answer.extend_from_slice(&GOAWAY);
            answer.extend_from_slice(SPEAKS_TLS.as_bytes());
            answer
        }
        _ => format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{SPEAKS_TLS}\n",
            SPEAKS_TLS.len() + 1
        )
        .into_bytes(),
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    // A socket that is closed while there is something to read resets the connection, and the
    // answer is lost.
    let mut rest = [0; 1024];
    let mut read = 0;
    while read < HANDSHAKE_BYTES {
        match stream.read(&mut rest).await? {
            0 => break,
            more => read += more,
        }
    }
    Ok(())
}
