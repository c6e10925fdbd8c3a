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
use crate::{service::Service, traffic::Ticket, wire};
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
pub(super) struct ManyBody<S> {
    batches: S,
    /// Batches are over.
    is_over: bool,
    current: Option<Counted>,
    keys: Arc<[String]>,
    service: Service,
    /// Has to follow what is encoded.
    value: Bytes,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
}

impl<S: Stream<Item = Counted> + Unpin> ManyBody<S> {
    pub(super) fn new(batches: S, keys: Arc<[String]>, service: Service) -> Self {
        Self {
            batches,
            is_over: false,
            current: None,
            keys,
            service,
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
                    let now = *now.get_or_insert_with(|| self.service.now());
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

impl<S: Stream<Item = Counted> + Unpin> Body for ManyBody<S> {
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
    use prost::Message;

    use super::*;
    use gaocache_core::{
        error::Error,
        group::{Course, Source},
        metadata::Metadata,
    };

    #[test]
    fn answers_are_encoded_as_by_the_generated_code() {
        let answer = |bytes: usize| Answer {
            value: vec![7; bytes].into(),
            expires_at: Timestamp(5_000),
            entity_tag: 9,
            source: Source::Peer,
            owner: "n1".into(),
            metadata: Metadata::new([("content-type", "text/plain")]).expect("good"),
            course: Course::default(),
        };
        let (mut buffer, now) = (BytesMut::new(), Timestamp(1_000));
        let sizes = [0, 1, 127, 128, 20_000, APART - 1, APART, 3 * APART];
        for bytes in sizes {
            let value = put(&mut buffer, "key", Ok(answer(bytes)), now);
            assert_eq!(value.len(), if bytes < APART { 0 } else { bytes });
            buffer.extend_from_slice(&value);
        }
        let error = || Err(Error::not_found("no such key"));
        put(&mut buffer, "none", error(), now);
        let mut message = || {
            assert_eq!(buffer.get_u8(), 0);
            let length = buffer.get_u32() as usize;
            let message = buffer.split_to(length).freeze();
            wire::GetManyResponse::decode(message).expect("a message")
        };
        for bytes in sizes {
            let wanted = convert::many_response("key".into(), Ok(answer(bytes)), now);
            assert_eq!(message(), wanted, "{bytes}");
        }
        assert_eq!(
            message(),
            convert::many_response("none".into(), error(), now)
        );
        assert!(buffer.is_empty());
    }
}
