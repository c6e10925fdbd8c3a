//! A socket that limits how many bytes are read before the handshake is complete.
//!
//! rustls keeps up to 64 KiB of one message of a handshake. A client that has not authenticated yet
//! must not take more memory than an idle connection does.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes of a handshake: a `ClientHello` with large extensions, or a chain of a few certificates
/// with RSA keys.
pub(crate) const HANDSHAKE_BYTES: usize = 16 << 10;

/// A socket.
pub struct Bounded {
    socket: TcpStream,
    /// Bytes that may still be read; `None`: any number.
    left: Option<usize>,
}

impl Bounded {
    /// One whose handshake begins.
    pub(super) fn handshake(socket: TcpStream) -> Self {
        Self {
            socket,
            left: Some(HANDSHAKE_BYTES),
        }
    }

    /// The handshake is over.
    pub(super) fn open(&mut self) {
        self.left = None;
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Some(left) = &mut self.left {
            let new = buffer.filled().len() - before;
            match left.checked_sub(new) {
                Some(rest) => *left = rest,
                None => {
                    let what = format!("its handshake is longer than {HANDSHAKE_BYTES} bytes");
                    return Poll::Ready(Err(io::Error::other(what)));
                }
            }
        }
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
