//! What fuzzing reaches of the listener for Redis clients.

pub use super::reply::{COPIED_BYTES, Protocol, Reply};
use super::{reply, request::Decoder};

/// What a decoder found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The arguments of each command, and where it ended.
    pub commands: Vec<(Vec<Vec<u8>>, usize)>,
    /// How the client broke the protocol.
    pub violation: Option<String>,
}

/// The commands in bytes of which ever more arrive: up to each of these ends.
pub fn commands(bytes: &[u8], ends: impl IntoIterator<Item = usize>, most: usize) -> Found {
    let (mut decoder, mut found, mut begin) = (Decoder::default(), Found::default(), 0);
    for end in ends {
        while begin < end {
            let there = &bytes[begin..end];
            match decoder.next(there, most) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    let arguments = decoder.arguments(&there[..length]);
                    let arguments = arguments.after(0).map(<[u8]>::to_vec).collect();
                    begin += length;
                    found.commands.push((arguments, begin));
                }
                Err(violation) => {
                    found.violation = Some(violation.0.into_owned());
                    return found;
                }
            }
        }
    }
    found
}

/// An answer as it goes out.
pub fn written(reply: Reply, protocol: Protocol) -> Vec<u8> {
    let mut all = Vec::new();
    reply::write(&mut all, reply, protocol);
    all
}
