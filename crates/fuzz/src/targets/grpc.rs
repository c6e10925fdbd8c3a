//! gRPC: the lean path, held against the generated code and the standard, and messages of peers.

use std::time::Duration;

use bytes::Bytes;
use gaocache::{
    Metadata,
    fuzzing::rpc,
    internal::wire::{
        FetchResponse, GetManyRequest, GetRequest, GetResponse, HandoffBatch, HandoffReceipt,
    },
};
use gaocache_core::{handoff::MAX_BATCH_ENTRIES, ports::Timestamp};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use prost::Message;

use crate::memory::bounded;

/// The longest message that the lean path takes, with its prefix.
const MOST_BYTES: usize = 16 << 10;
/// On either side of where a value goes out apart, and of where it goes out in slices.
const VALUES: [usize; 5] = [0, 100, 4096, 4097, 300_000];

/// A get: the bytes that the client reads are those of the generated code, its failures are those
/// of the standard, and nothing stays in flight. The first two bytes choose headers, the way in
/// which the body comes, and the value.
pub fn get(input: &[u8]) {
    let Some(([how, shape], body)) = input.split_first_chunk() else {
        return;
    };
    let mut headers = HeaderMap::new();
    let types = ["application/grpc", "application/grpc+proto", "text/plain"];
    let kind = types[usize::from(how % 3)];
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let timeouts = ["", "1S", "99999999H", "4294967295S", "-1S", "x"];
    let timeout = timeouts[usize::from(how / 3) % timeouts.len()];
    headers.insert("grpc-timeout", HeaderValue::from_static(timeout));
    let answer = GetResponse {
        ttl_remaining_ms: Some(u64::from(*how)),
        owner: "me".into(),
        entity_tag: u64::from(*shape),
        value: vec![7; VALUES[usize::from(*shape) % VALUES.len()]].into(),
        ..GetResponse::default()
    };
    let step = 1 + usize::from(shape / 8) * 7;
    let parts = body.chunks(step).map(Bytes::copy_from_slice).collect();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().build().expect("a runtime");
    let value = answer.value.len();
    // The answer is copied for the client.
    let fixed = 3 * value + (64 << 10);
    let got = bounded(body.len(), 16, fixed, || {
        runtime.block_on(rpc::get(headers, parts, &answer))
    });
    assert_eq!(got.in_flight, 0, "all of it was sent");
    if kind == "text/plain" {
        assert_eq!((got.http, &got.asked), (415, &None));
        return;
    }
    assert_eq!(got.http, 200);
    match question(body) {
        Ok(question) => {
            assert_eq!(got.asked, Some(question));
            assert_eq!(got.grpc.as_deref(), Some("0"));
            let (prefix, message) = got.body.split_at(5);
            let length = u32::try_from(message.len()).expect("small");
            assert_eq!((prefix[0], &prefix[1..]), (0, &length.to_be_bytes()[..]));
            // Fields may come in any order, and the value comes last.
            assert_eq!(message.len(), answer.encoded_len());
            assert_eq!(GetResponse::decode(message), Ok(answer));
        }
        Err(code) => {
            assert_eq!((got.grpc.as_deref(), got.asked), (Some(code), None));
            assert!(got.body.is_empty());
        }
    }
}

/// What a body asks, or the code of gRPC that refuses it.
fn question(body: &[u8]) -> Result<GetRequest, &'static str> {
    if body.len() > MOST_BYTES {
        return Err("3");
    }
    let (prefix, message) = body.split_at_checked(5).ok_or("13")?;
    if prefix[0] != 0 {
        return Err("12");
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if length as usize != message.len() {
        return Err("13");
    }
    GetRequest::decode(message).map_err(|_| "3")
}

/// Messages of peers, of the kind that the first byte says.
pub fn peer_messages(input: &[u8]) {
    let Some((kind, message)) = input.split_first() else {
        return;
    };
    match kind % 5 {
        0 => batch(message),
        1 => fetched(message),
        2 => many(message),
        3 => receipt(message),
        _ => metadata(message),
    }
}

