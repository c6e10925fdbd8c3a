//! gRPC calls without tonic's server machinery, for those that carry the load: `Cache.Get`,
//! `Peer.Fetch` and `Peer.FetchHeld`, and what `Cache.GetMany` (`many_body`) has in common with
//! them.
//!
//! tonic encodes a message into one buffer, which copies the value, and runs each call through a
//! stack of boxed layers. Here, the value is sent as a frame of its own that shares the bytes in
//! the store. In every other respect the calls follow
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> and behave like tonic's; the
//! tests run both against the same client. Compressed messages are not accepted and never sent.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

#[cfg(any(test, feature = "fuzzing"))]
use bytes::Buf;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use prost::Message;
use tonic::Status;

use super::expected::Expected;
use crate::{
    status::grpc::to_status,
    telemetry::trace::Scope,
    traffic::{PREFIX_BYTES, SLICE, Ticket},
};
use gaocache_core::error::Error;

/// Values up to this size are copied behind the head, since one small frame costs less than two.
const COPIED_BYTES: usize = 4 * 1024;

/// A message whose last field is a large `bytes` that is not copied.
pub(super) struct Reply {
    head: BytesMut,
    value: Bytes,
}

/// The message within another one that ends with the value.
pub(super) struct Inner<'a, M> {
    /// The number (1 to 15) of its field in the outer message.
    pub(super) field: u8,
    /// It, without the value.
    pub(super) message: &'a M,
}

impl Reply {
    /// `head` is the message without its value; `field` is the number (1 to 15) of the value's
    /// field.
    pub(super) fn new(head: &impl Message, field: u8, value: Bytes) -> Self {
        Self::write(head, None::<Inner<'_, ()>>, field, value)
    }

    /// `head` is the message without `inner`; the value is a field of `inner`.
    pub(super) fn nested<M: Message>(
        head: &impl Message,
        inner: Inner<'_, M>,
        field: u8,
        value: Bytes,
    ) -> Self {
        Self::write(head, Some(inner), field, value)
    }

    fn write<M: Message>(
        head: &impl Message,
        inner: Option<Inner<'_, M>>,
        field: u8,
        value: Bytes,
    ) -> Self {
        let mut buffer = BytesMut::new();
        let value = put(&mut buffer, head, inner, (field, value), COPIED_BYTES);
        Self {
            head: buffer,
            value,
        }
    }

    /// Counts what the reply pins.
    fn count(&self, ticket: &mut Ticket) -> Result<(), Error> {
        ticket.charge(self.head.len())?;
        if self.value.is_empty() {
            return Ok(());
        }
        ticket.pin(&self.value)
    }

    /// The whole message, without gRPC's prefix.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn message(mut self) -> Bytes {
        self.head.advance(PREFIX_BYTES);
        self.head.put_slice(&self.value);
        self.head.freeze()
    }
}

/// Appends a message with its prefix: `head` is the message without its value, or without `inner`,
/// which the value is a field of then. Returns a value of more than `most` bytes, which has to
/// follow.
pub(super) fn put<M: Message>(
    buffer: &mut BytesMut,
    head: &impl Message,
    inner: Option<Inner<'_, M>>,
    (field, value): (u8, Bytes),
    most: usize,
) -> Bytes {
    let copied = Some(value.len()).filter(|it| *it <= most).unwrap_or(0);
    let nested = inner.as_ref().map_or(0, |it| it.message.encoded_len());
    let begin = buffer.len();
    // Prefix, heads, and for each of value and inner message its tag (1 byte) and length.
    buffer.reserve(PREFIX_BYTES + head.encoded_len() + nested + 2 * TAG_AND_LENGTH + copied);
    buffer.put_bytes(0, PREFIX_BYTES);
    // A BytesMut grows as needed, so encoding can't fail.
    let _ = head.encode(buffer);
    if let Some(Inner {
        field: outer,
        message,
    }) = inner
    {
        let mut length = nested + value.len();
        if !value.is_empty() {
            length += 1 + prost::encoding::encoded_len_varint(value.len() as u64);
        }
        put_tag_and_length(buffer, outer, length);
        let _ = message.encode(buffer);
    }
    if !value.is_empty() {
        put_tag_and_length(buffer, field, value.len());
    }
    let prefix = begin + PREFIX_BYTES;
    let message = (buffer.len() - prefix + value.len()) as u32;
    buffer[begin + 1..prefix].copy_from_slice(&message.to_be_bytes());
    if value.len() > most {
        return value;
    }
    buffer.put_slice(&value);
    Bytes::new()
}

/// The most that a field's tag (below 16) and length take, in bytes.
const TAG_AND_LENGTH: usize = 11;

