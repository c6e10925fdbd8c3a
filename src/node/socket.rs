//! A client's socket, as hyper sees it. It keeps track of whether the client reads, and of how many
//! HTTP/2 control frames without data it sends.
//!
//! hyper limits resets and the size of heads, but not the rate of frames: one connection that
//! floods a server with `PING` takes a core. Only the nine bytes of each frame's head are looked
//! at.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{tls::Stream, traffic::Traffic};

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length (3 bytes), type, flags, stream (4 bytes).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The clock is read once in so many frames.
const BETWEEN_LOOKS: u64 = 128;
/// Control frames that go with a request: updates of the window, an acknowledgement.
const FREE_PER_REQUEST: u64 = 8;
/// Bytes of answers for which a client may send a control frame.
const BYTES_PER_FREE: u64 = 4096;

/// A socket and what is noted of it.
pub(super) struct Socket {
    stream: Stream,
    traffic: Arc<Traffic>,
    frames: Frames,
}

impl Socket {
    /// A connection that has just been accepted. It may send so many control frames per second
    /// beyond those that go with requests and answers.
    pub(super) fn new(stream: Stream, traffic: Arc<Traffic>, most_per_second: u32) -> Self {
        Self {
            stream,
            traffic,
            frames: Frames::new(most_per_second),
        }
    }

    fn wrote(&mut self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Pending => self.traffic.blocked(),
            Poll::Ready(Ok(bytes)) => {
                self.traffic.unblocked();
                self.frames.sent += *bytes as u64;
            }
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.traffic.reads(read.is_pending());
        if let Poll::Ready(Ok(())) = read {
            let this = &mut *self;
            let new = &buffer.filled()[before..];
            if this.frames.pass(new) {
                this.traffic.floods();
                return Poll::Ready(Err(io::Error::other(
                    "too many control frames without data",
                )));
            }
            if this.frames.greeted {
                this.traffic.greeted();
            }
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS takes bytes that the socket doesn't take yet. Without TLS, there is nothing to flush,
        // whether the client reads or not.
        if matches!(self.stream, Stream::Tls(_)) {
            match flushed {
                Poll::Pending => self.traffic.blocked(),
                Poll::Ready(_) => self.traffic.unblocked(),
            }
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where in its stream of frames a client is.
#[derive(Debug)]
enum At {
    /// So many bytes into the preface.
    Preface(usize),
    /// In the head of a frame.
    Head([u8; HEAD_BYTES], usize),
    /// In a payload that has so many bytes left.
    Payload(usize),
    /// In a protocol that has no frames.
    Unframed,
}

/// Counts control frames without data; empty `DATA` frames count as such.
#[derive(Debug)]
pub(super) struct Frames {
    at: At,
    /// A first frame, or something else than HTTP/2, has come.
    pub(super) greeted: bool,
    most_per_second: u64,
    since: Instant,
    control: u64,
    requests: u64,
    sent: u64,
}

impl Frames {
    pub(super) fn new(most_per_second: u32) -> Self {
        Self {
            at: At::Preface(0),
            greeted: false,
            most_per_second: u64::from(most_per_second),
            since: Instant::now(),
            control: 0,
            requests: 0,
            sent: 0,
        }
    }

    /// Follows what was read. Returns whether it is a flood.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> bool {
        while let [first, rest @ ..] = bytes {
            match &mut self.at {
                At::Unframed => return false,
                At::Preface(at) => {
                    if PREFACE[*at] != *first {
                        self.greeted = true;
                        self.at = At::Unframed;
                        return false;
                    }
                    *at += 1;
                    if *at == PREFACE.len() {
                        self.at = At::Head([0; HEAD_BYTES], 0);
                    }
                    bytes = rest;
                }
                At::Payload(left) => {
                    let part = (*left).min(bytes.len());
                    *left -= part;
                    bytes = &bytes[part..];
                    if *left == 0 {
                        self.greeted = true;
                        self.at = At::Head([0; HEAD_BYTES], 0);
                    }
                }
                At::Head(head, have) => {
                    let part = (HEAD_BYTES - *have).min(bytes.len());
                    head[*have..*have + part].copy_from_slice(&bytes[..part]);
                    *have += part;
                    bytes = &bytes[part..];
                    if *have == HEAD_BYTES {
                        let head = *head;
                        if self.frame(head) {
                            return true;
                        }
                    }
                }
            }
        }
        false
    }

    fn frame(&mut self, head: [u8; HEAD_BYTES]) -> bool {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        self.greeted |= length == 0;
        self.at = if length == 0 {
            At::Head([0; HEAD_BYTES], 0)
        } else {
            At::Payload(length)
        };
        match head[3] {
            // It ends a request, or carries a part of it.
            DATA if length > 0 || head[4] & 1 != 0 => false,
            HEADERS => {
                self.requests += 1;
                false
            }
            _ => {
                self.control += 1;
                self.control.is_multiple_of(BETWEEN_LOOKS) && self.floods()
            }
        }
    }

    fn floods(&mut self) -> bool {
        let free = self.requests * FREE_PER_REQUEST + self.sent / BYTES_PER_FREE;
        let seconds = self.since.elapsed().as_secs_f64();
        let excess = self.control.saturating_sub(free) as f64;
        if excess > self.most_per_second as f64 * seconds.max(1.0) {
            return true;
        }
        if seconds >= 1.0 {
            (self.control, self.requests, self.sent) = (0, 0, 0);
            self.since = Instant::now();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    fn http2() -> Frames {
        let mut frames = Frames::new(1_000);
        assert!(!frames.pass(PREFACE));
        frames
    }

    #[test]
    fn a_client_has_greeted_with_its_first_frame_or_another_protocol() {
        let mut frames = Frames::new(1);
        frames.pass(&PREFACE[..20]);
        frames.pass(&PREFACE[20..]);
        let settings = frame(4, 0, &[0; 6]);
        frames.pass(&settings[..14]);
        assert!(!frames.greeted);
        frames.pass(&settings[14..]);
        assert!(frames.greeted);
        let mut other = Frames::new(1);
        other.pass(b"PUT / HTTP/1.1");
        assert!(other.greeted);
        assert!(!other.pass(&[0; 100_000]));
    }

    #[test]
    fn floods_of_every_kind_are_seen_however_they_are_cut_up() {
        for (kind, payload) in [
            (6, 8),
            (4, 0),
            (2, 5),
            (8, 4),
            (3, 4),
            (0, 0),
            (9, 1),
            (77, 0),
        ] {
            for size in [1, 9, 10_000] {
                let mut frames = http2();
                let bytes = frame(kind, 0, &vec![0; payload]).repeat(1_500);
                let flood = bytes.chunks(size).any(|part| frames.pass(part));
                assert!(flood, "frames of type {kind}");
            }
        }
    }

    #[test]
    fn requests_and_answers_are_no_flood() {
        let mut frames = http2();
        let mut request = frame(1, 4, &[0; 30]);
        request.extend(frame(0, 0, &[0; 20]));
        request.extend(frame(0, 1, &[]));
        request.extend(frame(8, 0, &[0; 4]).repeat(2));
        request.extend(frame(6, 1, &[0; 8]));
        assert!(!frames.pass(&request.repeat(10_000)));
        let mut reader = http2();
        for _ in 0..10_000 {
            reader.sent += 16_384;
            assert!(!reader.pass(&frame(8, 0, &[0; 4]).repeat(2)));
        }
    }
}
