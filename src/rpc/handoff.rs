//! The stream that carries entries to another node: batches in one direction, receipts in the
//! other.

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{convert, peers::GrpcPeers, wire};
use gaocache_core::{
    membership::Member,
    ports::{HandoffStream, Parcel, PeerError, Receipt},
};

/// A stream of batches, and the stream of their receipts.
pub(super) struct GrpcHandoffStream {
    peers: GrpcPeers,
    member: Member,
    batches: mpsc::Sender<wire::HandoffBatch>,
    receipts: Streaming<wire::HandoffReceipt>,
}

impl GrpcHandoffStream {
    /// Opens both streams.
    pub(super) async fn open(peers: &GrpcPeers, member: &Member) -> Result<Self, PeerError> {
        let mut client = peers.client(member)?;
        let (batches, sending) = mpsc::channel(1);
        let answer = client.handoff(ReceiverStream::new(sending)).await;
        let receipts = answer.map_err(|status| peers.failed(member, &status).0)?;
        Ok(Self {
            peers: peers.clone(),
            member: member.clone(),
            batches,
            receipts: receipts.into_inner(),
        })
    }

    fn broken(&self) -> PeerError {
        let status = Status::unavailable("the stream of entries ended early");
        self.peers.failed(&self.member, &status).0
    }
}

#[async_trait]
impl HandoffStream for GrpcHandoffStream {
    async fn send(&mut self, batch: Vec<Parcel>) -> Result<(), PeerError> {
        let batch = convert::handoff_batch(self.peers.me(), batch);
        // If the other end hung up, the receipt stream returns the reason.
        let _ = self.batches.send(batch).await;
        Ok(())
    }

    async fn receipt(&mut self) -> Result<Receipt, PeerError> {
        match self.receipts.message().await {
            Ok(Some(receipt)) => Ok(convert::receipt(receipt)),
            Ok(None) => Err(self.broken()),
            Err(status) => Err(self.peers.failed(&self.member, &status).0),
        }
    }
}
