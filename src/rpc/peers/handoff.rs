//! The stream that carries entries to another node: batches in one direction, receipts in the
//! other.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{links::Link, pool::GrpcPeers};
use crate::{rpc::convert, wire};
use gaocache_core::{
    error::{Error, ErrorKind},
    membership::Member,
    ports::{HandoffStream, Parcel, PeerError, Receipt, Timestamp},
};

/// A stream of batches, and the stream of their receipts.
pub(super) struct GrpcHandoffStream {
    peers: GrpcPeers,
    member: Member,
    batches: mpsc::Sender<wire::HandoffBatch>,
    receipts: Streaming<wire::HandoffReceipt>,
    /// How many receipts came, the empty first one included, and when the last did.
    received: u64,
    received_at: Timestamp,
    /// The largest value that the receiver takes.
    largest_value: Option<u64>,
    /// That of the view by which the entries belong to the member.
    revision: u64,
    /// Kept from being closed as idle.
    _link: Arc<Link>,
}

impl GrpcHandoffStream {
    /// Opens both streams.
    pub(super) async fn open(
        peers: &GrpcPeers,
        member: &Member,
        revision: u64,
    ) -> Result<Self, PeerError> {
        let (batches, sending) = mpsc::channel(1);
        let opened = peers.open_handoff(member, ReceiverStream::new(sending));
        let (link, receipts) = opened.await.map_err(|failed| failed.error)?;
        let mut stream = Self {
            peers: peers.clone(),
            member: member.clone(),
            batches,
            receipts,
            received: 0,
            received_at: peers.now(),
            largest_value: None,
            revision,
            _link: link,
        };
        stream.largest_value = stream.next_receipt().await?.max_value_bytes;
        Ok(stream)
    }

    async fn next_receipt(&mut self) -> Result<wire::HandoffReceipt, PeerError> {
        match self.receipts.message().await {
            Ok(Some(receipt)) => {
                self.received += 1;
                self.received_at = self.peers.now();
                Ok(receipt)
            }
            Ok(None) => Err(PeerError::Unreachable(Error::new(
                ErrorKind::PeerUnreachable,
                "the stream of entries ended early",
            ))),
            Err(status) => Err(self.peers.failed(&self.member, &status).error),
        }
    }
}

#[async_trait]
impl HandoffStream for GrpcHandoffStream {
    async fn send(&mut self, batch: Vec<Parcel>, read_at: Timestamp) -> Result<(), PeerError> {
        let batch = wire::HandoffBatch {
            format: convert::ENTRY_FORMAT,
            sender: self.peers.me().0,
            receipts: self.received,
            revision: self.revision,
            elapsed_ms: convert::millis(read_at.since(self.received_at)),
            entries: convert::handoff_entries(batch, read_at),
        };
        // If the other end hung up, the receipt stream returns the reason.
        let _ = self.batches.send(batch).await;
        Ok(())
    }

    fn largest_value(&self) -> Option<u64> {
        self.largest_value
    }

    async fn receipt(&mut self) -> Result<Receipt, PeerError> {
        self.next_receipt().await.map(|it| convert::receipt(&it))
    }
}
