//! `GetMany`: many keys in one call, answered as they become ready.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tonic::Status;

use super::{bounded::has_at_most, convert, wire};
use crate::{
    service::{MANY_AT_ONCE, Service},
    telemetry::trace::Scope,
    traffic::Traffic,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// The field number of the keys in a request.
const KEYS: u32 = 2;

/// Refuses a request of more than `most` keys, before it is decoded: a key of no bytes takes two in
/// the request, many times that once decoded, and as much again for its answer. What is no valid
/// message is left to the decoder.
pub(super) fn check(body: &Bytes, most: usize) -> Result<()> {
    /// gRPC's prefix of a message.
    const PREFIX_BYTES: usize = 5;
    let message = body.slice(PREFIX_BYTES.min(body.len())..);
    if has_at_most(message, KEYS, most) {
        return Ok(());
    }
    let what = format!("at most {most} keys in one request (limits.max_keys_per_request)");
    Err(Error::new(ErrorKind::InvalidRequest, what))
}

/// The answers to a request that came over a connection.
pub(super) fn answers(
    service: Service,
    request: wire::GetManyRequest,
    traffic: Option<Arc<Traffic>>,
) -> impl Stream<Item = Result<wire::GetManyResponse, Status>> + Send {
    let group: Arc<str> = request.group.into();
    // The stream outlives this call and continues its trace.
    let scope = Scope::current();
    let answers = stream::iter(request.keys).map(move |key| {
        let (service, group) = (service.clone(), group.clone());
        let (scope, traffic) = (scope.clone(), traffic.clone());
        async move {
            let mut answer = scope.run(pin!(service.get(&group, &key))).await;
            // Answers that are ready wait until the client has read those before.
            if let (Ok(answer), Some(traffic)) = (&mut answer, traffic) {
                let value = std::mem::take(&mut answer.value);
                match traffic.hold(value) {
                    Ok(value) => answer.value = value,
                    Err(error) => {
                        return Ok(convert::many_response(key, Err(error), service.now()));
                    }
                }
            }
            Ok(convert::many_response(key, answer, service.now()))
        }
    });
    answers.buffer_unordered(MANY_AT_ONCE)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use prost::Message;

    use super::*;

    fn body(keys: usize) -> Bytes {
        let request = wire::GetManyRequest {
            group: "g".into(),
            keys: vec![String::new(); keys],
        };
        let mut body = BytesMut::new();
        body.put_bytes(0, 5);
        request.encode(&mut body).expect("it grows");
        body.freeze()
    }

    #[test]
    fn keys_are_counted_before_they_are_decoded() {
        assert!(check(&body(1_000), 1_000).is_ok());
        let error = check(&body(1_001), 1_000).expect_err("too many");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        for invalid in [
            &b""[..],
            b"\0\0",
            b"\0\0\0\0\x01\xff",
            b"\0\0\0\0\x02\x12\x7f",
        ] {
            assert!(check(&Bytes::from_static(invalid), 1).is_ok());
        }
    }
}
