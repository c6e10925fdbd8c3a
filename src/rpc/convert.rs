//! Wire types to domain types and back.

use std::sync::Arc;

use tonic::Status;

use super::{lean::Reply, wire};
use crate::status::grpc::to_status;
use gaocache_core::{
    error::Error,
    group::{Answer, Source},
    membership::IdHash,
    ports::{Parcel, PeerAnswer, Receipt, Timestamp, Voucher},
};

/// The format of entries between nodes that this release writes and reads.
pub(super) const ENTRY_FORMAT: u32 = 1;

/// Field numbers of `value`, which the lean path writes itself; a test compares them with the
/// generated code.
const GET_VALUE: u8 = 1;
const FETCH_VALUE: u8 = 2;

fn source(source: Source) -> wire::Source {
    match source {
        Source::Hit => wire::Source::Hit,
        Source::Peer => wire::Source::Peer,
        Source::Origin => wire::Source::Origin,
        _ => wire::Source::Unspecified,
    }
}

fn remaining(expires_at: Timestamp, now: Timestamp) -> Option<u64> {
    let left = expires_at.since(now).as_millis();
    (expires_at != Timestamp::NEVER).then(|| u64::try_from(left).unwrap_or(u64::MAX))
}

pub(super) fn get_response(answer: Answer, now: Timestamp) -> wire::GetResponse {
    wire::GetResponse {
        ttl_remaining_ms: remaining(answer.expires_at, now),
        owner: answer.owner.to_string(),
        source: source(answer.source).into(),
        entity_tag: answer.entity_tag,
        value: answer.value,
    }
}

/// The answer with its value apart.
pub(super) fn get_reply(answer: Answer, now: Timestamp) -> Reply {
    let mut head = get_response(answer, now);
    let value = std::mem::take(&mut head.value);
    Reply::new(&head, GET_VALUE, value)
}

pub(super) fn fetch_response(answer: PeerAnswer) -> wire::FetchResponse {
    wire::FetchResponse {
        format: ENTRY_FORMAT,
        found: answer.value.is_some(),
        expires_at_ms: (answer.expires_at != Timestamp::NEVER).then_some(answer.expires_at.0),
        entity_tag: answer.entity_tag,
        source: if answer.was_hit {
            wire::Source::Hit.into()
        } else {
            wire::Source::Origin.into()
        },
        uncacheable: answer.uncacheable,
        value: answer.value.unwrap_or_default(),
    }
}

pub(super) fn fetch_reply(answer: PeerAnswer) -> Reply {
    let mut head = fetch_response(answer);
    let value = std::mem::take(&mut head.value);
    Reply::new(&head, FETCH_VALUE, value)
}

/// The peer's answer; `None` if it is in a format that this release doesn't know.
pub(super) fn peer_answer(response: wire::FetchResponse) -> Option<PeerAnswer> {
    (response.format == ENTRY_FORMAT).then(|| PeerAnswer {
        was_hit: response.source() == wire::Source::Hit,
        value: response.found.then_some(response.value),
        expires_at: response.expires_at_ms.map_or(Timestamp::NEVER, Timestamp),
        entity_tag: response.entity_tag,
        uncacheable: response.uncacheable,
    })
}

pub(super) fn voucher(response: wire::VouchResponse) -> Voucher {
    Voucher {
        yes: response.yes,
        excluded: response.excluded.into_iter().map(IdHash).collect(),
    }
}

pub(super) fn vouch_response(voucher: Voucher) -> wire::VouchResponse {
    wire::VouchResponse {
        yes: voucher.yes,
        excluded: voucher.excluded.into_iter().map(|it| it.0).collect(),
    }
}

pub(super) fn handoff_batch(sender: IdHash, parcels: Vec<Parcel>) -> wire::HandoffBatch {
    let mut group: Arc<str> = "".into();
    let entries = parcels.into_iter().map(|parcel| wire::HandoffEntry {
        group: if parcel.group == group {
            String::new()
        } else {
            group = parcel.group;
            group.to_string()
        },
        key: parcel.key.into(),
        found: parcel.value.is_some(),
        value: parcel.value.unwrap_or_default(),
        expires_at_ms: (parcel.expires_at != Timestamp::NEVER).then_some(parcel.expires_at.0),
        entity_tag: parcel.entity_tag,
        use_count: parcel.use_count,
        copy: parcel.copy,
    });
    wire::HandoffBatch {
        format: ENTRY_FORMAT,
        sender: sender.0,
        entries: entries.collect(),
    }
}

