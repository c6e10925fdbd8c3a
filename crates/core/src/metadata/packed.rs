//! The headers of a value as bytes, one behind the other: the length of the name, the name, the
//! length of the value, the value.

use crate::error::{Error, ErrorKind, Result};

/// What all headers of a value may take: names, values, and `FRAME_BYTES` each.
pub const MAX_METADATA_BYTES: usize = 2048;
/// The lengths of a name and a value.
pub(super) const FRAME_BYTES: usize = 3;
/// Headers that may be there only once: of two, neither could be believed.
pub(super) const SINGLE: [&str; 3] = ["content-type", "etag", "last-modified"];

pub(super) fn check_single(packed: &[u8], name: &str) -> Result<(), &'static str> {
    let twice = SINGLE.contains(&name) && headers(packed).any(|(before, _)| before == name);
    if twice {
        return Err("is there twice");
    }
    Ok(())
}

pub(super) fn pack(packed: &mut Vec<u8>, name: &str, value: &str) -> Result<()> {
    let bytes = packed.len() + name.len() + value.len() + FRAME_BYTES;
    let lengths = u8::try_from(name.len())
        .ok()
        .zip(u16::try_from(value.len()).ok());
    let Some((name_bytes, value_bytes)) = lengths.filter(|_| bytes <= MAX_METADATA_BYTES) else {
        let what = format!(
            "the headers to keep with a value have {bytes} bytes or more; at most \
             {MAX_METADATA_BYTES} are taken (keep_headers)"
        );
        return Err(Error::new(ErrorKind::ValueTooLarge, what));
    };
    packed.push(name_bytes);
    packed.extend_from_slice(name.as_bytes());
    packed.extend_from_slice(&value_bytes.to_be_bytes());
    packed.extend_from_slice(value.as_bytes());
    Ok(())
}

/// The first header, and what is behind it.
pub(super) fn unpack(packed: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (&name_bytes, rest) = packed.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_bytes))?;
    let (value_bytes, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*value_bytes)))?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    Some((text(name)?, text(value)?, rest))
}

pub(super) fn headers(mut packed: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    std::iter::from_fn(move || {
        let (name, value, behind) = unpack(packed)?;
        packed = behind;
        Some((name, value))
    })
}
