//! Decodes what a client sends: arrays of bulk strings, or lines of words that a person types.
//!
//! It looks at each byte once, however the bytes are cut up, copies none of them, and must never
//! reserve memory for what has only been announced.

use std::borrow::Cow;

/// The largest command, in bytes: as large as a request over gRPC.
pub(super) const MOST_BYTES: usize = 4 << 20;
/// The largest argument, in bytes. Keys are shorter; this leaves room to tell who sends a value
/// that nothing takes one.
const MOST_ARGUMENT: usize = 64 << 10;
/// The longest line of words, in bytes.
const MOST_LINE: usize = 64 << 10;
/// The longest number after `*` or `$`, with its sign: that of the longest `i64`.
const MOST_DIGITS: usize = 20;
/// Arguments for which the list keeps its memory.
const KEPT_ARGUMENTS: usize = 1024;

/// The client does not speak the protocol. It is told, and its connection is closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation(pub(super) Cow<'static, str>);

fn violation<T>(what: impl Into<Cow<'static, str>>) -> Result<T, Violation> {
    Err(Violation(what.into()))
}

/// Finds commands in the bytes of a connection.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Bytes of the command that need no second look.
    seen: usize,
    /// Arguments that are still to come, once their number is known.
    left: Option<usize>,
    /// Begin and end of each argument, from the command's first byte on.
    places: Vec<(u32, u32)>,
}

/// The arguments of a command; the first one is its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arguments<'a> {
    bytes: &'a [u8],
    places: &'a [(u32, u32)],
}

impl<'a> Arguments<'a> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The argument of that number; empty if there is none.
    pub(super) fn at(&self, number: usize) -> &'a [u8] {
        let place = self.places.get(number);
        let argument =
            place.and_then(|(begin, end)| self.bytes.get(*begin as usize..*end as usize));
        argument.unwrap_or_default()
    }

    /// Those after the first `skipped`.
    pub(super) fn after(self, skipped: usize) -> impl Iterator<Item = &'a [u8]> {
        (skipped..self.len()).map(move |number| self.at(number))
    }

    /// The bytes of all of them.
    pub(super) fn total(&self) -> usize {
        self.bytes.len()
    }
}

impl Decoder {
    /// The length of the command that `bytes` begin with, once all of it is there. `bytes` begin
    /// where the last command ended, and have grown since the last call.
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        most_arguments: usize,
    ) -> Result<Option<usize>, Violation> {
        let left = match self.left {
            Some(left) => left,
            None => match bytes.first() {
                None => return Ok(None),
                Some(b'*') => match self.head(bytes, most_arguments)? {
                    Some(count) => count,
                    None => return Ok(None),
                },
                Some(_) => return self.line(bytes),
            },
        };
        for left in (0..left).rev() {
            if !self.argument(bytes)? {
                return Ok(None);
            }
            self.left = Some(left);
        }
        self.left = None;
        Ok(Some(std::mem::take(&mut self.seen)))
    }

    /// The arguments of the command that [`Decoder::next`] has just found at the begin of `bytes`.
    pub(super) fn arguments<'a>(&'a self, bytes: &'a [u8]) -> Arguments<'a> {
        Arguments {
            bytes,
            places: &self.places,
        }
    }

    fn begin(&mut self) {
        self.places.clear();
        self.places.shrink_to(KEPT_ARGUMENTS);
    }

    /// The number of arguments.
    fn head(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, Violation> {
        let Some((count, seen)) = number(bytes, 1)? else {
            return Ok(None);
        };
        self.begin();
        self.seen = seen;
        // As Redis does, a command of nothing is passed over.
        let count = usize::try_from(count).unwrap_or(0);
        if count > most {
            return violation(format!(
                "invalid multibulk length: {count} arguments, and at most {most} are taken \
                 (limits.max_keys_per_request)"
            ));
        }
        self.left = Some(count);
        Ok(Some(count))
    }

    /// Whether the next argument is there.
    fn argument(&mut self, bytes: &[u8]) -> Result<bool, Violation> {
        match bytes.get(self.seen) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(other) => {
                let other = other.escape_ascii();
                return violation(format!("expected '$', got '{other}'"));
            }
        }
        let Some((length, begin)) = number(bytes, self.seen + 1)? else {
            return Ok(false);
        };
        let length = match usize::try_from(length) {
            Ok(length) if length <= MOST_ARGUMENT => length,
            Ok(length) => {
                return violation(format!(
                    "invalid bulk length: an argument of {length} bytes, and at most \
                     {MOST_ARGUMENT} are taken; gaocache is read-through, and no command takes a \
                     value"
                ));
            }
            Err(_) => return violation("invalid bulk length"),
        };
        let end = begin + length;
        if end + 2 > MOST_BYTES {
            return violation(format!("a command of more than {MOST_BYTES} bytes"));
        }
        let Some(after) = bytes.get(end..end + 2) else {
            return Ok(false);
        };
        if after != b"\r\n" {
            return violation("expected a line break after an argument");
        }
        // Bounded above.
        self.places.push((begin as u32, end as u32));
        self.seen = end + 2;
        Ok(true)
    }

    fn line(&mut self, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let unseen = bytes.get(self.seen..).unwrap_or_default();
        let Some(at) = unseen.iter().position(|byte| *byte == b'\n') else {
            self.seen = bytes.len();
            return if bytes.len() > MOST_LINE {
                violation("too big inline request")
            } else {
                Ok(None)
            };
        };
        let end = self.seen + at;
        self.seen = 0;
        if end > MOST_LINE {
            return violation("too big inline request");
        }
        self.begin();
        let line = &bytes[..end];
        if line.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
            return violation("quotes in an inline command are not supported; send an array");
        }
        let mut begin = 0;
        for (at, byte) in line.iter().chain(b" ").enumerate() {
            if byte.is_ascii_whitespace() {
                if begin < at {
                    self.places.push((begin as u32, at as u32));
                }
                begin = at + 1;
            }
        }
        // A browser can be made to send a request to any port; its body must not be obeyed.
        let first = self.arguments(bytes).at(0);
        if [&b"POST"[..], b"Host:"]
            .iter()
            .any(|it| first.eq_ignore_ascii_case(it))
        {
            return violation("this is HTTP, and this listener speaks the protocol of Redis");
        }
        Ok(Some(end + 1))
    }
}

/// The number that begins there and ends with a line break, and where the next line begins.
fn number(bytes: &[u8], begin: usize) -> Result<Option<(i64, usize)>, Violation> {
    let text = bytes.get(begin..).unwrap_or_default();
    let (negative, sign) = match text.first() {
        Some(b'-') => (true, 1),
        _ => (false, 0),
    };
    let mut number: i64 = 0;
    for (at, byte) in text.iter().enumerate().skip(sign) {
        match byte {
            b'0'..=b'9' if at < MOST_DIGITS => {
                let digit = i64::from(byte - b'0');
                let Some(more) = number.checked_mul(10).and_then(|it| it.checked_add(digit)) else {
                    return violation("a number is too large");
                };
                number = more;
            }
            b'\r' if at > sign => {
                return match text.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => {
                        let number = if negative { -number } else { number };
                        Ok(Some((number, begin + at + 2)))
                    }
                    Some(_) => violation("expected a line break after a number"),
                };
            }
            _ => return violation("expected a number"),
        }
    }
    Ok(None)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
