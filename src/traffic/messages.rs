//! Where one gRPC message ends and the next begins, in bytes that come in pieces of any size.

use gaocache_core::error::Result;

/// gRPC's prefix of a message: a flag and the length.
pub const PREFIX_BYTES: usize = 5;

/// How far in a stream of messages its reader is.
#[derive(Default)]
pub struct MessageCursor {
    prefix: [u8; PREFIX_BYTES],
    /// So much of a prefix has come.
    of_prefix: usize,
    /// So much of a message has yet to come.
    left: usize,
}

impl MessageCursor {
    /// Whether all of a message has come, or nothing of one behind its prefix.
    pub fn has_whole_message(&self) -> bool {
        self.left == 0
    }

    /// Whether the next byte is the first of a message's prefix.
    pub fn is_between_messages(&self) -> bool {
        self.left == 0 && self.of_prefix == 0
    }

    /// Passes what has come. `begins` hears of each message whose prefix is complete: its length,
    /// and how many of the bytes that have come are behind the prefix.
    ///
    /// # Errors
    /// That of `begins`; the reader is lost then.
    pub fn pass(
        &mut self,
        mut data: &[u8],
        mut begins: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        while !data.is_empty() {
            let wanted = match self.left {
                0 => PREFIX_BYTES - self.of_prefix,
                left => left,
            };
            let (next, rest) = data.split_at(wanted.min(data.len()));
            data = rest;
            if self.left > 0 {
                self.left -= next.len();
                continue;
            }
            let end = self.of_prefix + next.len();
            self.prefix[self.of_prefix..end].copy_from_slice(next);
            self.of_prefix = end % PREFIX_BYTES;
            if end == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                begins(self.left, data.len())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_in_pieces_of_any_size() {
        let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\0\0\0\x01\x02";
        for size in 1..=bytes.len() {
            let (mut cursor, mut found) = (MessageCursor::default(), Vec::new());
            for piece in bytes.chunks(size) {
                let passed = cursor.pass(piece, |length, behind| {
                    assert!(behind < size);
                    found.push(length);
                    Ok(())
                });
                passed.expect("no refusal");
            }
            assert_eq!(found, [3, 0, 258], "in pieces of {size}");
            assert!(!cursor.has_whole_message(), "258 bytes are to come");
        }
    }
}
