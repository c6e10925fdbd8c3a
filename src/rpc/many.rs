//! `GetMany` and `FetchMany`: many keys in one call, answered as they become ready.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{
    convert,
    expected::MAX_REQUEST_BYTES,
    many_body::{APART, Counted},
    scan::has_at_most,
};
use crate::{
    fairness::ClientId,
    service::Service,
    telemetry::trace::Scope,
    traffic::{PREFIX_BYTES, Traffic},
    wire,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Answer, Batch, MAX_GROUP_NAME_BYTES, MAX_KEY_BYTES},
    ports::{Fetched, MAX_BATCH_KEYS},
};

/// All keys of one message between nodes, in bytes.
pub(super) const MAX_FETCHED_KEY_BYTES: usize = 1 << 20;

/// The most keys of gets that come at the same moment and share a message, which is answered from
/// memory, and all of them, in bytes.
pub(super) const MAX_GATHERED_KEYS: usize = 128;
pub(super) const MAX_GATHERED_KEY_BYTES: usize = 12 << 10;
/// All keys of a batch in such a message, and the whole message, in bytes.
pub(super) const MAX_HELD_KEY_BYTES: usize = 48 << 10;
pub(super) const MAX_HELD_BYTES: usize = 64 << 10;

/// A key below 16 KiB, and a group's name, have their tag and their length before them.
const FIELD_HEAD_BYTES: usize = 3;

const _: () = {
    assert!(fit(
        MAX_GATHERED_KEYS,
        MAX_GATHERED_KEY_BYTES,
        MAX_REQUEST_BYTES
    ));
    assert!(fit(MAX_BATCH_KEYS, MAX_HELD_KEY_BYTES, MAX_HELD_BYTES));
};

/// Whether so many keys of so many bytes fit into such a request, and the longest key does.
const fn fit(keys: usize, key_bytes: usize, request_bytes: usize) -> bool {
    let group = MAX_GROUP_NAME_BYTES + FIELD_HEAD_BYTES;
    PREFIX_BYTES + group + keys * FIELD_HEAD_BYTES + key_bytes <= request_bytes
        && MAX_KEY_BYTES <= key_bytes
        && MAX_KEY_BYTES < 1 << 14
}

/// The keys of each message, in their order: at most so many, and so many bytes of them, unless one
/// key alone has more. No message is empty.
pub(super) fn in_messages<T>(
    keys: Vec<T>,
    text: impl Fn(&T) -> &str,
    most_keys: usize,
    most_bytes: usize,
) -> Vec<Vec<T>> {
    let (mut messages, mut bytes) = (Vec::<Vec<T>>::new(), 0);
    for key in keys {
        bytes += text(&key).len();
        match messages.last_mut() {
            Some(last) if last.len() < most_keys && bytes <= most_bytes => last.push(key),
            _ => {
                bytes = text(&key).len();
                messages.push(vec![key]);
            }
        }
    }
    messages
}

/// The field number of the keys in either request.
const KEYS: u32 = 2;

/// Refuses a client's request of more than `most` keys, before it is decoded.
pub(super) fn check(body: &Bytes, most: usize) -> Result<()> {
    check_keys(body, most, " (limits.max_keys_per_request)")
}

/// The same for the request of another node.
pub(super) fn check_fetch(body: &Bytes) -> Result<()> {
    check_keys(body, MAX_BATCH_KEYS, "")
}

/// A key of no bytes takes two in the request, many times that once decoded, and as much again for
/// its answer. An invalid message is left to the decoder.
fn check_keys(body: &Bytes, most: usize, limit: &str) -> Result<()> {
    let message = body.slice(PREFIX_BYTES.min(body.len())..);
    if has_at_most(message, KEYS, most) {
        return Ok(());
    }
    let what = format!("at most {most} keys in one request{limit}");
    Err(Error::new(ErrorKind::InvalidRequest, what))
}

/// The answers to a client's request that came over a connection.
///
/// # Errors
/// [`ErrorKind::Overloaded`] if too many bytes are in flight.
pub(super) fn answers(
    service: &Service,
    group: &str,
    keys: Arc<[String]>,
    traffic: &Arc<Traffic>,
) -> Result<impl Stream<Item = Counted> + Send + Unpin + use<>> {
    let counted = traffic.begin()?;
    let (of_flights, traffic) = (traffic.clone(), traffic.clone());
    let count = move |bytes| of_flights.charge(bytes);
    let parts = service.get_in_parts(group, keys, count).map(move |part| {
        let traffic = traffic.clone();
        read_ahead(in_scope(part).map(move |batch| held(&traffic, batch)))
    });
    // The next part begins only when the client has read the one before.
    let answers = in_scope(parts).flatten().map(move |batch| {
        let _counted = &counted;
        batch
    });
    Ok(Box::pin(answers))
}

