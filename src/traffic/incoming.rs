//! The body of a request: bounded in size and time, and counted while it arrives.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Sleep, sleep};

use super::{Ticket, messages::MessageCursor};
use gaocache_core::error::{BoxError, Error, ErrorKind, Result};

/// Up to this size, a request needs no further room than it has already.
const FREE_BYTES: usize = 512;

fn late() -> Error {
    let what = "the request did not arrive in time (limits.read_timeout_seconds)";
    Error::new(ErrorKind::InvalidRequest, what)
}

/// Reads all of a request's body.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] for one that is too large, breaks off, or takes longer than
/// `patience`; [`ErrorKind::Overloaded`] if there is no room for it.
pub async fn collect<B>(
    body: B,
    ticket: &mut Ticket,
    most: usize,
    patience: Duration,
) -> Result<Bytes>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut collected = Collected::default();
    let mut timer = pin!(None);
    let mut place = None;
    loop {
        let arrives = || {
            place = ticket.traffic().arrives()?;
            Ok(())
        };
        let frame = next_frame(body.as_mut(), timer.as_mut(), patience, arrives);
        let Some(frame) = frame.await? else { break };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = collected.len() + data.len();
        if length > most {
            let what = format!("the request has more than {most} bytes");
            return Err(Error::new(ErrorKind::InvalidRequest, what));
        }
        if length > FREE_BYTES {
            ticket.charge(data.len())?;
        }
        collected.add(data);
    }
    Ok(collected.whole())
}

/// The next frame of a body. A whole request has mostly arrived before anybody looks, so the timer
/// is set only when there is something to wait for; then `arrives` may object.
async fn next_frame<B>(
    mut body: Pin<&mut B>,
    mut timer: Pin<&mut Option<Sleep>>,
    patience: Duration,
    arrives: impl FnOnce() -> Result<()>,
) -> Result<Option<Frame<Bytes>>>
where
    B: Body<Data = Bytes>,
{
    let mut arrives = Some(arrives);
    let mut frame = body.frame();
    let frame = std::future::poll_fn(|cx| {
        if let Poll::Ready(frame) = Pin::new(&mut frame).poll(cx) {
            return Poll::Ready(Ok(frame));
        }
        if timer.is_none() {
            if let Some(arrives) = arrives.take() {
                arrives()?;
            }
            timer.set(Some(sleep(patience)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| Err(late())),
            None => Poll::Pending,
        }
    });
    frame.await?.transpose().map_err(|_| {
        let what = "the request was not received in full";
        Error::new(ErrorKind::InvalidRequest, what)
    })
}

/// The data of a body. Almost always it is one frame, which is used without copying.
#[derive(Default)]
struct Collected {
    first: Bytes,
    /// All of it, from the second frame on.
    copied: BytesMut,
}

impl Collected {
    fn len(&self) -> usize {
        self.first.len() + self.copied.len()
    }

    fn add(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        self.copied.put(std::mem::take(&mut self.first));
        self.copied.put(data);
    }

    fn whole(self) -> Bytes {
        if self.copied.is_empty() {
            self.first
        } else {
            self.copied.freeze()
        }
    }
}

/// A body of many messages, of which the reader holds one at a time. Each is counted from its first
/// byte until the reader asks for the next.
pub struct Arriving<B> {
    inner: B,
    ticket: Ticket,
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes counted at present.
    held: usize,
    cursor: MessageCursor,
}

impl<B> Arriving<B> {
    /// Reads `inner`; a pause longer than `patience` ends it.
    pub fn new(inner: B, ticket: Ticket, patience: Duration) -> Self {
        Self {
            inner,
            ticket,
            patience,
            timer: None,
            held: 0,
            cursor: MessageCursor::default(),
        }
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.cursor.is_between_messages() && this.held > 0 {
            let held = std::mem::take(&mut this.held);
            this.ticket.discharge(held);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) else {
            let patience = this.patience;
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(late().into())));
        };
        this.timer = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.ticket.charge(data.len())?;
                    this.held += data.len();
                    this.cursor.pass(data, |_, _| Ok(()))?;
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::StreamBody;

    use super::*;
    use crate::traffic::{Budget, Traffic};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn frames(
        parts: &[&'static [u8]],
        ends: bool,
    ) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part))))
            .collect();
        let parts = stream::iter(parts);
        let rest = stream::pending();
        let all: stream::BoxStream<'static, _> = if ends {
            Box::pin(parts)
        } else {
            Box::pin(stream::StreamExt::chain(parts, rest))
        };
        StreamBody::new(all)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_read_in_parts_and_one_without_end_is_given_up() {
        let budget = Budget::new(1 << 20);
        let mut ticket = Traffic::new(budget.clone()).begin().expect("room");
        let whole = collect(frames(&[b"ab", b"c"], true), &mut ticket, 3, PATIENCE).await;
        assert_eq!(whole.expect("whole"), "abc");
        let large = collect(frames(&[b"ab", b"cd"], true), &mut ticket, 3, PATIENCE).await;
        assert!(large.is_err());
        let endless = collect(frames(&[b"ab"], false), &mut ticket, 3, PATIENCE).await;
        let error = endless.expect_err("no end");
        assert!(error.message().contains("in time"), "{error}");
    }

    #[tokio::test]
    async fn what_arrives_is_counted_and_what_has_no_room_is_refused() {
        static LARGE: [u8; 700_000] = [0; 700_000];
        let budget = Budget::new(1 << 20);
        let traffic = Traffic::new(budget.clone());
        let mut first = traffic.begin().expect("room");
        let read = collect(frames(&[&LARGE], true), &mut first, 1 << 20, PATIENCE).await;
        assert_eq!(read.expect("room").len(), LARGE.len());
        assert!(budget.used() > LARGE.len() as u64);
        let mut second = traffic.begin().expect("room");
        let refused = collect(frames(&[&LARGE], true), &mut second, 1 << 20, PATIENCE).await;
        assert_eq!(refused.expect_err("full").kind(), ErrorKind::Overloaded);
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn of_many_messages_one_at_a_time_is_counted() {
        let budget = Budget::new(1 << 20);
        let ticket = Traffic::new(budget.clone()).begin().expect("room");
        let before = budget.used();
        let parts: [&[u8]; 5] = [
            b"\0\0\0\0\x03ab",
            b"c\0\0",
            b"\0\0\x01",
            b"d",
            b"\0\0\0\0\x01e",
        ];
        let mut body = Arriving::new(frames(&parts, true), ticket, PATIENCE);
        let mut held = Vec::new();
        while let Some(frame) = body.frame().await {
            frame.expect("no failure");
            held.push(budget.used() - before);
        }
        // The second message begins in the frame in which the first one ends; the third in one of
        // its own, for which the reader asks when it has done with the second.
        assert_eq!(held, [7, 10, 13, 14, 6]);
        drop(body);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_pauses_for_too_long_ends() {
        let ticket = Traffic::new(Budget::new(1 << 20)).begin().expect("room");
        let mut body = Arriving::new(frames(&[b"ab"], false), ticket, PATIENCE);
        assert!(body.frame().await.expect("a frame").is_ok());
        let end = tokio::time::timeout(2 * PATIENCE, body.frame());
        let end = end.await.expect("in time");
        assert!(end.expect("an end").is_err());
    }
}
