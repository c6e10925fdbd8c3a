//! Inputs as text, so that a corpus can be read: lines, headers.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first line, and what comes behind it.
pub fn line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

/// The lines.
pub fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == b'\n')
}

/// Lines of text.
pub fn texts(input: &[u8]) -> Vec<String> {
    let text = |line| String::from_utf8_lossy(line).into_owned();
    lines(input).map(text).collect()
}

/// Each line is a header; those that no client could send are left out.
pub fn headers(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines(input).take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next());
        let name = HeaderName::from_bytes(name.trim_ascii());
        let value = HeaderValue::from_bytes(value.unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}
