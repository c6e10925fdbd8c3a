//! The stream that carries entries to another node: batches in one direction, receipts in the
//! other.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    convert,
    peers::{GrpcPeers, Link},
    wire,
};
use gaocache_core::{
    error::{Error, ErrorKind},
    membership::Member,
    ports::{HandoffStream, Parcel, PeerError, Receipt},
};

/// A stream of batches, and the stream of their receipts.
pub(super) struct GrpcHandoffStream {
    peers: GrpcPeers,
    member: Member,
    batches: mpsc::Sender<wire::HandoffBatch>,
    receipts: Streaming<wire::HandoffReceipt>,
    /// Kept from being closed as idle.
    _link: Arc<Link>,
}

impl GrpcHandoffStream {
    /// Opens both streams.
    pub(super) async fn open(peers: &GrpcPeers, member: &Member) -> Result<Self, PeerError> {
        let (batches, sending) = mpsc::channel(1);
        let opened = peers.open_handoff(member, ReceiverStream::new(sending));
        let (link, receipts) = opened.await.map_err(|failed| failed.error)?;
        Ok(Self {
            peers: peers.clone(),
            member: member.clone(),
            batches,
            receipts,
            _link: link,
        })
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
            Ok(None) => Err(PeerError::Unreachable(Error::new(
                ErrorKind::PeerUnreachable,
                "the stream of entries ended early",
            ))),
            Err(status) => Err(self.peers.failed(&self.member, &status).error),
        }
    }
}
