//! What the origin said of a value beside its bytes, in the words of HTTP: its type, its encoding,
//! its validators, and what else the group keeps; and the tags by which it may be removed.
//!
//! It is one allocation that never changes, and none where the origin said nothing. It must never
//! hold what could break the framing of a response, or what only a node may say.

mod allowed;
mod packed;

use std::{fmt, time::Duration};

use triomphe::ThinArc;

use self::{
    allowed::check,
    packed::{check_single, headers, pack, unpack},
};
pub use self::{
    allowed::{is_entity_tag, why_not},
    packed::MAX_METADATA_BYTES,
};
use crate::{
    error::{Error, ErrorKind, Result},
    tags::{MAX_TAGS, TagHash, check_tag},
    time::Timestamp,
};

/// What the allocation takes beside the headers: its counts, [`Seen`], and the allocator's
/// rounding.
const OVERHEAD_BYTES: usize = 48;

/// What the tags of a value are kept under, before its headers: no header can have that name. The
/// value is the hash of each, as sixteen hexadecimal digits.
const TAGS: &str = ":tags";
const TAG_DIGITS: usize = 16;
/// What the number of bytes of a value is kept under that is compressed (zstd), behind its tags and
/// before its headers: no header can have that name.
const PLAIN: &str = ":plain";
const PLAIN_DIGITS: usize = 12;
/// What comes before the headers where they are not about a value, but about what an origin said in
/// place of one: no header can have that name. It doesn't leave the node.
const ABSENCE: &[u8] = b"\x08:absence\0\0";

/// What the origin said of a value: headers of HTTP, whose names are in lower case. Cheap to clone.
///
/// ```
/// # mod gaocache { pub use gaocache_core::{Result, metadata::Metadata}; }
/// use gaocache::{Metadata, Result};
///
/// # fn main() -> Result<()> {
/// let metadata = Metadata::new([("content-type", "text/html"), ("etag", "\"v7\"")])?;
/// assert_eq!(metadata.get("etag"), Some("\"v7\""));
/// assert!(Metadata::new([("set-cookie", "for=one")]).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata(Option<ThinArc<Seen, u8>>);

/// How old the value was, and when by this node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    age: Duration,
    at: Timestamp,
}

impl Seen {
    const NEW: Self = Self {
        age: Duration::ZERO,
        at: Timestamp(0),
    };
}

impl Metadata {
    /// None.
    pub const NONE: Self = Self(None);

