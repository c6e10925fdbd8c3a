//! How a key of Redis names a group and a key of it.

use super::reply::Reply;

/// The two parts of a key of Redis: the group ends at the first colon.
pub(super) fn group_and_key(place: &[u8]) -> Result<(&str, &str), Reply> {
    let wrong = |what: &'static str| Reply::error(format!("invalid_request: {what}"));
    let text = std::str::from_utf8(place).map_err(|_| wrong("a key must be UTF-8"))?;
    let both = text.split_once(':');
    both.ok_or_else(|| wrong("write a key as group:key; the group ends at the first colon"))
}
