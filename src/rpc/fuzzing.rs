//! What fuzzing reaches of gRPC: the lean path, and what is looked at before a message of a peer is
//! decoded.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::{
    bounded::{ENTRIES, SENDER},
    convert,
    expected::Expected,
    lean, many, scan,
};
use crate::{
    telemetry::trace::Scope,
    traffic::{Budget, Traffic},
    wire::{FetchResponse, GetRequest, GetResponse, HandoffBatch, HandoffEntry, HandoffReceipt},
};
use gaocache_core::{
    handoff::MAX_BATCH_ENTRIES,
    ports::{Parcel, PeerAnswer, Receipt, Timestamp},
};

/// How a call on the lean path ended.
#[derive(Debug)]
pub struct Answered {
    /// HTTP's status.
    pub http: u16,
    /// gRPC's status, wherever it stands.
    pub grpc: Option<String>,
    /// All data.
    pub body: Vec<u8>,
    /// What the handler was asked, if it was.
    pub asked: Option<GetRequest>,
    /// What still counts as in flight once all is sent.
    pub in_flight: u64,
}

/// `Cache.Get` with these headers, and with a body in these parts, answered with `answer`, whose
/// value goes out apart.
pub async fn get(headers: HeaderMap, parts: Vec<Bytes>, answer: &GetResponse) -> Answered {
    let frames = parts
        .into_iter()
        .map(|it| Ok::<_, Infallible>(Frame::data(it)));
    let mut request = Request::new(StreamBody::new(stream::iter(frames)));
    *request.headers_mut() = headers;
    let budget = Budget::new(64 << 20);
    let traffic = Traffic::new(budget.clone());
    let mut asked = None;
    let patience = Duration::from_secs(1);
    let response = lean::unary(
        request,
        traffic.begin_anyway(),
        Expected::small(patience),
        |_| Scope::Nothing,
        async |question: GetRequest| {
            asked = Some(question);
            let mut head = answer.clone();
            let value = std::mem::take(&mut head.value);
            Ok(lean::Reply::new(&head, convert::GET_VALUE, value))
        },
    );
    let (head, body) = response.await.into_parts();
    let Ok(body) = body.collect().await;
    let in_trailers = body.trailers().and_then(|it| it.get("grpc-status"));
    let status = in_trailers.or_else(|| head.headers.get("grpc-status"));
    let grpc = status.and_then(|it| Some(it.to_str().ok()?.to_owned()));
    let body = body.to_bytes().to_vec();
    Answered {
        http: head.status.as_u16(),
        grpc,
        body,
        asked,
        in_flight: budget.used(),
    }
}

/// Whether a batch has no more entries than are decoded, and what it says about its sender.
pub fn batch(message: &[u8]) -> (bool, u64) {
    (
        scan::has_at_most(message, ENTRIES, MAX_BATCH_ENTRIES),
        scan::fixed64(message, SENDER),
    )
}

/// Whether the body of a `GetMany` has no more keys than that.
pub fn has_few_keys(body: &Bytes, most: usize) -> bool {
    many::check(body, most).is_ok()
}

/// The entries of a batch.
pub fn parcels(batch: HandoffBatch, read_at: Timestamp) -> Option<Vec<Parcel>> {
    convert::parcels(batch, read_at)
}

/// Entries as they go out.
pub fn entries(parcels: Vec<Parcel>, now: Timestamp) -> Vec<HandoffEntry> {
    convert::handoff_entries(parcels, now)
}

/// What a peer answered.
pub fn answer(response: FetchResponse, asked_at: Timestamp) -> Option<PeerAnswer> {
    convert::peer_answer(response, asked_at)
}

/// The same as it goes out, on the lean path and as the generated code has it.
pub fn fetched(answer: PeerAnswer, now: Timestamp) -> (Bytes, FetchResponse) {
    let lean = convert::fetch_reply(answer.clone(), now, now).message();
    (lean, convert::fetch_response(answer, now, now))
}

/// What a peer says about the entries that it was sent.
pub fn receipt(receipt: &HandoffReceipt) -> Receipt {
    convert::receipt(receipt)
}
