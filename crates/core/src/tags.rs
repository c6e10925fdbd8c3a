//! Tags of values: names under which their origin groups them, so that all values that carry one
//! can be removed at once.
//!
//! A value keeps only the hashes of its tags. Two tags of one hash are removed together, which
//! costs a load and is never wrong.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, ErrorKind, Result};

/// The most tags of one value.
pub const MAX_TAGS: usize = 64;
/// The longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 128;

/// The hash of a tag, which is the same on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagHash(pub u64);

impl TagHash {
    /// Of that tag.
    pub fn of(tag: &str) -> Self {
        Self(xxh3_64(tag.as_bytes()))
    }
}

/// # Errors
/// [`ErrorKind::InvalidRequest`] for what can't be a tag: it has 1 to [`MAX_TAG_BYTES`] bytes, and
/// no comma, space or control character, since these divide tags in headers.
pub fn check_tag(tag: &str) -> Result<()> {
    let divides = |it: char| it == ',' || it.is_whitespace() || it.is_control();
    if (1..=MAX_TAG_BYTES).contains(&tag.len()) && !tag.contains(divides) {
        return Ok(());
    }
    let what =
        format!("a tag has 1 to {MAX_TAG_BYTES} bytes, and no comma, space or control character");
    Err(Error::new(ErrorKind::InvalidRequest, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_divides_tags_is_in_none() {
        for good in ["a", "user:7", "ä/b", &"t".repeat(MAX_TAG_BYTES)] {
            assert!(check_tag(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a,b",
            "a\nb",
            "\u{85}",
            &"t".repeat(MAX_TAG_BYTES + 1),
        ] {
            assert!(check_tag(bad).is_err(), "{bad:?}");
        }
    }
}