fn put_tag_and_length(buffer: &mut BytesMut, field: u8, length: usize) {
    // Wire type 2: length-delimited.
    buffer.put_u8(field << 3 | 2);
    prost::encoding::encode_varint(length as u64, buffer);
}

/// The body of a response: the head, the value if it is large, and the trailers.
#[derive(Default)]
pub struct LeanBody {
    /// Counts head and value, goes out with the last of their bytes, and is dropped before them.
    ticket: Option<Ticket>,
    head: Bytes,
    value: Bytes,
    trailers: Option<HeaderMap>,
}

impl LeanBody {
    fn next_data(&mut self) -> Bytes {
        if self.value.len() > SLICE || !(self.head.is_empty() || self.value.is_empty()) {
            if let Some(ticket) = &mut self.ticket {
                ticket.advances();
            }
            return if self.head.is_empty() {
                self.value.split_to(SLICE)
            } else {
                std::mem::take(&mut self.head)
            };
        }
        let last = if self.head.is_empty() {
            std::mem::take(&mut self.value)
        } else {
            std::mem::take(&mut self.head)
        };
        match self.ticket.take() {
            Some(mut ticket) if !last.is_empty() => {
                ticket.advances();
                ticket.hold(last)
            }
            _ => last,
        }
    }
}

impl Body for LeanBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = self.next_data();
        if !data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(self.trailers.take().map(|it| Ok(Frame::trailers(it))))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.value.is_empty() && self.trailers.is_none()
    }

    // Not exact: hyper would tell the length in a header, which gRPC has no use for.
    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower((self.head.len() + self.value.len()) as u64);
        hint
    }
}

/// Reads a request, calls `handle` within the caller's deadline and trace, and writes the response,
/// which `ticket` counts.
pub(super) async fn unary<B, C, Q, H>(
    request: Request<B>,
    mut ticket: Ticket,
    expected: Expected<C>,
    scope: impl FnOnce(&HeaderMap) -> Scope,
    handle: H,
) -> Response<LeanBody>
where
    B: Body<Data = Bytes>,
    C: FnOnce(&Bytes) -> Result<(), Error>,
    Q: Message + Default,
    H: AsyncFnOnce(Q) -> Result<Reply, Error>,
{
    let (parts, body) = request.into_parts();
    if !is_grpc(&parts.headers) {
        return no_grpc();
    }
    let deadline = deadline(&parts.headers);
    let scope = scope(&parts.headers);
    let answer = pin!(async move {
        let question = expected.read(body, &mut ticket).await?;
        let reply = handle(question).await.and_then(|reply| {
            reply.count(&mut ticket)?;
            Ok((reply, ticket))
        });
        reply.map_err(|error| to_status(&error))
    });
    let answer = scope.run(answer);
    let answer = match deadline {
        Some(deadline) => tokio::time::timeout(deadline, answer)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("deadline exceeded"))),
        None => answer.await,
    };
    match answer {
        Ok((reply, ticket)) => respond(reply, ticket),
        Err(status) => status.into_http(),
    }
}

/// The answer to what is no gRPC.
pub(super) fn no_grpc() -> Response<LeanBody> {
    let mut response = Response::new(LeanBody::default());
    *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// The head of a response that ends well.
pub(super) fn response<T>(body: T) -> Response<T> {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, grpc);
    response
}

/// The end of a response that ends well.
pub(super) fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

fn respond(reply: Reply, ticket: Ticket) -> Response<LeanBody> {
    response(LeanBody {
        head: reply.head.freeze(),
        value: reply.value,
        trailers: Some(trailers()),
        ticket: Some(ticket),
    })
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type
        .is_some_and(|it| it == b"application/grpc" || it.starts_with(b"application/grpc+proto"))
}

/// Parses `grpc-timeout`: up to eight digits and a unit. As in tonic, an invalid value means no
/// deadline.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::traffic::{Budget, Traffic};

    #[test]
    fn deadlines_are_read_as_grpc_writes_them() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            deadline(&headers)
        };
        assert_eq!(of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(of("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(of("99999999u"), Some(Duration::from_micros(99_999_999)));
        for wrong in ["", "S", "2", "2s", "-2S", "123456789S"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_large_value_goes_out_as_the_very_bytes_that_are_kept() {
        let kept = Bytes::from(vec![1u8; 100_000]);
        let reply = Reply::new(&(), 1, kept.clone());
        let mut ticket = Traffic::new(Budget::new(1 << 20)).begin().expect("room");
        reply.count(&mut ticket).expect("room");
        let mut body = respond(reply, ticket).into_body();
        let mut frames = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            frames.extend(frame.into_data());
        }
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[1].as_ptr(), kept.as_ptr(), "copied");
    }
}
