//! Wire types to domain types and back.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tonic::Status;

use super::lean::{Inner, Reply};
use crate::{
    status::grpc::to_status,
    wire::{self, handoff_entry::What},
};
use gaocache_core::{
    absence::NotFoundBody,
    error::{Error, ErrorKind},
    group::{Answer, Course, Source},
    membership::IdHash,
    metadata::Metadata,
    ports::{Fate, Fetched, Handed, Parcel, Peeked, PeerAnswer, Receipt, Timestamp, Voucher},
    record::{Left, Record, Stale},
};

/// The format of entries between nodes that this release writes and reads.
pub(super) const ENTRY_FORMAT: u32 = 1;

/// Field numbers of values and of the entry around one, which the lean path writes itself; tests
/// compare them with the generated code.
pub(super) const GET_VALUE: u8 = 1;
pub(super) const MANY_FOUND: u8 = 2;
const FETCH_ENTRY: u8 = 5;
const ENTRY_VALUE: u8 = 4;

fn source(source: Source) -> wire::Source {
    match source {
        Source::Hit => wire::Source::Hit,
        Source::Peer => wire::Source::Peer,
        Source::Origin => wire::Source::Origin,
        Source::Stale => wire::Source::Stale,
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
        headers: headers(&answer.metadata),
        value: answer.value,
    }
}

fn headers(metadata: &Metadata) -> Vec<wire::Header> {
    let header = |(name, value): (&str, &str)| wire::Header {
        name: name.into(),
        value: value.into(),
    };
    metadata.iter().map(header).collect()
}

/// The answer with its value apart.
pub(super) fn get_reply(answer: Answer, now: Timestamp) -> Reply {
    let mut head = get_response(answer, now);
    let value = std::mem::take(&mut head.value);
    Reply::new(&head, GET_VALUE, value)
}

fn entry(record: Record, now: Timestamp) -> wire::Entry {
    let left = record.left(now);
    wire::Entry {
        found: !record.is_absent(),
        ttl_remaining_ms: left.life.map(millis),
        stale_while_revalidate_ms: millis(left.while_revalidating),
        stale_if_error_ms: millis(left.if_error),
        entity_tag: record.entity_tag,
        metadata: Bytes::copy_from_slice(match record.is_absent() {
            // What it is about is said by `found`.
            true => record.metadata.headers_alone(),
            false => record.metadata.as_bytes(),
        }),
        age_ms: millis(left.age),
        value: record.value.unwrap_or_default(),
    }
}

/// The record of an entry that its sender read at `read_at` at the earliest; `None` if its metadata
/// is not what a node sends.
fn record(entry: wire::Entry, read_at: Timestamp) -> Option<Record> {
    let left = Left {
        life: entry.ttl_remaining_ms.map(Duration::from_millis),
        while_revalidating: Duration::from_millis(entry.stale_while_revalidate_ms),
        if_error: Duration::from_millis(entry.stale_if_error_ms),
        age: Duration::from_millis(entry.age_ms),
    };
    let metadata = Metadata::from_bytes(&entry.metadata)?;
    let record = Record {
        value: None,
        expires_at: read_at,
        stale: Stale::NEVER,
        entity_tag: entry.entity_tag,
        metadata: metadata.clone(),
    };
    let record = match (entry.found, entry.value.is_empty()) {
        (true, _) => Record {
            value: Some(entry.value),
            ..record
        },
        (false, false) => record.with_absence(&NotFoundBody::new(entry.value, metadata)),
        (false, true) => record,
    };
    Some(record.dated(left, read_at))
}

/// The answer at `now` to a request that came at `asked_at`.
pub(super) fn fetch_response(
    answer: PeerAnswer,
    asked_at: Timestamp,
    now: Timestamp,
) -> wire::FetchResponse {
    wire::FetchResponse {
        format: ENTRY_FORMAT,
        source: source(answer.source).into(),
        uncacheable: answer.uncacheable,
        took_ms: millis(now.since(asked_at)),
        collapsed: answer.course.collapsed,
        was_stale: answer.course.stale,
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
/// this release doesn't know, or no node sends.
pub(super) fn peer_answer(
    response: wire::FetchResponse,
    asked_at: Timestamp,
) -> Option<PeerAnswer> {
    if response.format != ENTRY_FORMAT {
        return None;
    }
    let read_at = asked_at.after(Duration::from_millis(response.took_ms));
    Some(PeerAnswer {
        source: match response.source() {
            wire::Source::Hit | wire::Source::Peer => Source::Hit,
            wire::Source::Stale => Source::Stale,
            wire::Source::Origin | wire::Source::Unspecified => Source::Origin,
        },
        course: Course {
            collapsed: response.collapsed,
            stale: response.was_stale,
        },
        uncacheable: response.uncacheable,
        record: record(response.entry?, read_at)?,
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
/// a format that this release doesn't know, or no node sends.
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
                What::Entry(entry) => Handed::Over(record(entry, read_at)?),
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
        max_value_bytes: None,
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
        max_value_bytes: error.max_value(),
        retry_after_ms: error.retry_after().map(millis),
    }
}

impl wire::KeyError {
    /// The error that it reports.
    pub(crate) fn error(&self) -> Error {
        // A kind from a newer release is still an answer.
        let kind = ErrorKind::from_name(&self.kind).unwrap_or(ErrorKind::Internal);
        let error = match self.max_value_bytes {
            Some(max_value) if kind == ErrorKind::ValueTooLarge => {
                Error::value_too_large(&*self.message, max_value)
            }
            _ => Error::new(kind, &*self.message),
        };
        match self.retry_after_ms {
            Some(millis) => error.with_retry_after(Duration::from_millis(millis)),
            None => error,
        }
    }
}

/// A node's answer at `now` for the key at that place of a batch that came at `asked_at`.
pub(super) fn fetch_many_response(
    place: usize,
    answer: Result<Fetched, Error>,
    asked_at: Timestamp,
    now: Timestamp,
) -> wire::FetchManyResponse {
    use wire::fetch_many_response::Outcome;
    let outcome = match answer {
        Ok(Fetched::Answer(answer)) => Outcome::Found(fetch_response(answer, asked_at, now)),
        Ok(Fetched::Large) => Outcome::Large(wire::Large {}),
        Err(error) => Outcome::Error(key_error(&error)),
    };
    wire::FetchManyResponse {
        // A batch has far fewer keys.
        place: u32::try_from(place).unwrap_or(u32::MAX),
        outcome: Some(outcome),
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
#[path = "convert_tests.rs"]
mod tests;
