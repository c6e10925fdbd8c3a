//! What fuzzing reaches of the node: how it follows the frames of HTTP/2.

use super::socket::Frames;

/// Whether a client that sends these bytes, in these parts, floods, and whether it has greeted. No
/// control frame is free.
pub fn frames<'a>(parts: impl IntoIterator<Item = &'a [u8]>, most_per_second: u32) -> (bool, bool) {
    let mut frames = Frames::new(most_per_second);
    let floods = parts.into_iter().any(|part| frames.pass(part));
    (floods, frames.greeted)
}
