//! Messages with repeated fields, which are counted before they are decoded: an element of no bytes
//! takes two on the wire, and a hundred in memory.
//!
//! Nothing that has no bound may be decoded here. An invalid message is left to the decoder.

use bytes::Buf;
use tonic::{
    Request, Response, Status, Streaming,
    codec::{Codec, DecodeBuf, Decoder},
    server::{Grpc, StreamingService},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::{
    gate::Visitor,
    peer::PeerService,
    peers::message_limit,
    scan::{fixed64, has_at_most},
};
use crate::{
    status::grpc::to_status,
    wire::{self, peer_server::Peer},
};
use gaocache_core::{handoff::MAX_BATCH_ENTRIES, membership::IdHash};

/// The field numbers of `sender` and `entries` in `HandoffBatch`.
pub(super) const SENDER: u32 = 2;
pub(super) const ENTRIES: u32 = 5;

/// `Peer.Handoff`, with batches of a bounded number of entries, whose sender is who the caller is.
/// `max_value` is the largest of any group, in bytes.
pub(super) async fn handoff<B>(
    peer: PeerService,
    visitor: Visitor,
    max_value: u64,
    request: http::Request<B>,
) -> http::Response<tonic::body::Body>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    Grpc::new(Batches(ProstCodec::default(), visitor))
        .apply_max_message_size_config(Some(message_limit(max_value)), None)
        .streaming(Handoff(peer), request)
        .await
}

struct Handoff(PeerService);

impl StreamingService<wire::HandoffBatch> for Handoff {
    type Response = wire::HandoffReceipt;
    type ResponseStream = <PeerService as Peer>::HandoffStream;
    type Future =
        futures::future::BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<wire::HandoffBatch>>) -> Self::Future {
        let peer = self.0.clone();
        Box::pin(async move { peer.handoff(request).await })
    }
}

/// prost's codec, which refuses batches of too many entries and of false senders.
struct Batches(
    ProstCodec<wire::HandoffReceipt, wire::HandoffBatch>,
    Visitor,
);

impl Codec for Batches {
    type Encode = wire::HandoffReceipt;
    type Decode = wire::HandoffBatch;
    type Encoder = ProstEncoder<wire::HandoffReceipt>;
    type Decoder = BatchDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BatchDecoder(self.0.decoder(), self.1.clone())
    }
}

struct BatchDecoder(ProstDecoder<wire::HandoffBatch>, Visitor);

impl Decoder for BatchDecoder {
    type Item = wire::HandoffBatch;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // tonic reads a message in one piece. If it came in several, only the first could be
        // counted without a copy.
        let whole = buffer.chunk().len() == buffer.remaining();
        if !whole || !has_at_most(buffer.chunk(), ENTRIES, MAX_BATCH_ENTRIES) {
            let what = format!("a batch has at most {MAX_BATCH_ENTRIES} entries");
            return Err(Status::invalid_argument(what));
        }
        let sender = IdHash(fixed64(buffer.chunk(), SENDER));
        self.1
            .speaks_as(sender)
            .map_err(|error| to_status(&error))?;
        self.0.decode(buffer)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn batch(entries: usize) -> wire::HandoffBatch {
        wire::HandoffBatch {
            format: 1,
            sender: 7,
            receipts: 1,
            entries: vec![wire::HandoffEntry::default(); entries],
            ..wire::HandoffBatch::default()
        }
    }

    #[test]
    fn the_sender_is_found_where_the_generated_code_finds_it() {
        let bytes = batch(3).encode_to_vec();
        assert_eq!(fixed64(&*bytes, SENDER), 7);
        let mut twice = bytes.clone();
        prost::encoding::fixed64::encode(SENDER, &9, &mut twice);
        let decoded = wire::HandoffBatch::decode(&*twice).expect("valid");
        assert_eq!(fixed64(&*twice, SENDER), decoded.sender);
        assert_eq!(fixed64(&twice[..twice.len() - 1], SENDER), 7, "cut short");
        assert_eq!(fixed64(&b"\xff\xff"[..], SENDER), 0);
    }

    #[test]
    fn entries_are_counted_by_the_number_that_the_generated_code_has() {
        for (entries, most, fits) in [(0, 0, true), (3, 3, true), (4, 3, false)] {
            let bytes = batch(entries).encode_to_vec();
            assert_eq!(has_at_most(&*bytes, ENTRIES, most), fits, "{entries}");
        }
        assert!(
            has_at_most(&b"\xff\xff"[..], ENTRIES, 0),
            "left to the decoder"
        );
    }
}
