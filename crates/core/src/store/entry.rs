//! An entry of a store: a key, its record, and what the store notes of both, in one allocation.
//!
//! What few entries have (what the origin said, a time to be served as a stale one, a tag that
//! would take long to compute) takes no memory of the others. A hit writes to one place of an
//! entry, and to none once it has been used often.

mod marks;
mod noted;

use std::{
    fmt,
    sync::atomic::{AtomicU8, AtomicU32},
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::block::Block;
use crate::{
    key::{GroupId, HashedKey},
    metadata::Metadata,
    record::{Record, Stale},
    time::Timestamp,
};

/// Uses are counted up to this limit, so that the hottest entries are no longer written to.
pub const MAX_USE_COUNT: u32 = u8::MAX as u32;

/// More uses than that don't make an entry stay any longer. As in S3-FIFO, but for its 3, and
/// quick_cache.
pub(super) const MAX_LATELY: u8 = 2;

/// The mark of an entry that came or was used since the holder of its replica last learned of it.
const UNANNOUNCED: u8 = 0b1000;

/// A kept answer. Its record is immutable; a newer entry replaces it. Clones are the same entry.
#[derive(Clone)]
pub struct Entry(Block<Head, Rare>);

/// What every entry has.
struct Head {
    /// The group's number in the upper 16 bits; below, when it expires.
    group_and_expiry: u64,
    /// How often its group had been purged when it was kept.
    epoch: AtomicU32,
    /// The owner of its key; see [`Entry::owner_in`].
    owner: AtomicU32,
    /// The incarnation of the other member that is known to hold it, shortened; 0 if there is none.
    replica_at: AtomicU32,
    /// How often it was requested, on this node and on the one that it came from, see
    /// [`MAX_USE_COUNT`].
    uses: AtomicU8,
    /// See [`marks`].
    marks: AtomicU8,
    /// The length of the key, and [`HAS_VALUE`].
    key: u16,
}

/// What few entries have.
struct Rare {
    stale: Stale,
    entity_tag: u64,
    metadata: Metadata,
    /// How often tags of its group had been purged when it was kept, or when its own were last
    /// found not to be among them.
    tag_epoch: AtomicU32,
}

/// The bits of the expiry, in milliseconds: 8,900 years.
const EXPIRY_BITS: u32 = 48;
/// It doesn't expire.
const NEVER: u64 = (1 << EXPIRY_BITS) - 1;
/// The bit of [`Head::key`] for a value: without, the origin said that there is none.
const HAS_VALUE: u16 = 1 << 15;
/// Past this length of a value, its tag is kept: it takes longer to compute than to load.
const TAG_FROM_BYTES: usize = 512;

/// What an allocation has beside key and value, for an entry with nothing rare.
pub(super) const fn allocated(key_and_value: usize) -> usize {
    Block::<Head, Rare>::size(false, key_and_value)
}

impl Entry {
    /// An entry whose key and value are copied to one buffer of exactly their size: a slice of a
    /// network buffer would pin the whole buffer.
    pub fn new(key: &HashedKey<'_>, record: &Record) -> Self {
        Self::with(key, record, record.value.as_deref())
    }

    /// An entry with the same value in place of this one: only its times and its metadata are new.
    #[must_use]
    pub fn renewed(&self, record: &Record) -> Self {
        let key = HashedKey::new(self.group(), self.key());
        Self::with(&key, record, self.value_slice()).with_use_count(self.use_count())
    }

    fn with(key: &HashedKey<'_>, record: &Record, value: Option<&[u8]>) -> Self {
        // Callers take no key of that length; under its beginning, it is never found.
        let text = key.text();
        let text = &text[..text.floor_char_boundary(usize::from(!HAS_VALUE))];
        let has_value = if value.is_some() { HAS_VALUE } else { 0 };
        let value = value.unwrap_or_default();
        let expiry = match record.expires_at {
            Timestamp::NEVER => NEVER,
            // Never later than it was to expire.
            Timestamp(at) => at.min(NEVER - 1),
        };
        let head = Head {
            group_and_expiry: u64::from(key.group().0) << EXPIRY_BITS | expiry,
            epoch: AtomicU32::new(0),
            owner: AtomicU32::new(0),
            replica_at: AtomicU32::new(0),
            uses: AtomicU8::new(0),
            marks: AtomicU8::new(UNANNOUNCED),
            key: text.len() as u16 | has_value,
        };
        let plain = record.metadata.is_empty()
            && record.stale == Stale::NEVER
            && value.len() < TAG_FROM_BYTES
            && record.entity_tag == computed_tag(has_value != 0, value);
        let rare = (!plain).then(|| Rare {
            stale: record.stale,
            entity_tag: record.entity_tag,
            metadata: record.metadata.clone(),
            tag_epoch: AtomicU32::new(0),
        });
        Self(Block::new(head, rare, [text.as_bytes(), value]))
    }

    /// The number of its group.
    pub fn group(&self) -> GroupId {
        GroupId((self.0.head().group_and_expiry >> EXPIRY_BITS) as u16)
    }

    fn key_bytes(&self) -> &[u8] {
        &self.0.bytes()[..usize::from(self.0.head().key & !HAS_VALUE)]
    }

    /// Its key.
    pub fn key(&self) -> &str {
        // It was a string.
        str::from_utf8(self.key_bytes()).unwrap_or_default()
    }

    /// Its key, hashed.
    pub fn hashed(&self) -> HashedKey<'_> {
        HashedKey::new(self.group(), self.key())
    }

    /// Whether it is an entry of that key.
    pub(super) fn is_of(&self, key: &HashedKey<'_>) -> bool {
        self.group() == key.group() && self.key_bytes() == key.text().as_bytes()
    }

    /// Whether both are the same entry, not only of the same key.
    pub fn is(&self, other: &Self) -> bool {
        self.0.is(&other.0)
    }

    fn value_slice(&self) -> Option<&[u8]> {
        let head = self.0.head();
        let at = usize::from(head.key & !HAS_VALUE);
        (head.key & HAS_VALUE != 0).then(|| &self.0.bytes()[at..])
    }

    /// Whether there is no such key; see [`Record::is_absent`].
    pub fn is_absent(&self) -> bool {
        !self.has_value() || self.metadata().is_of_absence()
    }

    fn has_value(&self) -> bool {
        self.0.head().key & HAS_VALUE != 0
    }

    /// The size of the value in bytes; 0 if there is none.
    pub fn value_bytes(&self) -> usize {
        self.value_slice().map_or(0, <[u8]>::len)
    }

    /// The value: a counted reference to the kept bytes.
    pub fn value(&self) -> Option<Bytes> {
        self.clone().into_value()
    }

    /// The same, in place of the handle.
    pub fn into_value(self) -> Option<Bytes> {
        match self.value_slice()? {
            [] => Some(Bytes::new()),
            _ => Some(Bytes::from_owner(Value(self))),
        }
    }

    /// From this moment on, by this node's clock, it is served only as stale.
    pub fn expires_at(&self) -> Timestamp {
        match self.0.head().group_and_expiry & NEVER {
            NEVER => Timestamp::NEVER,
            at => Timestamp(at),
        }
    }

    /// Until when it may be served as stale.
    pub fn stale(&self) -> Stale {
        self.0.beside().map_or(Stale::NEVER, |it| it.stale)
    }

    /// A strong validator.
    pub fn entity_tag(&self) -> u64 {
        match self.0.beside() {
            Some(rare) => rare.entity_tag,
            None => computed_tag(self.has_value(), self.value_slice().unwrap_or_default()),
        }
    }

    /// What its origin said of it.
    pub fn metadata(&self) -> &Metadata {
        static NONE: Metadata = Metadata::NONE;
        self.0.beside().map_or(&NONE, |it| &it.metadata)
    }

    /// What is served, in the form in which it travels.
    pub fn record(&self) -> Record {
        Record {
            value: self.value(),
            expires_at: self.expires_at(),
            stale: self.stale(),
            entity_tag: self.entity_tag(),
            metadata: self.metadata().clone(),
        }
    }

    /// Whether it may be served at `now`.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.expires_at()
    }

    /// Whether it may be served at `now`, perhaps as a stale one.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.is_fresh(now) || now < self.stale().until()
    }

    /// The size of the value and of its metadata in bytes.
    pub fn bytes(&self) -> usize {
        self.value_bytes() + self.metadata().bytes()
    }

    /// What the allocator was asked for, in bytes; of the metadata, only the pointer.
    pub(super) fn allocated(&self) -> usize {
        Block::<Head, Rare>::size(self.0.beside().is_some(), self.0.bytes().len())
    }

    pub(super) fn epoch(&self) -> &AtomicU32 {
        &self.0.head().epoch
    }

    /// Only what has metadata has tags.
    pub(super) fn tag_epoch(&self) -> Option<&AtomicU32> {
        self.0.beside().map(|it| &it.tag_epoch)
    }
}

fn computed_tag(has_value: bool, value: &[u8]) -> u64 {
    if has_value { xxh3_64(value) } else { 0 }
}

/// The value of an entry, as an owner of bytes.
struct Value(Entry);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.value_slice().unwrap_or_default()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("group", &self.group())
            .field("expires_at", &self.expires_at())
            .field("value_bytes", &self.value_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
