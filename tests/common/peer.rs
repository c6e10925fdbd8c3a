//! A peer that asks a node by hand.

use gaocache::internal::wire::{self, handoff_entry::What, peer_client::PeerClient};
use gaocache_core::membership::IdHash;
use tonic::{Status, transport::Channel};

/// Hands one batch over and returns its receipt.
pub async fn handoff(
    peer: &mut PeerClient<Channel>,
    batch: wire::HandoffBatch,
) -> Result<wire::HandoffReceipt, Status> {
    let answer = peer.handoff(tokio_stream::once(batch)).await?;
    let mut receipts = answer.into_inner();
    let first = receipts.message().await?.expect("an empty one first");
    assert!(first.fates.is_empty() && first.max_value_bytes.is_some());
    Ok(receipts.message().await?.expect("one for each batch"))
}

/// A tag that no value has by right.
pub const FORGED_TAG: u64 = 7;

/// A batch of one entry.
pub fn batch(sender: IdHash, key: &str) -> wire::HandoffBatch {
    wire::HandoffBatch {
        format: 1,
        sender: sender.0,
        receipts: 1,
        elapsed_ms: 0,
        // Newer than any: it may know what the receiver doesn't see yet.
        revision: u64::MAX,
        entries: vec![wire::HandoffEntry {
            group: "users".into(),
            key: key.into(),
            what: Some(What::Entry(wire::Entry {
                found: true,
                value: "handed over".into(),
                entity_tag: FORGED_TAG,
                ..wire::Entry::default()
            })),
            ..wire::HandoffEntry::default()
        }],
    }
}
