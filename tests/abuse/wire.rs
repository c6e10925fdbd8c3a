//! Bytes as attackers send them: frames of HTTP/2, messages of gRPC, and sockets from another
//! address of this machine than the good client's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types of frames that are sent here.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::with_capacity(9 + payload.len());
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame.to_vec()
}

/// The preface with settings of no content.
pub fn greeting() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The preface of a client that lets any number of bytes come.
pub fn greeting_with_wide_windows() -> Vec<u8> {
    let wide = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let more = 0x7fff_0000_u32.to_be_bytes();
    [
        PREFACE,
        &frame(SETTINGS, 0, 0, &wide),
        &frame(WINDOW_UPDATE, 0, 0, &more),
    ]
    .concat()
}

/// The header block of a gRPC call, in literals that take no place in any table.
pub fn grpc_headers(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (":path", path),
        (":authority", "node"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A message with gRPC's prefix.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    let mut message = BytesMut::with_capacity(5 + bytes.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(bytes.len()).expect("short"));
    message.put_slice(bytes);
    message.to_vec()
}

/// A `GetRequest` of group `users`.
pub fn get_request(key: &str) -> Vec<u8> {
    let length = u8::try_from(key.len()).expect("short");
    [b"\n\x05users\x12", &[length][..], key.as_bytes()].concat()
}

/// A whole call of `Get`.
pub fn get_call(stream: u32, key: &str) -> Vec<u8> {
    let headers = grpc_headers("/gaocache.v1.Cache/Get");
    let body = message(&get_request(key));
    let mut call = frame(HEADERS, END_HEADERS, stream, &headers);
    call.extend(frame(DATA, END_STREAM, stream, &body));
    call
}

/// A body in frames of the size that every peer takes.
pub fn data(stream: u32, body: &[u8]) -> Vec<u8> {
    const MOST: usize = 16_384;
    let mut frames = Vec::with_capacity(body.len() + body.len() / 1000);
    let mut parts = body.chunks(MOST).peekable();
    while let Some(part) = parts.next() {
        let flags = if parts.peek().is_none() {
            END_STREAM
        } else {
            0
        };
        frames.extend(frame(DATA, flags, stream, part));
    }
    frames
}

/// A connection from the attacker's `number`th address.
pub async fn connect(port: u16, number: usize) -> Option<TcpStream> {
    let last = u8::try_from(2 + number % 200).expect("at most 201");
    let socket = TcpSocket::new_v4().ok()?;
    socket
        .bind((Ipv4Addr::new(127, 0, 0, last), 0).into())
        .ok()?;
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = timeout(Duration::from_secs(5), socket.connect(to)).await;
    connected.ok()?.ok()
}

/// A connection that has sent this.
pub async fn open(port: u16, number: usize, bytes: &[u8]) -> Option<TcpStream> {
    let mut stream = connect(port, number).await?;
    stream.write_all(bytes).await.ok()?;
    Some(stream)
}

/// Sends a request and returns what comes within a moment.
pub async fn ask(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 16_384];
    let asked = async {
        let mut stream = open(port, 0, bytes).await?;
        stream.read(&mut answer).await.ok()
    };
    let read = timeout(Duration::from_secs(5), asked).await;
    answer.truncate(read.ok().flatten().unwrap_or(0));
    answer
}
