//! Connections and the log.

use std::iter::once;

use gaocache::fuzzing::{node::frames as followed, telemetry::filter};

use crate::memory::bounded;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How many control frames a client of the test may send within the second that no test takes.
const MOST: u32 = 200;

/// Frames of HTTP/2: seen the same however they are cut up, and floods are found. The first byte
/// says how the bytes are cut up, and how often they come.
pub fn frames(input: &[u8]) {
    let Some((how, frames)) = input.split_first() else {
        return;
    };
    let bytes = frames.repeat(1 + usize::from(how % 8) * 20);
    let step = 1 + usize::from(how / 8) * 5;
    let parts = |step| once(PREFACE).chain(bytes.chunks(step));
    let whole = followed(parts(bytes.len().max(1)), MOST);
    assert_eq!(followed(parts(step), MOST), whole);
    let (control, requests, greeted) = counted(&bytes);
    assert!(whole.1 == greeted || whole.0, "greeted");
    // It looks once in 128 frames.
    let free = requests * 8;
    if control > free + u64::from(MOST) + 128 {
        let later = counted_late(&bytes);
        assert!(
            whole.0 || later,
            "{control} control frames, {requests} requests"
        );
    }
    assert!(!whole.0 || control > u64::from(MOST), "no flood");
    // Another protocol has no frames.
    if !frames.is_empty() && frames[0] != b'P' {
        assert_eq!(followed(bytes.chunks(step), MOST), (false, true));
    }
}

fn each(mut bytes: &[u8], mut see: impl FnMut(u8, u8, usize)) -> bool {
    let mut greeted = false;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        see(head[3], head[4], length);
        greeted |= rest.len() >= length;
        bytes = rest.get(length..).unwrap_or_default();
    }
    greeted
}

/// Control frames and requests, and whether the first frame is there.
fn counted(bytes: &[u8]) -> (u64, u64, bool) {
    let (mut control, mut requests) = (0, 0);
    let greeted = each(bytes, |kind, flags, length| match kind {
        0 if length > 0 || flags & 1 != 0 => {}
        1 => requests += 1,
        _ => control += 1,
    });
    (control, requests, greeted)
}

/// Whether requests came behind the flood, so that it was none at any time when it was looked at.
fn counted_late(bytes: &[u8]) -> bool {
    let (mut control, mut requests, mut flood) = (0_u64, 0_u64, false);
    each(bytes, |kind, flags, length| match kind {
        0 if length > 0 || flags & 1 != 0 => {}
        1 => requests += 1,
        _ => {
            control += 1;
            flood |= control % 128 == 0 && control.saturating_sub(requests * 8) > u64::from(MOST);
        }
    });
    !flood
}

/// Filters of the log: whatever is asked for takes little memory, and is refused with a reason on
/// one line.
pub fn log_filters(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let read = bounded(text.len().min(2048), 1 << 10, 256 << 10, || filter(&text));
    if let Err(error) = read {
        assert!(!error.message().is_empty());
    } else {
        assert!(text.len() <= 1024, "a filter is short");
        let words = text.split(',').filter(|it| !it.contains(['=', '[']));
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        for word in words {
            let known = levels.iter().any(|it| it.eq_ignore_ascii_case(word));
            assert!(
                known || word.parse::<u8>().is_ok_and(|it| it <= 5),
                "{word:?}"
            );
        }
    }
}
