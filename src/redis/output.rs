//! Answers on their way to a client: small ones gathered, large values as they are.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::reply::Sink;

/// The most parts of one write.
const MOST_SLICES: usize = 64;
/// An empty buffer keeps its memory up to this size.
const KEPT_BYTES: usize = 16 << 10;

/// What is still to be written.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Goes first.
    chunks: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the tail that were written.
    sent: usize,
    /// Bytes in the chunks.
    in_chunks: usize,
    /// TLS may still hold what was written.
    unflushed: bool,
}

impl Sink for Output {
    fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    fn whole(&mut self, bytes: Bytes) {
        if self.tail.len() > self.sent {
            let mut before = Bytes::from(std::mem::take(&mut self.tail));
            before.advance(self.sent);
            self.push(before);
        }
        self.tail.clear();
        self.sent = 0;
        self.push(bytes);
    }
}

impl Output {
    fn push(&mut self, bytes: Bytes) {
        self.in_chunks += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// Bytes that are still to be written.
    pub(super) fn len(&self) -> usize {
        self.in_chunks + self.tail.len() - self.sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all that there is; ready when the socket has it.
    pub(super) fn poll_write<S>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.is_empty() {
            let socket = Pin::new(&mut *socket);
            let written = if self.chunks.is_empty() {
                ready!(socket.poll_write(cx, &self.tail[self.sent..]))?
            } else {
                let mut slices = [IoSlice::new(&[]); MOST_SLICES];
                let tail = &self.tail[self.sent..];
                let parts = self.chunks.iter().map(|it| &it[..]).chain([tail]);
                let mut used = 0;
                for (slice, part) in slices.iter_mut().zip(parts) {
                    *slice = IoSlice::new(part);
                    used += 1;
                }
                ready!(socket.poll_write_vectored(cx, &slices[..used]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.chunks.front_mut() {
            let part = written.min(first.len());
            first.advance(part);
            self.in_chunks -= part;
            written -= part;
            if !first.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
        self.sent += written;
        if self.sent >= self.tail.len() {
            self.sent = 0;
            self.tail.clear();
            self.tail.shrink_to(KEPT_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::redis::reply::{COPIED_BYTES, Protocol, Reply, write};

    /// Takes so many bytes of a write, and notes where they came from.
    struct Slow {
        at_once: usize,
        taken: Vec<u8>,
        from: Vec<usize>,
    }
    impl AsyncWrite for Slow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut left = self.at_once;
            for part in parts {
                let taken = &part[..left.min(part.len())];
                self.taken.extend(taken);
                self.from.push(taken.as_ptr() as usize);
                left -= taken.len();
            }
            Poll::Ready(Ok(self.at_once - left))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
    }

    #[test]
    fn answers_leave_in_order_and_a_large_value_as_the_very_bytes_that_are_kept() {
        let large = Bytes::from(vec![b'x'; COPIED_BYTES + 1]);
        let small = Bytes::from(vec![b'y'; 10]);
        for at_once in [1, 3, 100, 1 << 20] {
            let mut output = Output::default();
            let mut all: Vec<u8> = Vec::new();
            for value in [&small, &large, &small, &large, &large, &small] {
                write(&mut output, Reply::Value(value.clone()), Protocol::Resp2);
                all.extend(format!("${}\r\n", value.len()).as_bytes());
                all.extend(&value[..]);
                all.extend(b"\r\n");
            }
            assert_eq!(output.len(), all.len());
            let mut socket = Slow {
                at_once,
                taken: Vec::new(),
                from: Vec::new(),
            };
            let mut cx = Context::from_waker(Waker::noop());
            assert!(output.poll_write(&mut socket, &mut cx).is_ready());
            assert!(output.is_empty());
            assert_eq!(socket.taken, all);
            assert!(socket.from.contains(&(large.as_ptr() as usize)), "copied");
        }
    }
}
