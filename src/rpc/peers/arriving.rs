//! Answers of peers, counted while they arrive.
//!
//! What has arrived is decoded at once and handed to those who wait, who count it from then on. So
//! only a message that is not there yet is counted: with all of its length, before there is memory
//! for it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::{Status, body, codegen::Service, transport};

use crate::{
    status::grpc::to_status,
    traffic::{Budget, Charge, MessageCursor},
};
use gaocache_core::error::Result;

/// A connection whose answers are counted.
#[derive(Clone)]
pub(super) struct Counted {
    channel: transport::Channel,
    budget: Arc<Budget>,
    /// What is longer is refused by its reader.
    longest: usize,
}

impl Counted {
    pub(super) fn new(channel: transport::Channel, budget: Arc<Budget>, longest: usize) -> Self {
        Self {
            channel,
            budget,
            longest,
        }
    }
}

impl Service<Request<body::Body>> for Counted {
    type Response = Response<Arriving<body::Body>>;
    type Error = transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, task: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(task)
    }

    fn call(&mut self, request: Request<body::Body>) -> Self::Future {
        let (answer, budget) = (self.channel.call(request), self.budget.clone());
        let longest = self.longest;
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| Arriving::new(body, &budget, longest)))
        })
    }
}

/// The body of an answer.
pub(super) struct Arriving<B> {
    body: B,
    longest: usize,
    cursor: MessageCursor,
    /// Counts the last message that did not come in one piece.
    charge: Charge,
}

impl<B> Arriving<B> {
    fn new(body: B, budget: &Arc<Budget>, longest: usize) -> Self {
        Self {
            body,
            longest,
            cursor: MessageCursor::default(),
            charge: Charge::none(budget),
        }
    }

    fn count(&mut self, data: &[u8]) -> Result<()> {
        if self.cursor.has_whole_message() {
            // It has been decoded, or nobody would read on.
            self.charge.release();
        }
        let (charge, longest) = (&mut self.charge, self.longest);
        self.cursor.pass(data, |length, behind| {
            charge.release();
            if length > behind {
                charge.grow(length.min(longest) as u64)?;
            }
            Ok(())
        })
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(task));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(error) = self.count(data)
        {
            return Poll::Ready(Some(Err(to_status(&error))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use gaocache_core::error::ErrorKind;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::{status::grpc::from_status, traffic::PREFIX_BYTES};

    const MIB: usize = 1 << 20;

    fn message(length: usize) -> Vec<u8> {
        let announced = u32::try_from(length).expect("short");
        let mut message = vec![0];
        message.extend_from_slice(&announced.to_be_bytes());
        message.resize(PREFIX_BYTES + length, 7);
        message
    }

    /// These bytes, so many at a time.
    fn in_pieces(
        bytes: &[u8],
        size: usize,
        budget: &Arc<Budget>,
    ) -> Arriving<impl Body<Data = Bytes, Error = Status> + Unpin + use<>> {
        let pieces: Vec<_> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        let frames = pieces
            .into_iter()
            .map(|it| Ok::<_, Infallible>(Frame::data(it)));
        let body = StreamBody::new(stream::iter(frames)).map_err(|never| match never {});
        Arriving::new(body, budget, 2 * MIB)
    }

    #[tokio::test]
    async fn a_message_is_counted_from_its_first_piece_until_it_has_been_read() {
        let budget = Budget::new(16 * MIB as u64);
        let bytes = [message(100), message(MIB), message(0), message(50)].concat();
        for size in [1, 3, 1000] {
            let mut body = in_pieces(&bytes, size, &budget);
            let (mut came, mut most) = (0, 0);
            while let Some(frame) = body.frame().await {
                came += frame.expect("room").into_data().expect("data").len();
                most = most.max(budget.used());
                let large = PREFIX_BYTES + 100 + PREFIX_BYTES..2 * PREFIX_BYTES + 100 + MIB;
                if large.contains(&came) {
                    assert_eq!(budget.used(), MIB as u64, "{came} in pieces of {size}");
                }
            }
            assert_eq!((came, most), (bytes.len(), MIB as u64));
            assert!(budget.used() < 100, "{} in pieces of {size}", budget.used());
            drop(body);
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn what_has_no_room_is_refused_before_it_comes_and_what_is_too_long_is_its_reader_s() {
        let budget = Budget::new(MIB as u64);
        let error = in_pieces(&message(2 * MIB), 1000, &budget).frame().await;
        let status = error.expect("an end").expect_err("no room");
        let error = from_status(&status).expect("ours");
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(budget.used(), 0);

        let budget = Budget::new(16 * MIB as u64);
        let mut long = in_pieces(&message(12 * MIB), 1000, &budget);
        assert!(long.frame().await.expect("a piece").is_ok());
        assert_eq!(budget.used(), 2 * MIB as u64, "no more is read");
    }
}