/// The answers, counted: what is ready waits until its reader has taken what was before.
fn held(traffic: &Arc<Traffic>, mut batch: Batch) -> Counted {
    let (mut bytes, mut ticket) = (0, None);
    for (_, answer) in &mut batch {
        if let Ok(found) = answer {
            match found.value.len() {
                size if size < APART => bytes += size,
                // Others may share it.
                _ => match traffic.hold(std::mem::take(&mut found.value)) {
                    Ok(value) => found.value = value,
                    Err(error) => *answer = Err(error),
                },
            }
        }
    }
    if bytes > 0 {
        match traffic.wait(bytes) {
            Ok(counts) => ticket = Some(counts),
            Err(error) => {
                let small =
                    |it: &Result<Answer>| it.as_ref().is_ok_and(|it| it.value.len() < APART);
                let refused = batch.iter_mut().filter(|(_, answer)| small(answer));
                refused.for_each(|(_, answer)| *answer = Err(error.clone()));
            }
        }
    }
    Counted {
        answers: batch.into_iter(),
        _ticket: ticket,
    }
}

/// The answers to another node's request.
///
/// # Errors
/// [`ErrorKind::UnknownGroup`].
pub(super) fn fetched(
    service: Service,
    request: wire::FetchManyRequest,
    traffic: Option<Arc<Traffic>>,
) -> Result<impl Stream<Item = Result<wire::FetchManyResponse, Status>> + Send> {
    let asked_at = service.now();
    let answers = service.answer_peer_many(&request.group, request.keys)?;
    let held = in_scope(answers).map(move |(place, fetched)| {
        let fetched = fetched.and_then(|mut fetched| {
            if let Fetched::Answer(answer) = &mut fetched
                && let Some(value) = answer.record.value.take()
            {
                answer.record.value = Some(counted(traffic.as_ref(), value)?);
            }
            Ok(fetched)
        });
        (place, fetched)
    });
    Ok(read_ahead(held).map(move |(place, fetched)| {
        let now = service.now();
        Ok(convert::fetch_many_response(place, fetched, asked_at, now))
    }))
}

/// Reads on while nobody reads from it, so that what comes is counted at once, however long it
/// waits here. There are no more items than keys in a batch.
fn read_ahead<T: Send + 'static>(
    stream: impl Stream<Item = T> + Send + 'static,
) -> impl Stream<Item = T> + Send {
    let mut stream = Box::pin(stream);
    let mut come = Vec::new();
    let rest = loop {
        match stream.next().now_or_never() {
            Some(Some(item)) => come.push(item),
            Some(None) => break None,
            None => break Some(read_in_task(stream)),
        }
    };
    stream::iter(come).chain(stream::iter(rest).flatten())
}

/// Reads in a task that ends with its reader.
fn read_in_task<T: Send + 'static>(
    mut stream: impl Stream<Item = T> + Send + Unpin + 'static,
) -> impl Stream<Item = T> + Send {
    let (sender, receiver) = mpsc::channel(MAX_BATCH_KEYS);
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(item) = stream.next().await {
            if sender.send(item).await.is_err() {
                return;
            }
        }
    }));
    ReceiverStream::new(receiver).map(move |item| {
        let _task = &task;
        item
    })
}

/// The value, counted: answers that are ready wait until their reader has taken those before.
fn counted(traffic: Option<&Arc<Traffic>>, value: Bytes) -> Result<Bytes> {
    match traffic {
        Some(traffic) => traffic.hold(value),
        None => Ok(value),
    }
}

/// A stream that continues the present trace, for the same client, wherever it is read: it outlives
/// the call.
fn in_scope<S: Stream + Send>(stream: S) -> impl Stream<Item = S::Item> + Send {
    let scope = Scope::current();
    let stream = ClientId::current().reads(stream);
    stream::unfold(
        (Box::pin(stream), scope),
        |(mut stream, scope)| async move {
            let item = scope.run(pin!(stream.next())).await?;
            Some((item, (stream, scope)))
        },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[tokio::test]
    async fn what_comes_is_counted_though_nobody_reads_and_no_more_is_once_the_reader_has_gone() {
        let counted = Arc::<AtomicUsize>::default();
        let (come, comes) = futures::channel::mpsc::unbounded();
        let stream = stream::iter(0..3).chain(comes);
        let count = counted.clone();
        let read = stream.inspect(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let reader = read_ahead(read);
        assert_eq!(counted.load(Ordering::SeqCst), 3, "at once");
        (3..5).for_each(|item| come.unbounded_send(item).expect("it is read"));
        while counted.load(Ordering::SeqCst) < 5 {
            tokio::task::yield_now().await;
        }
        let mut reader = Box::pin(reader);
        for item in 0..5 {
            assert_eq!(reader.next().await, Some(item));
        }
        assert!(reader.next().now_or_never().is_none(), "it goes on");
        drop(reader);
        while !come.is_closed() {
            tokio::task::yield_now().await;
        }
    }
}
