//! The body of an answer, counted until it has left.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Ticket;
use gaocache_core::error::{BoxError, Error, Result};

/// A value is handed to the connection in slices of this size, and each is progress. What the
/// client has to take within the write time limit is a slice and the connection's send buffer.
pub const SLICE: usize = 128 << 10;

/// A body whose bytes are counted by a [`Ticket`], from when they are at hand until the connection
/// drops them.
pub struct Outgoing<B> {
    /// Counts what is left of the last frame, and is dropped before it.
    part: Option<Ticket>,
    rest: Bytes,
    /// What follows at once, without data.
    trailers: Option<Frame<Bytes>>,
    /// How the protocol says that no room was left for what was to follow.
    refusal: Option<fn(&Error) -> HeaderMap>,
    is_over: bool,
    inner: B,
    ticket: Ticket,
}

impl<B> Outgoing<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// A body of which nothing is counted yet.
    pub fn new(inner: B, ticket: Ticket) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            trailers: None,
            refusal: None,
            is_over: false,
            part: None,
            ticket,
        }
    }

    /// The same, but counts what is at hand already.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is no room for it.
    pub async fn begin(inner: B, ticket: Ticket) -> Result<Self> {
        let mut body = Self::new(inner, ticket);
        if !body.inner.is_end_stream() {
            let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut body.inner).poll_frame(cx))).await;
            match first {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => body.takes(data)?,
                    Err(trailers) => body.trailers = Some(trailers),
                },
                // A failure without a message: nothing that the client could miss.
                Poll::Ready(_) | Poll::Pending => {}
            }
        }
        Ok(body)
    }

    /// Where no room is left for what is to follow, the body ends with such trailers. Without, it
    /// breaks off.
    #[must_use]
    pub fn or_ends_with(mut self, refusal: fn(&Error) -> HeaderMap) -> Self {
        self.refusal = Some(refusal);
        self
    }

    fn takes(&mut self, data: Bytes) -> Result<()> {
        let mut part = Ticket::part(self.ticket.traffic());
        if !data.is_empty() {
            part.pin(&data)?;
        }
        self.part = Some(part);
        self.rest = data;
        Ok(())
    }

    fn slice(&mut self) -> Frame<Bytes> {
        self.ticket.advances();
        if self.rest.len() > SLICE {
            return Frame::data(self.rest.split_to(SLICE));
        }
        let last = std::mem::take(&mut self.rest);
        Frame::data(match self.part.take() {
            Some(mut part) => {
                part.advances();
                part.hold(last)
            }
            None => last,
        })
    }
}

impl<B> Body for Outgoing<B>
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
        loop {
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(self.slice())));
            }
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(trailers)));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            // While there is nothing to send, the client can't be late.
            self.ticket.rests();
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Err(error) = self.takes(data) {
                            let refusal = self.refusal.ok_or_else(|| error.clone())?;
                            self.trailers = Some(Frame::trailers(refusal(&error)));
                            self.is_over = true;
                        }
                    }
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_over = self.is_over || self.inner.is_end_stream();
        self.rest.is_empty() && self.trailers.is_none() && is_over
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, inner) = (self.rest.len() as u64, self.inner.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;
    use crate::traffic::{Budget, Traffic};

    #[tokio::test]
    async fn a_body_goes_out_in_slices_and_is_counted_until_the_last_is_dropped() {
        let budget = Budget::new(16 << 20);
        let traffic = Traffic::new(budget.clone());
        let value = Bytes::from(vec![7; 3 * SLICE + 1]);
        let before = budget.used();
        let ticket = traffic.begin().expect("room");
        let mut body = Outgoing::begin(Full::new(value.clone()), ticket)
            .await
            .expect("room");
        assert_eq!(body.size_hint().exact(), Some(value.len() as u64));
        assert!(budget.used() > value.len() as u64);
        let mut sent = Vec::new();
        while let Some(frame) = body.frame().await {
            sent.push(frame.expect("no failure").into_data().expect("data"));
        }
        drop(body);
        let sizes: Vec<usize> = sent.iter().map(Bytes::len).collect();
        assert_eq!(sizes, [SLICE, SLICE, SLICE, 1]);
        assert_eq!(sent.concat(), value);
        assert_eq!(budget.used(), value.len() as u64, "the last slice pins it");
        sent.pop();
        assert_eq!(budget.used(), before);
    }

    #[tokio::test]
    async fn a_body_for_which_no_room_is_left_ends_as_its_protocol_says() {
        let parts = || {
            let parts = [1usize, 15 << 20, 1].map(|bytes| {
                let data = Bytes::from(vec![7; bytes]);
                Ok::<_, std::convert::Infallible>(Frame::data(data))
            });
            StreamBody::new(futures::stream::iter(parts))
        };
        let refusal = |error: &Error| {
            let mut trailers = HeaderMap::new();
            trailers.insert("why", error.kind().name().parse().expect("text"));
            trailers
        };
        let traffic = Traffic::new(Budget::new(16 << 20));
        let ticket = || traffic.begin().expect("room");
        let body = Outgoing::begin(parts(), ticket()).await.expect("room");
        let body = body
            .or_ends_with(refusal)
            .collect()
            .await
            .expect("no break");
        let why = body.trailers().map(|it| it["why"].clone());
        assert_eq!(why.expect("trailers"), "overloaded");
        assert_eq!(body.to_bytes().len(), 1, "nothing follows");
        let breaks_off = Outgoing::begin(parts(), ticket()).await.expect("room");
        assert!(breaks_off.collect().await.is_err());
    }

    #[tokio::test]
    async fn trailers_without_a_message_are_sent() {
        let traffic = Traffic::new(Budget::new(16 << 20));
        let only = Ok::<_, std::convert::Infallible>(Frame::trailers(HeaderMap::new()));
        let body = StreamBody::new(futures::stream::iter([only]));
        let body = Outgoing::begin(body, traffic.begin().expect("room")).await;
        let body = body.expect("room").collect().await.expect("no break");
        assert!(body.trailers().is_some());
    }

    #[tokio::test]
    async fn a_body_without_room_is_refused_before_it_begins() {
        let traffic = Traffic::new(Budget::new(16 << 20));
        let value = Full::new(Bytes::from(vec![7; 15 << 20]));
        let ticket = traffic.begin().expect("room");
        assert!(Outgoing::begin(value, ticket).await.is_err());
    }
}
