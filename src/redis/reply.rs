//! Answers, and how they are written in either version of the protocol.

use std::borrow::Cow;

use bytes::Bytes;

use crate::status::redis::{code, message};
use gaocache_core::error::{Error, ErrorKind};

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The one that connections begin with.
    #[default]
    Resp2,
    /// The one that they may choose.
    Resp3,
}

impl Protocol {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// An answer to a command, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A word.
    Status(&'static str),
    /// The code, and what happened.
    Error(&'static str, Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// There is none.
    Nil,
    /// Bytes; large ones go out as they are.
    Value(Bytes),
    /// A text.
    Text(String),
    /// A list.
    Array(Vec<Reply>),
    /// In version 2, an array.
    Set(Vec<Reply>),
    /// In version 2, an array of keys and values in turn.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    pub(super) const OK: Self = Self::Status("OK");

    pub(super) fn error(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Error("ERR", what.into())
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A key that the origin doesn't have is no failure.
    pub(super) fn failed(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Nil,
            kind => Self::Error(code(kind), message(error).into()),
        }
    }

    pub(super) fn is_error(&self) -> bool {
        matches!(self, Self::Error(..))
    }

    /// About how many bytes it takes to write it, without those that go out as they are.
    pub(super) fn copied_bytes(&self) -> usize {
        const HEAD: usize = 24;
        let rest = match self {
            Self::Value(value) if value.len() <= COPIED_BYTES => value.len(),
            Self::Value(_) | Self::Integer(_) | Self::Nil => 0,
            Self::Status(text) => text.len(),
            Self::Error(_, text) => text.len(),
            Self::Text(text) => text.len(),
            Self::Array(parts) | Self::Set(parts) => parts.iter().map(Self::copied_bytes).sum(),
            Self::Map(parts) => parts
                .iter()
                .map(|(key, value)| key.copied_bytes() + value.copied_bytes())
                .sum(),
        };
        HEAD + rest
    }
}

/// Values up to this size are copied behind what is written already, since one write costs less
/// than two.
pub const COPIED_BYTES: usize = 4 * 1024;

/// What answers are written to.
pub(super) trait Sink {
    /// Where small parts go.
    fn tail(&mut self) -> &mut Vec<u8>;
    /// Takes bytes as they are.
    fn whole(&mut self, bytes: Bytes);
}

/// For those who need all bytes in one piece.
#[cfg(any(test, feature = "fuzzing"))]
impl Sink for Vec<u8> {
    fn tail(&mut self) -> &mut Self {
        self
    }

    fn whole(&mut self, bytes: Bytes) {
        self.extend(&bytes[..]);
    }
}

/// Writes an answer.
pub(super) fn write(out: &mut impl Sink, reply: Reply, protocol: Protocol) {
    match reply {
        Reply::Value(value) => put_value(out, value),
        Reply::Integer(number) => put_number(out.tail(), b':', number),
        Reply::Status(text) => {
            let tail = out.tail();
            tail.push(b'+');
            tail.extend(text.as_bytes());
            tail.extend(b"\r\n");
        }
        Reply::Error(code, text) => put_error(out.tail(), code, &text),
        Reply::Nil => out.tail().extend(match protocol {
            Protocol::Resp2 => &b"$-1\r\n"[..],
            Protocol::Resp3 => b"_\r\n",
        }),
        Reply::Text(text) => {
            put_number(out.tail(), b'$', text.len() as i64);
            out.tail().extend(text.as_bytes());
            out.tail().extend(b"\r\n");
        }
        Reply::Array(parts) => put_all(out, b'*', parts, protocol),
        Reply::Set(parts) => {
            let mark = match protocol {
                Protocol::Resp2 => b'*',
                Protocol::Resp3 => b'~',
            };
            put_all(out, mark, parts, protocol);
        }
        Reply::Map(parts) => {
            let (mark, length) = match protocol {
                Protocol::Resp2 => (b'*', 2 * parts.len()),
                Protocol::Resp3 => (b'%', parts.len()),
            };
            put_number(out.tail(), mark, length as i64);
            for (key, value) in parts {
                write(out, key, protocol);
                write(out, value, protocol);
            }
        }
    }
}

fn put_all(out: &mut impl Sink, mark: u8, parts: Vec<Reply>, protocol: Protocol) {
    put_number(out.tail(), mark, parts.len() as i64);
    for part in parts {
        write(out, part, protocol);
    }
}

fn put_value(out: &mut impl Sink, value: Bytes) {
    let tail = out.tail();
    put_number(tail, b'$', value.len() as i64);
    if value.len() <= COPIED_BYTES {
        tail.extend(&value[..]);
    } else {
        out.whole(value);
    }
    out.tail().extend(b"\r\n");
}

/// An error is one line, whatever its message came from.
fn put_error(tail: &mut Vec<u8>, code: &str, text: &str) {
    tail.push(b'-');
    tail.extend(code.as_bytes());
    tail.push(b' ');
    let one_line = text
        .bytes()
        .map(|byte| if byte.is_ascii_control() { b' ' } else { byte });
    tail.extend(one_line);
    tail.extend(b"\r\n");
}

fn put_number(tail: &mut Vec<u8>, mark: u8, number: i64) {
    tail.push(mark);
    tail.extend(itoa::Buffer::new().format(number).as_bytes());
    tail.extend(b"\r\n");
}

#[cfg(test)]
mod tests {
    use redis_protocol::{resp2, resp3};

    use super::*;

    fn written(reply: Reply, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, reply, protocol);
        out
    }

    #[test]
    fn answers_are_what_others_read() {
        use resp2::types::OwnedFrame as Two;
        use resp3::types::OwnedFrame as Three;
        let large = vec![7; COPIED_BYTES + 1];
        let reply = Reply::Map(vec![
            (Reply::text("a"), Reply::Integer(-7)),
            (Reply::Value(large.clone().into()), Reply::Nil),
            (Reply::OK, Reply::error("two\r\nlines")),
        ]);
        let reply = Reply::Array(vec![reply, Reply::Set(vec![Reply::text("b")])]);

        let bytes = written(reply.clone(), Protocol::Resp2);
        let (frame, length) = resp2::decode::decode(&bytes)
            .expect("valid")
            .expect("whole");
        assert_eq!(length, bytes.len());
        let text = |text: &str| Two::BulkString(text.into());
        let map = Two::Array(vec![
            text("a"),
            Two::Integer(-7),
            Two::BulkString(large.clone()),
            Two::Null,
            Two::SimpleString(b"OK".to_vec()),
            Two::Error("ERR two  lines".into()),
        ]);
        assert_eq!(frame, Two::Array(vec![map, Two::Array(vec![text("b")])]));

        let bytes = written(reply, Protocol::Resp3);
        let decoded = resp3::decode::complete::decode(&bytes).expect("valid");
        let (frame, length) = decoded.expect("whole");
        assert_eq!(length, bytes.len());
        let Three::Array { data, .. } = frame else {
            panic!("an array");
        };
        let (Three::Map { data: map, .. }, Three::Set { data: set, .. }) = (&data[0], &data[1])
        else {
            panic!("a map and a set: {data:?}");
        };
        let text = |data: &[u8]| Three::BlobString {
            data: data.to_vec(),
            attributes: None,
        };
        assert_eq!(map[&text(&large)], Three::Null);
        assert!(set.contains(&text(b"b")));
        assert_eq!((map.len(), set.len()), (3, 1));
    }
}
