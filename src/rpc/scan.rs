//! Looks at the fields of a message before it is decoded.
//!
//! Nothing is allocated here. An invalid message is left to the decoder.

use bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};

/// Whether the message has the field at most that often.
pub(super) fn has_at_most(mut message: impl Buf, field: u32, most: usize) -> bool {
    let mut found = 0;
    while message.has_remaining() {
        let Ok((number, wire_type)) = decode_key(&mut message) else {
            break;
        };
        found += usize::from(number == field && wire_type == WireType::LengthDelimited);
        if found > most {
            return false;
        }
        let context = DecodeContext::default();
        if skip_field(wire_type, number, &mut message, context).is_err() {
            break;
        }
    }
    true
}

/// The value of a `fixed64` field; the last one, as decoders have it. 0 if there is none.
pub(super) fn fixed64(mut message: impl Buf, field: u32) -> u64 {
    let mut value = 0;
    while message.has_remaining() {
        let Ok((number, wire_type)) = decode_key(&mut message) else {
            break;
        };
        if number == field && wire_type == WireType::SixtyFourBit {
            match message.try_get_u64_le() {
                Ok(found) => value = found,
                Err(_) => break,
            }
            continue;
        }
        let context = DecodeContext::default();
        if skip_field(wire_type, number, &mut message, context).is_err() {
            break;
        }
    }
    value
}
