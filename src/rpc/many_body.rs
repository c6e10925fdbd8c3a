//! The response of a `GetMany`: what is ready at the same moment goes out together.
//!
//! An answer is encoded only when the connection takes it, so that it tells what is left of its
//! life then.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    vec,
};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

use super::{
    convert,
    lean::{self, Inner},
};
use crate::{traffic::Ticket, wire};
use gaocache_core::{error::Result, group::Answer, ports::Timestamp};

/// So many bytes go out at once, and an answer that is begun by then.
const ENOUGH: usize = 32 << 10;
/// Values from this size on go out uncopied.
pub(super) const APART: usize = 64 << 10;

/// Answers that came at the same moment, and what counts them while they wait.
pub(super) struct Counted {
    pub(super) answers: vec::IntoIter<(usize, Result<Answer>)>,
    /// Dropped with the last of them.
    pub(super) _ticket: Option<Ticket>,
}

/// The body of the response.
pub(super) struct ManyBody<S, N> {
    batches: S,
    /// Batches are over.
    is_over: bool,
    current: Option<Counted>,
    keys: Arc<[String]>,
    /// The present moment.
    now: N,
    /// Has to follow what is encoded.
    value: Bytes,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
}

impl<S, N> ManyBody<S, N>
where
    S: Stream<Item = Counted> + Unpin,
    N: Fn() -> Timestamp + Unpin,
{
    pub(super) fn new(batches: S, keys: Arc<[String]>, now: N) -> Self {
        Self {
            batches,
            is_over: false,
            current: None,
            keys,
            now,
            value: Bytes::new(),
            buffer: BytesMut::new(),
            trailers: Some(lean::trailers()),
        }
    }

    /// Encodes what is ready, until there is enough.
    fn poll_more(&mut self, task: &mut Context<'_>) -> Poll<()> {
        let mut now = None;
        while self.value.is_empty() && self.buffer.len() < ENOUGH {
            let Some(current) = &mut self.current else {
                match ready!(Pin::new(&mut self.batches).poll_next(task)) {
                    Some(batch) => self.current = Some(batch),
                    None => {
                        self.is_over = true;
                        break;
                    }
                }
                continue;
            };
            match current.answers.next() {
                Some((place, answer)) => {
                    let now = *now.get_or_insert_with(|| (self.now)());
                    self.value = put(&mut self.buffer, &self.keys[place], answer, now);
                }
                None => self.current = None,
            }
        }
        Poll::Ready(())
    }
}

/// Appends an answer; returns a value that has to follow.
fn put(buffer: &mut BytesMut, key: &str, answer: Result<Answer>, now: Timestamp) -> Bytes {
    let key = key.to_owned();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let message = convert::many_response(key, Err(error), now);
            return lean::put(
                buffer,
                &message,
                None::<Inner<'_, ()>>,
                (1, Bytes::new()),
                0,
            );
        }
    };
    let head = wire::GetManyResponse { key, outcome: None };
    let mut found = convert::get_response(answer, now);
    let value = std::mem::take(&mut found.value);
    let inner = Inner {
        field: convert::MANY_FOUND,
        message: &found,
    };
    lean::put(
        buffer,
        &head,
        Some(inner),
        (convert::GET_VALUE, value),
        APART - 1,
    )
}

impl<S, N> Body for ManyBody<S, N>
where
    S: Stream<Item = Counted> + Unpin,
    N: Fn() -> Timestamp + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let more = match this.value.is_empty() && !this.is_over {
            true => this.poll_more(task),
            false => Poll::Ready(()),
        };
        if !this.buffer.is_empty() {
            let data = this.buffer.split().freeze();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !this.value.is_empty() {
            let value = std::mem::take(&mut this.value);
            return Poll::Ready(Some(Ok(Frame::data(value))));
        }
        ready!(more);
        Poll::Ready(this.trailers.take().map(|it| Ok(Frame::trailers(it))))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use futures::{FutureExt, StreamExt, stream};
    use http_body_util::BodyExt;
    use prost::Message;

    use super::*;
    use gaocache_core::{
        error::Error,
        group::{Course, Source},
        metadata::Metadata,
    };

    const NOW: Timestamp = Timestamp(1_000);

    fn answer(bytes: usize) -> Answer {
        Answer {
            value: vec![7; bytes].into(),
            expires_at: Timestamp(5_000),
            entity_tag: 9,
            source: Source::Peer,
            owner: "n1".into(),
            metadata: Metadata::new([("content-type", "text/plain")]).expect("good"),
            course: Course::default(),
        }
    }

    /// The messages of a response.
    fn messages(mut bytes: Bytes) -> Vec<wire::GetManyResponse> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(bytes.get_u8(), 0);
            let length = bytes.get_u32() as usize;
            let message = bytes.split_to(length);
            messages.push(wire::GetManyResponse::decode(message).expect("a message"));
        }
        messages
    }

    #[tokio::test]
    async fn answers_are_encoded_as_by_the_generated_code_and_large_values_are_not_copied() {
        let sizes = [0, 1, 127, 128, 20_000, APART - 1, APART, 3 * APART, 5];
        let keys: Arc<[String]> = sizes.map(|bytes| bytes.to_string()).into();
        let large = answer(3 * APART);
        let address = large.value.as_ptr();
        let answers = sizes.map(|bytes| match bytes {
            0 => Err(Error::not_found("no such key")),
            bytes if bytes == large.value.len() => Ok(large.clone()),
            bytes => Ok(answer(bytes)),
        });
        let counted = |answers: Vec<(usize, Result<Answer>)>| Counted {
            answers: answers.into_iter(),
            _ticket: None,
        };
        let all: Vec<_> = answers.clone().into_iter().enumerate().collect();
        let (first, others) = (all[..4].to_vec(), all[4..].to_vec());
        let batches = [counted(first), counted(Vec::new()), counted(others)];
        let mut body = ManyBody::new(stream::iter(batches), keys.clone(), || NOW);
        let (mut bytes, mut uncopied, mut trailers) = (BytesMut::new(), false, None);
        while let Some(frame) = body.frame().await {
            match frame.expect("no failure").into_data() {
                Ok(data) => {
                    uncopied |= data.as_ptr() == address;
                    bytes.extend_from_slice(&data);
                }
                Err(end) => trailers = end.into_trailers().ok(),
            }
        }
        assert!(uncopied);
        assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
        let wanted = keys.iter().zip(answers);
        let wanted: Vec<_> = wanted
            .map(|(key, answer)| convert::many_response(key.clone(), answer, NOW))
            .collect();
        assert_eq!(messages(bytes.freeze()), wanted);
    }

    #[tokio::test]
    async fn what_is_ready_goes_out_before_the_rest_has_come() {
        let keys: Arc<[String]> = ["a", "b"].map(str::to_owned).into();
        let counted = |place| Counted {
            answers: vec![(place, Ok(answer(10)))].into_iter(),
            _ticket: None,
        };
        let batches = stream::iter([counted(0), counted(1)]).chain(stream::pending());
        let mut body = ManyBody::new(batches, keys, || NOW);
        let frame = body.frame().now_or_never().expect("ready");
        let data = frame.expect("a frame").expect("no failure").into_data();
        assert_eq!(messages(data.expect("data")).len(), 2, "in one frame");
        assert!(body.frame().now_or_never().is_none(), "it goes on");
    }
}
