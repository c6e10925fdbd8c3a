//! The protocol of Redis, held against the crate `redis-protocol`.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use gaocache::fuzzing::redis::{COPIED_BYTES, Protocol, Reply, commands as found, written};
use redis_protocol::{
    resp2::{decode::decode as decode2, types::OwnedFrame as Two},
    resp3::decode::complete::decode as decode3,
};

use crate::memory::bounded;

const MOST_ARGUMENTS: usize = 64;

/// Commands: found the same however their bytes are cut up, in bounded memory, and as another
/// decoder finds them. The first byte says how they are cut up.
pub fn commands(input: &[u8]) {
    let Some((cut, bytes)) = input.split_first() else {
        return;
    };
    let whole = bounded(bytes.len(), 48, 16 << 10, || {
        found(bytes, [bytes.len()], MOST_ARGUMENTS)
    });
    let step = 1 + usize::from(cut % 23);
    let ends = (0..bytes.len()).step_by(step).chain([bytes.len()]);
    assert_eq!(found(bytes, ends, MOST_ARGUMENTS), whole);
    let mut begin = 0;
    for (arguments, end) in &whole.commands {
        assert!(*end > begin, "it takes bytes");
        let command = &bytes[begin..*end];
        if command[0] == b'*' && !arguments.is_empty() {
            let other = decode2(command).expect("valid").expect("whole");
            assert_eq!(strings(other.0).as_ref(), Some(arguments));
            assert_eq!(other.1, command.len());
            // A number may be written with zeros before it; nothing else may differ.
            let canonical = canonical(arguments);
            assert!(canonical.len() != command.len() || canonical == command);
        }
        begin = *end;
    }
    // What the other one finds next was refused or is not whole, unless it is written oddly.
    let rest = &bytes[begin..];
    if let (b'*', Ok(Some((frame, length)))) = (*rest.first().unwrap_or(&b' '), decode2(rest))
        && let Some(arguments) = strings(frame)
        && canonical(&arguments) == rest[..length]
    {
        assert!(arguments.len() > MOST_ARGUMENTS, "a command was not found");
    }
}

fn strings(frame: Two) -> Option<Vec<Vec<u8>>> {
    let Two::Array(parts) = frame else {
        return None;
    };
    let string = |part| match part {
        Two::BulkString(bytes) => Some(bytes),
        _ => None,
    };
    parts.into_iter().map(string).collect()
}

fn canonical(arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.len()).bytes());
        bytes.extend(argument);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Answers: another decoder reads what was meant.
pub fn replies(input: &[u8]) {
    let mut given = Unstructured::new(input);
    let Ok(reply) = reply(&mut given, 3) else {
        return;
    };
    let two = written(reply.clone(), Protocol::Resp2);
    let (frame, length) = decode2(&two).expect("valid").expect("whole");
    assert_eq!((frame, length), (expected(&reply), two.len()));
    if has_set(&reply) {
        // The other decoder takes only some kinds of answers into one.
        return;
    }
    let three = written(reply, Protocol::Resp3);
    let (_, length) = decode3(&three).expect("valid").expect("whole");
    assert_eq!(length, three.len());
}

fn reply(given: &mut Unstructured<'_>, depth: u8) -> Result<Reply> {
    let kinds = if depth == 0 { 4 } else { 8 };
    Ok(match given.int_in_range(0..=kinds)? {
        0 => Reply::Nil,
        1 => Reply::Integer(given.arbitrary()?),
        2 => Reply::Status("OK"),
        3 => Reply::Text(given.arbitrary()?),
        4 => Reply::Error("ERR", given.arbitrary::<String>()?.into()),
        5 => {
            let mut value = given.arbitrary::<Vec<u8>>()?;
            // On either side of where a value goes out apart.
            if given.ratio(1, 8)? {
                value.resize(COPIED_BYTES + usize::from(given.arbitrary::<bool>()?), 7);
            }
            Reply::Value(Bytes::from(value))
        }
        6 => Reply::Array(parts(given, depth - 1)?),
        7 => Reply::Set(parts(given, depth - 1)?),
        _ => {
            // The other decoder takes only some kinds of answers as names.
            let name = |_| given.arbitrary().map(Reply::Text);
            let names: Vec<Reply> = (0..3).map(name).collect::<Result<_>>()?;
            Reply::Map(names.into_iter().zip(parts(given, depth - 1)?).collect())
        }
    })
}

fn parts(given: &mut Unstructured<'_>, depth: u8) -> Result<Vec<Reply>> {
    let count = given.int_in_range(0..=4)?;
    (0..count).map(|_| reply(given, depth)).collect()
}

fn has_set(reply: &Reply) -> bool {
    match reply {
        Reply::Set(_) => true,
        Reply::Array(parts) => parts.iter().any(has_set),
        Reply::Map(parts) => parts
            .iter()
            .any(|(name, value)| has_set(name) || has_set(value)),
        _ => false,
    }
}

/// In the older version of the protocol.
fn expected(reply: &Reply) -> Two {
    let all = |parts: &[Reply]| parts.iter().map(expected).collect();
    match reply {
        Reply::Nil => Two::Null,
        Reply::Integer(number) => Two::Integer(*number),
        Reply::Status(text) => Two::SimpleString((*text).into()),
        Reply::Error(code, text) => {
            let line = |it: char| if it.is_ascii_control() { ' ' } else { it };
            let line: String = text.chars().map(line).collect();
            Two::Error(format!("{code} {line}"))
        }
        Reply::Text(text) => Two::BulkString(text.clone().into_bytes()),
        Reply::Value(value) => Two::BulkString(value.to_vec()),
        Reply::Array(parts) | Reply::Set(parts) => Two::Array(all(parts)),
        Reply::Map(parts) => {
            let flat = parts.iter().flat_map(|(name, value)| [name, value]);
            Two::Array(flat.map(expected).collect())
        }
    }
}