    /// These headers.
    ///
    /// # Errors
    /// [`ErrorKind::OriginFailed`] for a name or a value that is not valid, an `ETag` without
    /// quotes, a header that no origin may set, or one that may be there only once;
    /// [`ErrorKind::ValueTooLarge`] past [`MAX_METADATA_BYTES`].
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut packed = Vec::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            let value = value.trim_matches([' ', '\t']);
            check(&name, value)
                .and_then(|()| check_single(&packed, &name))
                .map_err(|what| Error::origin_failed(format!("the header '{name}' {what}")))?;
            pack(&mut packed, &name, value)?;
        }
        Ok(Self::of(Seen::NEW, &packed))
    }

    fn of(seen: Seen, packed: &[u8]) -> Self {
        let some = !packed.is_empty();
        Self(some.then(|| ThinArc::from_header_and_slice(seen, packed)))
    }

    /// The same, for a value that carries these tags, and no others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for more than [`MAX_TAGS`] of them, or what can't be a tag.
    ///
    /// ```
    /// # mod gaocache { pub use gaocache_core::{Result, metadata::Metadata}; }
    /// use gaocache::{Metadata, Result};
    ///
    /// # fn main() -> Result<()> {
    /// let metadata = Metadata::default().with_tags(["user:7", "article"])?;
    /// assert!(metadata.has_tag("article"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_tags<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut hashes = Vec::new();
        for tag in tags {
            check_tag(tag)?;
            hashes.push(TagHash::of(tag));
            if hashes.len() > MAX_TAGS {
                let what = format!("a value has at most {MAX_TAGS} tags");
                return Err(Error::new(ErrorKind::InvalidRequest, what));
            }
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(self.tagged(hashes.into_iter()))
    }

    fn tagged(&self, tags: impl Iterator<Item = TagHash>) -> Self {
        let digits: String = tags.map(|TagHash(hash)| format!("{hash:016x}")).collect();
        let mut packed = Vec::new();
        // At most sixty-four times sixteen.
        if let (Ok(length), false) = (u16::try_from(digits.len()), digits.is_empty()) {
            packed.push(TAGS.len() as u8);
            packed.extend_from_slice(TAGS.as_bytes());
            packed.extend_from_slice(&length.to_be_bytes());
            packed.extend_from_slice(digits.as_bytes());
        }
        packed.extend_from_slice(self.behind_tags());
        let seen = self.0.as_ref().map_or(Seen::NEW, |it| it.seen());
        Self::of(seen, &packed)
    }

    /// The hashes of its tags.
    pub fn tags(&self) -> impl Iterator<Item = TagHash> {
        let digits = match unpack(self.as_bytes()) {
            Some((TAGS, digits, _)) => digits.as_bytes(),
            _ => &[],
        };
        let tags = digits.chunks_exact(TAG_DIGITS);
        tags.filter_map(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u64::from_str_radix(digits, 16).ok().map(TagHash)
        })
    }

    /// Whether it has that tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        let tag = TagHash::of(tag);
        self.tags().any(|it| it == tag)
    }

    /// The same headers, about what an origin said in place of a value. Absence has no tags.
    pub(crate) fn of_absence(&self) -> Self {
        Self::of(Seen::NEW, &[ABSENCE, self.headers_alone()].concat())
    }

    /// The same headers and nothing else.
    pub(crate) fn of_headers_alone(&self) -> Self {
        Self::of(Seen::NEW, self.headers_alone())
    }

    /// Whether it is about what an origin said in place of a value.
    pub(crate) fn is_of_absence(&self) -> bool {
        self.as_bytes().starts_with(ABSENCE)
    }

    /// The packed headers, without what comes before them.
    pub fn headers_alone(&self) -> &[u8] {
        let packed = self.behind_tags();
        if let Some(headers) = packed.strip_prefix(ABSENCE) {
            return headers;
        }
        match unpack(packed) {
            Some((PLAIN, _, behind)) => behind,
            _ => packed,
        }
    }

    fn behind_tags(&self) -> &[u8] {
        let packed = self.as_bytes();
        match unpack(packed) {
            Some((TAGS, _, behind)) => behind,
            _ => packed,
        }
    }

    /// The same, of a value that is compressed (zstd), and has so many bytes when it is not.
    #[doc(hidden)] // for the node, which compresses
    #[must_use]
    pub fn compressed(&self, plain_bytes: u64) -> Self {
        let packed = self.as_bytes();
        let tags = &packed[..packed.len() - self.behind_tags().len()];
        let digits = plain_bytes.to_string();
        // Of a number of up to twenty digits.
        let mark = [
            &[PLAIN.len() as u8],
            PLAIN.as_bytes(),
            &[0, digits.len() as u8],
        ]
        .concat();
        let packed = [tags, &mark, digits.as_bytes(), self.headers_alone()].concat();
        Self::of(self.0.as_ref().map_or(Seen::NEW, |it| it.seen()), &packed)
    }

    /// The same, of a value that is not compressed.
    #[doc(hidden)] // for the node, which decompresses
    #[must_use]
    pub fn uncompressed(&self) -> Self {
        let (packed, behind) = (self.as_bytes(), self.behind_tags());
        let tags = &packed[..packed.len() - behind.len()];
        let packed = [tags, self.headers_alone()].concat();
        Self::of(self.0.as_ref().map_or(Seen::NEW, |it| it.seen()), &packed)
    }

    /// How many bytes the value has when it is not compressed; `None` if it is not.
    #[doc(hidden)] // for the node, which decompresses
    pub fn plain_bytes(&self) -> Option<u64> {
        // Most hits end here: no header has a colon in its name.
        if self.as_bytes().get(1) != Some(&b':') {
            return None;
        }
        match unpack(self.behind_tags()) {
            Some((PLAIN, digits, _)) => digits.parse().ok(),
            _ => None,
        }
    }

    /// From the bytes that [`Metadata::as_bytes`] gave elsewhere; `None` if they can't be from
    /// there.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let behind = match unpack(bytes) {
            Some((TAGS, digits, behind)) => {
                are_tags(digits).then_some(())?;
                behind
            }
            _ => bytes,
        };
        let headers = match unpack(behind) {
            Some((PLAIN, digits, behind)) => {
                is_plain_bytes(digits).then_some(())?;
                behind
            }
            _ => behind,
        };
        if headers.len() > MAX_METADATA_BYTES {
            return None;
        }
        let mut rest = headers;
        while !rest.is_empty() {
            let before = &headers[..headers.len() - rest.len()];
            let (name, value, behind) = unpack(rest)?;
            check(name, value).ok()?;
            check_single(before, name).ok()?;
            rest = behind;
        }
        Some(Self::of(Seen::NEW, bytes))
    }

    /// All of it, for the way to another node.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |it| &it.slice)
    }

    /// What it takes in memory, in bytes; 0 if there is none.
    pub fn bytes(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |it| it.slice.len() + OVERHEAD_BYTES)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each header: its name in lower case, and its value.
    ///
    /// ```
    /// # mod gaocache { pub use gaocache_core::{Result, metadata::Metadata}; }
    /// use gaocache::{Metadata, Result};
    ///
    /// # fn main() -> Result<()> {
    /// let metadata = Metadata::new([("Content-Type", "text/html"), ("Cache-Tag", "a")])?;
    /// let names: Vec<&str> = metadata.iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["content-type", "cache-tag"]);
    /// assert!(!metadata.is_empty() && !metadata.has_validator());
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        headers(self.headers_alone())
    }

    /// The first header of that name, which is in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(it, _)| *it == name).map(|it| it.1)
    }

    /// Whether the origin can be asked if the value has changed.
    pub fn has_validator(&self) -> bool {
        self.get("etag").is_some() || self.get("last-modified").is_some()
    }

    /// The same, with the headers of `newer` in place of those with their names, and its tags in
    /// place of all if it has any.
    ///
    /// # Errors
    /// As [`Metadata::new`].
    pub fn updated(&self, newer: &Self) -> Result<Self> {
        let kept = self.iter().filter(|(name, _)| newer.get(name).is_none());
        let updated = Self::new(kept.chain(newer.iter()))?;
        let age = newer.0.as_ref().map_or(Duration::ZERO, |it| it.seen().age);
        let updated = match self.plain_bytes() {
            Some(plain_bytes) => updated.compressed(plain_bytes),
            None => updated,
        };
        let updated = match newer.tags().next() {
            Some(_) => updated.tagged(newer.tags()),
            None => updated.tagged(self.tags()),
        };
        Ok(updated.with_age(age))
    }

    /// How old the value was when it was loaded.
    #[must_use]
    pub fn with_age(self, age: Duration) -> Self {
        self.seen(age, Timestamp(0))
    }

    /// The age at `now`; `None` where nobody needs it, since how long the value lives is told by
    /// what is left.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        self.get("cache-control")?;
        let seen = self.0.as_ref()?.seen();
        Some(seen.age.saturating_add(now.since(seen.at)))
    }

    /// The value was loaded at `now`.
    pub(crate) fn loaded(self, now: Timestamp) -> Self {
        let age = self.0.as_ref().map_or(Duration::ZERO, |it| it.seen().age);
        self.seen(age, now)
    }

    /// The value was that old at `at`.
    pub(crate) fn seen(self, age: Duration, at: Timestamp) -> Self {
        match &self.0 {
            Some(kept) if self.get("cache-control").is_some() => {
                Self::of(Seen { age, at }, &kept.slice)
            }
            _ => self,
        }
    }
}

/// Reads the head of the allocation.
trait HasSeen {
    fn seen(&self) -> Seen;
}

impl HasSeen for ThinArc<Seen, u8> {
    fn seen(&self) -> Seen {
        self.header.header
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Whether these are hashes of tags, as many as a value may have.
fn are_tags(digits: &str) -> bool {
    let is_hash =
        |digits: &[u8]| digits.len() == TAG_DIGITS && digits.iter().all(u8::is_ascii_hexdigit);
    (1..=MAX_TAGS * TAG_DIGITS).contains(&digits.len())
        && digits.as_bytes().chunks(TAG_DIGITS).all(is_hash)
}

fn is_plain_bytes(digits: &str) -> bool {
    (1..=PLAIN_DIGITS).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit())
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