/// What is counted before a batch is decoded is what is decoded; an admitted one takes bounded
/// memory; and what is read goes out as it came in.
fn batch(message: &[u8]) {
    let (admitted, sender) = bounded(message.len(), 0, 1 << 10, || rpc::batch(message));
    if !admitted {
        if let Ok(batch) = HandoffBatch::decode(message) {
            assert!(batch.entries.len() > MAX_BATCH_ENTRIES, "it is small");
        }
        return;
    }
    let decoded = bounded(message.len(), 4, MAX_BATCH_ENTRIES * 600, || {
        HandoffBatch::decode(message)
    });
    let Ok(batch) = decoded else {
        return;
    };
    assert!(batch.entries.len() <= MAX_BATCH_ENTRIES);
    assert_eq!(batch.sender, sender);
    let now = Timestamp(1 << 40);
    let entries = batch.entries.len();
    let Some(parcels) = rpc::parcels(batch, now) else {
        return;
    };
    assert_eq!(parcels.len(), entries);
    let again = HandoffBatch {
        format: 1,
        entries: rpc::entries(parcels.clone(), now),
        ..HandoffBatch::default()
    };
    let again = rpc::parcels(again, now).expect("written by a node");
    for (before, after) in parcels.iter().zip(&again) {
        assert_eq!((&before.key, &before.what), (&after.key, &after.what));
        assert_eq!(before.group, after.group);
        assert_eq!(
            (before.use_count, before.copy),
            (after.use_count, after.copy)
        );
    }
}

/// An answer gets no younger on its way, and goes out on the lean path as by the generated code.
fn fetched(message: &[u8]) {
    let Ok(response) = FetchResponse::decode(message) else {
        return;
    };
    let (asked, took) = (Timestamp(1 << 40), Duration::from_millis(response.took_ms));
    let Some(answer) = rpc::answer(response, asked) else {
        return;
    };
    let read = asked.after(took);
    let (lean, generated) = rpc::fetched(answer.clone(), read);
    assert_eq!(FetchResponse::decode(lean), Ok(generated.clone()));
    let again = rpc::answer(generated, read).expect("written by a node");
    assert_eq!(again.record, answer.record);
    let later = read.after(Duration::from_secs(1));
    let (_, later) = rpc::fetched(answer.clone(), later);
    let later = rpc::answer(later, read).expect("written by a node");
    assert!(later.record.expires_at <= answer.record.expires_at);
}

/// What is counted before keys are decoded is what is decoded.
fn many(message: &[u8]) {
    let body = Bytes::from([&[0; 5], message].concat());
    let Ok(request) = GetManyRequest::decode(message) else {
        rpc::has_few_keys(&body, 3);
        return;
    };
    let keys = request.keys.len();
    for most in keys.saturating_sub(2)..keys + 2 {
        assert_eq!(rpc::has_few_keys(&body, most), keys <= most);
    }
}

/// Each entry has a fate, known or not.
fn receipt(message: &[u8]) {
    if let Ok(receipt) = HandoffReceipt::decode(message) {
        assert_eq!(rpc::receipt(&receipt).fates.len(), receipt.fates.len());
    }
}

/// What is accepted is what a node could have made itself, and it can be sent on.
fn metadata(bytes: &[u8]) {
    let Some(metadata) = bounded(bytes.len(), 4, 1 << 10, || Metadata::from_bytes(bytes)) else {
        return;
    };
    assert_eq!(metadata.as_bytes(), bytes);
    for (name, value) in metadata.iter() {
        assert!(http::HeaderName::from_bytes(name.as_bytes()).is_ok_and(|it| it == name));
        assert!(
            HeaderValue::from_bytes(value.as_bytes()).is_ok(),
            "{value:?}"
        );
    }
    let trimmed = |(_, value): (&str, &str)| value == value.trim_matches([' ', '\t']);
    if metadata.iter().all(trimmed) {
        let again = Metadata::new(metadata.iter()).expect("as it was");
        assert_eq!(again, metadata);
    }
}