/// The entries of a batch; `None` if they are in a format that this release doesn't know.
pub(super) fn parcels(batch: wire::HandoffBatch) -> Option<Vec<Parcel>> {
    let mut group: Arc<str> = "".into();
    let parcels = batch.entries.into_iter().map(|entry| {
        if !entry.group.is_empty() {
            group = entry.group.into();
        }
        Parcel {
            group: group.clone(),
            key: entry.key.into(),
            value: entry.found.then_some(entry.value),
            expires_at: entry.expires_at_ms.map_or(Timestamp::NEVER, Timestamp),
            entity_tag: entry.entity_tag,
            use_count: entry.use_count,
            copy: entry.copy,
        }
    });
    let parcels = parcels.collect();
    (batch.format == ENTRY_FORMAT).then_some(parcels)
}

pub(super) fn handoff_receipt(receipt: Receipt) -> wire::HandoffReceipt {
    let Receipt {
        kept,
        known,
        full,
        refused,
    } = receipt;
    wire::HandoffReceipt {
        kept,
        known,
        full,
        refused,
    }
}

pub(super) fn receipt(answer: wire::HandoffReceipt) -> Receipt {
    let wire::HandoffReceipt {
        kept,
        known,
        full,
        refused,
    } = answer;
    Receipt {
        kept,
        known,
        full,
        refused,
    }
}

pub(super) fn key_error(error: &Error) -> wire::KeyError {
    let status: Status = to_status(error);
    wire::KeyError {
        code: status.code().into(),
        kind: error.kind().name().into(),
        message: error.message().into(),
    }
}

pub(super) fn many_response(
    key: String,
    answer: Result<Answer, Error>,
    now: Timestamp,
) -> wire::GetManyResponse {
    use wire::get_many_response::Outcome;
    let outcome = match answer {
        Ok(answer) => Outcome::Found(get_response(answer, now)),
        Err(error) => Outcome::Error(key_error(&error)),
    };
    wire::GetManyResponse {
        key,
        outcome: Some(outcome),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    fn peer(value: Option<&'static str>, expires_at: Timestamp) -> PeerAnswer {
        PeerAnswer {
            value: value.map(Bytes::from_static_str),
            expires_at,
            entity_tag: u64::MAX,
            was_hit: true,
            uncacheable: false,
        }
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Self;
    }
    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Self {
            Bytes::from_static(text.as_bytes())
        }
    }

    #[test]
    fn an_entry_crosses_the_wire_unchanged() {
        for (value, expires_at) in [
            (Some("value"), Timestamp(1_234)),
            (Some(""), Timestamp::NEVER),
            (None, Timestamp(0)),
        ] {
            let sent = peer(value, expires_at);
            let bytes = fetch_reply(sent.clone()).message();
            let read = wire::FetchResponse::decode(bytes).expect("the generated code reads it");
            let back = peer_answer(read).expect("a known format");
            assert_eq!(back.value, sent.value);
            assert_eq!(back.expires_at, expires_at);
            assert_eq!((back.entity_tag, back.was_hit), (u64::MAX, true));
        }
    }

    #[test]
    fn an_answer_written_by_hand_is_what_the_generated_code_reads() {
        for size in [0, 1, 127, 128, 5_000, 100_000] {
            let answer = Answer {
                value: vec![7u8; size].into(),
                expires_at: Timestamp(5_000),
                entity_tag: 9,
                source: Source::Peer,
                owner: "gaocache-1".into(),
            };
            let bytes = get_reply(answer.clone(), Timestamp(2_000)).message();
            let read = wire::GetResponse::decode(bytes).expect("the generated code reads it");
            assert_eq!(read, get_response(answer, Timestamp(2_000)));
            assert_eq!(read.ttl_remaining_ms, Some(3_000));
        }
    }

    #[test]
    fn entries_handed_over_cross_the_wire_unchanged() {
        let parcel = |group: &str, value: Option<&'static str>, expires_at| Parcel {
            group: group.into(),
            key: "k".into(),
            value: value.map(Bytes::from_static_str),
            expires_at,
            entity_tag: u64::MAX,
            use_count: 7,
            copy: true,
        };
        let sent = vec![
            parcel("g", Some("value"), Timestamp(1_234)),
            parcel("g", Some(""), Timestamp::NEVER),
            parcel("g", None, Timestamp::NEVER),
            parcel("h", None, Timestamp(0)),
        ];
        let bytes = handoff_batch(IdHash(9), sent.clone()).encode_to_vec();
        let mut read = wire::HandoffBatch::decode(&*bytes).expect("the generated code reads it");
        assert_eq!(read.sender, 9);
        let back = parcels(read.clone()).expect("a known format");
        assert_eq!(format!("{back:?}"), format!("{sent:?}"));
        read.format += 1;
        assert!(parcels(read).is_none());
    }

    #[test]
    fn a_format_that_is_not_known_is_refused() {
        let mut response = fetch_response(peer(Some("v"), Timestamp::NEVER));
        response.format = ENTRY_FORMAT + 1;
        assert!(peer_answer(response).is_none());
        assert!(peer_answer(wire::FetchResponse::default()).is_none());
    }
}
