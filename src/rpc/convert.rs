//! Wire types to domain types and back.

use std::{sync::Arc, time::Duration};

use tonic::Status;

use super::{
    lean::{Inner, Reply},
    wire::{self, handoff_entry::What},
};
use crate::status::grpc::to_status;
use gaocache_core::{
    error::Error,
    group::{Answer, Source},
    membership::IdHash,
    ports::{Fate, Handed, Parcel, Peeked, PeerAnswer, Receipt, Timestamp, Voucher},
    record::{Record, expiry},
};

/// The format of entries between nodes that this release writes and reads.
pub(super) const ENTRY_FORMAT: u32 = 1;

/// Field numbers of values and of the entry around one, which the lean path writes itself; tests
/// compare them with the generated code.
const GET_VALUE: u8 = 1;
const FETCH_ENTRY: u8 = 5;
const ENTRY_VALUE: u8 = 4;

fn source(source: Source) -> wire::Source {
    match source {
        Source::Hit => wire::Source::Hit,
        Source::Peer => wire::Source::Peer,
        Source::Origin => wire::Source::Origin,
        _ => wire::Source::Unspecified,
    }
}

/// In whole milliseconds, rounded down.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn get_response(answer: Answer, now: Timestamp) -> wire::GetResponse {
    let expires = answer.expires_at != Timestamp::NEVER;
    wire::GetResponse {
        ttl_remaining_ms: expires.then(|| millis(answer.expires_at.since(now))),
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

fn entry(record: Record, now: Timestamp) -> wire::Entry {
    wire::Entry {
        found: record.value.is_some(),
        ttl_remaining_ms: record.life_left(now).map(millis),
        entity_tag: record.entity_tag,
        value: record.value.unwrap_or_default(),
    }
}

/// The record of an entry that its sender read at `read_at` at the earliest.
fn record(entry: wire::Entry, read_at: Timestamp) -> Record {
    let left = entry.ttl_remaining_ms.map(Duration::from_millis);
    Record {
        value: entry.found.then_some(entry.value),
        expires_at: expiry(left, read_at),
        entity_tag: entry.entity_tag,
    }
}

/// The answer at `now` to a request that came at `asked_at`.
pub(super) fn fetch_response(
    answer: PeerAnswer,
    asked_at: Timestamp,
    now: Timestamp,
) -> wire::FetchResponse {
    wire::FetchResponse {
        format: ENTRY_FORMAT,
        source: if answer.was_hit {
            wire::Source::Hit.into()
        } else {
            wire::Source::Origin.into()
        },
        uncacheable: answer.uncacheable,
        took_ms: millis(now.since(asked_at)),
        entry: Some(entry(answer.record, now)),
    }
}

/// The same with its value apart.
pub(super) fn fetch_reply(answer: PeerAnswer, asked_at: Timestamp, now: Timestamp) -> Reply {
    let mut head = fetch_response(answer, asked_at, now);
    let mut entry = head.entry.take().unwrap_or_default();
    let value = std::mem::take(&mut entry.value);
    let inner = Inner {
        field: FETCH_ENTRY,
        message: &entry,
    };
    Reply::nested(&head, inner, ENTRY_VALUE, value)
}

/// The peer's answer to a request that was sent at `asked_at`; `None` if it is in a format that
/// this release doesn't know.
pub(super) fn peer_answer(
    response: wire::FetchResponse,
    asked_at: Timestamp,
) -> Option<PeerAnswer> {
    if response.format != ENTRY_FORMAT {
        return None;
    }
    let read_at = asked_at.after(Duration::from_millis(response.took_ms));
    Some(PeerAnswer {
        was_hit: response.source() == wire::Source::Hit,
        uncacheable: response.uncacheable,
        record: record(response.entry?, read_at),
    })
}

/// The answer to a peek at `now`.
pub(super) fn peek_response(peeked: Peeked, now: Timestamp) -> wire::PeekResponse {
    wire::PeekResponse {
        answer: peeked.entry.map(|entry| fetch_response(entry, now, now)),
        settled_revision: peeked.settled,
    }
}

/// What a peer that was asked at `asked_at` answered to a peek.
pub(super) fn peeked(response: wire::PeekResponse, asked_at: Timestamp) -> Peeked {
    let answer = response.answer;
    Peeked {
        entry: answer.and_then(|answer| peer_answer(answer, asked_at)),
        settled: response.settled_revision,
    }
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

/// Entries as they were read by `sender` at `now`.
pub(super) fn handoff_entries(parcels: Vec<Parcel>, now: Timestamp) -> Vec<wire::HandoffEntry> {
    let mut group: Arc<str> = "".into();
    let entries = parcels.into_iter().map(|parcel| wire::HandoffEntry {
        group: if parcel.group == group {
            String::new()
        } else {
            group = parcel.group;
            group.to_string()
        },
        key: parcel.key.into(),
        what: Some(match parcel.what {
            Handed::Over(record) => What::Entry(entry(record, now)),
            Handed::Announced { value_bytes } => What::AnnouncedValueBytes(value_bytes),
        }),
        use_count: parcel.use_count,
        copy: parcel.copy,
    });
    entries.collect()
}

/// The entries of a batch that its sender read at `read_at` at the earliest; `None` if they are in
/// a format that this release doesn't know.
pub(super) fn parcels(batch: wire::HandoffBatch, read_at: Timestamp) -> Option<Vec<Parcel>> {
    let mut group: Arc<str> = "".into();
    let parcels = batch.entries.into_iter().map(|entry| {
        if !entry.group.is_empty() {
            group = entry.group.into();
        }
        Some(Parcel {
            group: group.clone(),
            key: entry.key.into(),
            what: match entry.what? {
                What::Entry(entry) => Handed::Over(record(entry, read_at)),
                What::AnnouncedValueBytes(value_bytes) => Handed::Announced { value_bytes },
            },
            use_count: entry.use_count,
            copy: entry.copy,
        })
    });
    let parcels = parcels.collect::<Option<_>>()?;
    (batch.format == ENTRY_FORMAT).then_some(parcels)
}

pub(super) fn handoff_receipt(receipt: Receipt) -> wire::HandoffReceipt {
    let fate = |fate: Fate| match fate {
        Fate::Kept => wire::HandoffFate::Kept,
        Fate::Known => wire::HandoffFate::Known,
        Fate::Full => wire::HandoffFate::Full,
        Fate::Refused => wire::HandoffFate::Refused,
        Fate::Misdirected => wire::HandoffFate::Misdirected,
        Fate::UnknownGroup => wire::HandoffFate::UnknownGroup,
        Fate::Held => wire::HandoffFate::Held,
        Fate::Wanted => wire::HandoffFate::Wanted,
    };
    let fates = receipt.fates.into_iter().map(|it| fate(it).into());
    wire::HandoffReceipt {
        fates: fates.collect(),
    }
}

/// The receipt; a fate that this release doesn't know counts as a refusal.
pub(super) fn receipt(answer: &wire::HandoffReceipt) -> Receipt {
    // Not prost's `fates()`, which leaves out what it doesn't know: each entry has one.
    let known = |fate: &i32| wire::HandoffFate::try_from(*fate).unwrap_or_default();
    let fates = answer.fates.iter().map(known).map(|fate| match fate {
        wire::HandoffFate::Kept => Fate::Kept,
        wire::HandoffFate::Known => Fate::Known,
        wire::HandoffFate::Full => Fate::Full,
        wire::HandoffFate::Misdirected => Fate::Misdirected,
        wire::HandoffFate::UnknownGroup => Fate::UnknownGroup,
        wire::HandoffFate::Held => Fate::Held,
        wire::HandoffFate::Wanted => Fate::Wanted,
        wire::HandoffFate::Refused | wire::HandoffFate::Unspecified => Fate::Refused,
    });
    Receipt {
        fates: fates.collect(),
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
            record: kept(value, expires_at),
            was_hit: true,
            uncacheable: false,
        }
    }

    fn kept(value: Option<&'static str>, expires_at: Timestamp) -> Record {
        Record {
            value: value.map(Bytes::from_static_str),
            expires_at,
            entity_tag: u64::MAX,
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

    /// By the sender's clock: when it was asked, and when it read the entry.
    const ASKED: Timestamp = Timestamp(900_000);
    const READ: Timestamp = Timestamp(900_700);

    #[test]
    fn an_entry_crosses_the_wire_with_its_age() {
        for (value, expires_at, arrives_with) in [
            (Some("value"), Timestamp(901_234), Timestamp(7_234)),
            (Some(""), Timestamp::NEVER, Timestamp::NEVER),
            (None, Timestamp(0), Timestamp(6_700)),
        ] {
            let bytes = fetch_reply(peer(value, expires_at), ASKED, READ).message();
            let read = wire::FetchResponse::decode(bytes).expect("the generated code reads it");
            assert_eq!(read, fetch_response(peer(value, expires_at), ASKED, READ));
            // The receiver sent its question at 6,000 of its own clock, so the entry was read at
            // 6,700 at the earliest.
            let back = peer_answer(read, Timestamp(6_000)).expect("a known format");
            assert_eq!(back.record, kept(value, arrives_with));
            assert!(back.was_hit);
        }
    }

    #[test]
    fn an_entry_of_any_size_is_written_as_the_generated_code_does() {
        for size in [0, 1, 127, 128, 5_000, 100_000] {
            let mut answer = peer(Some(""), Timestamp::NEVER);
            answer.record.value = Some(vec![7u8; size].into());
            let bytes = fetch_reply(answer.clone(), ASKED, READ).message();
            let read = wire::FetchResponse::decode(bytes).expect("the generated code reads it");
            assert_eq!(read, fetch_response(answer, ASKED, READ));
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
    fn entries_handed_over_cross_the_wire_with_their_age() {
        let parcel = |group: &str, value: Option<&'static str>, expires_at| Parcel {
            group: group.into(),
            key: "k".into(),
            what: Handed::Over(kept(value, expires_at)),
            use_count: 7,
            copy: true,
        };
        let announced = Parcel {
            what: Handed::Announced { value_bytes: 5 },
            ..parcel("h", None, Timestamp::NEVER)
        };
        let sent = |expires_at| {
            vec![
                parcel("g", Some("value"), expires_at),
                parcel("g", Some(""), Timestamp::NEVER),
                parcel("g", None, Timestamp::NEVER),
                parcel("h", None, expires_at),
                announced.clone(),
            ]
        };
        let batch = wire::HandoffBatch {
            format: ENTRY_FORMAT,
            sender: 9,
            receipts: 1,
            elapsed_ms: 0,
            revision: 3,
            entries: handoff_entries(sent(Timestamp(901_234)), READ),
        };
        let mut read =
            wire::HandoffBatch::decode(&*batch.encode_to_vec()).expect("generated code reads it");
        let back = parcels(read.clone(), Timestamp(50)).expect("a known format");
        let expected = sent(Timestamp(584));
        assert_eq!(format!("{back:?}"), format!("{expected:?}"));
        read.format += 1;
        assert!(parcels(read, Timestamp(50)).is_none());
    }

    #[test]
    fn each_fate_crosses_the_wire_and_an_unknown_one_is_a_refusal() {
        let sent = Receipt {
            fates: Fate::ALL.into(),
        };
        let bytes = handoff_receipt(sent.clone()).encode_to_vec();
        let read = wire::HandoffReceipt::decode(&*bytes).expect("the generated code reads it");
        assert_eq!(receipt(&read), sent);
        let odd = wire::HandoffReceipt { fates: vec![99] };
        assert_eq!(receipt(&odd).fates, [Fate::Refused]);
    }

    #[test]
    fn a_format_that_is_not_known_is_refused() {
        let mut response = fetch_response(peer(Some("v"), Timestamp::NEVER), ASKED, READ);
        response.format = ENTRY_FORMAT + 1;
        assert!(peer_answer(response, ASKED).is_none());
        assert!(peer_answer(wire::FetchResponse::default(), ASKED).is_none());
    }
}
