//! What a member has in memory of the keys of a batch: `Peer.FetchHeld`. It takes no slot, waits
//! for no load, and brings each value without a channel or a task of its own.
//!
//! It is asked only where the member has had nearly all of the last batch (`holding`), since what
//! it doesn't bring takes a second message.

use std::sync::Arc;

use futures::future::join_all;

use super::{
    links::{Lane, Link},
    pool::GrpcPeers,
};
use crate::{
    rpc::{
        convert,
        many::{MAX_HELD_KEY_BYTES, in_messages},
    },
    telemetry::trace::Scope,
    wire::{self, fetch_many_response::Outcome},
};
use gaocache_core::{
    membership::Member,
    ports::{MAX_BATCH_KEYS, PeerAnswer},
};

impl GrpcPeers {
    /// Whether the member has had nearly all of the last batch in memory.
    pub(super) fn has_held_most(&self, member: &Member, group: &str) -> bool {
        // A trace tells of each fetch by itself.
        let traced = !matches!(Scope::current(), Scope::Nothing);
        !traced && self.holding().most(member, group)
    }

    /// What the member has in memory of these keys, in their order.
    pub(super) async fn held_by(
        &self,
        member: &Member,
        group: &str,
        keys: &[&str],
    ) -> Vec<Option<PeerAnswer>> {
        let Ok(link) = self.link(Lane::Data, member) else {
            return Vec::new();
        };
        let messages = in_messages(keys.to_vec(), |key| key, MAX_BATCH_KEYS, MAX_HELD_KEY_BYTES);
        let messages = messages.iter();
        let calls = messages.map(|keys| self.held_message(member, group, &link, keys));
        let held = join_all(calls).await.concat();
        let count = held.iter().flatten().count();
        let bytes = held.iter().flatten().map(PeerAnswer::value_bytes).sum();
        self.arrived(member, bytes);
        self.holding().brought(member, group, count, keys.len());
        let fetches = &self.metrics().peers.fetches;
        let hits = fetches.with_label_values(&[&*member.id, "hit"]);
        hits.inc_by(count as u64);
        held
    }

    /// One message; an answer or none for each key.
    async fn held_message(
        &self,
        member: &Member,
        group: &str,
        link: &Arc<Link>,
        keys: &[&str],
    ) -> Vec<Option<PeerAnswer>> {
        let asked_at = self.now();
        let request = wire::FetchManyRequest {
            group: group.to_owned(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        };
        let called = self.call_held(member, link, &request).await;
        // What it says of an error, it says again to whoever fetches the key.
        let answers = called.ok().flatten().unwrap_or_default().answers;
        let mut held: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer.outcome {
                Some(Outcome::Found(found)) => convert::peer_answer(found, asked_at),
                Some(Outcome::Error(_) | Outcome::Large(_)) | None => None,
            })
            .collect();
        held.resize(keys.len(), None);
        held
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::rpc::many::MAX_HELD_BYTES;

    #[test]
    fn no_message_has_more_keys_or_bytes_than_its_receiver_takes() {
        for (count, bytes, wanted) in [
            (1_000, 20, vec![1_000]),
            (2_500, 1, vec![1_024, 1_024, 452]),
            (30, 4_096, vec![12, 12, 6]),
        ] {
            let key = "k".repeat(bytes);
            let keys = vec![&*key; count];
            let messages = in_messages(keys, |key| key, MAX_BATCH_KEYS, MAX_HELD_KEY_BYTES);
            let sizes: Vec<usize> = messages.iter().map(Vec::len).collect();
            assert_eq!(sizes, wanted);
            for message in messages {
                let request = wire::FetchManyRequest {
                    group: "g".repeat(64),
                    keys: message.iter().map(|it| (*it).to_owned()).collect(),
                };
                assert!(request.encoded_len() < MAX_HELD_BYTES);
            }
        }
    }
}
