//! Which headers may be kept with a value.

/// Headers that concern one connection or one client, that say how long a body is, or that the
/// node writes itself.
const RESERVED: [&str; 29] = [
    "accept-ranges",
    "age",
    "cache-status",
    "connection",
    "content-length",
    "content-range",
    "date",
    "gaocache-error",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "proxy-status",
    "retry-after",
    "set-cookie",
    "set-cookie2",
    "server-timing",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "warning",
    "www-authenticate",
    "x-cache",
    "x-cache-owner",
    "x-content-type-options",
];

/// Why no origin may set a header of that name, which is in lower case; `None`: it may.
pub fn why_not(name: &str) -> Option<&'static str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > usize::from(u8::MAX) || !name.bytes().all(is_token) {
        return Some("has no valid name");
    }
    RESERVED.contains(&name).then_some(
        "can't be kept with a value: it concerns one connection or client, or the node sets it",
    )
}

/// Whether it is an entity tag (RFC 9110, 8.8.3).
pub fn is_entity_tag(text: &str) -> bool {
    let opaque = text.strip_prefix("W/").unwrap_or(text);
    let inner = opaque
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| inner.bytes().all(|byte| byte > b' ' && byte != b'"'))
}

/// Why a header can't be kept with a value, if so.
pub(super) fn check(name: &str, value: &str) -> Result<(), &'static str> {
    if let Some(why) = why_not(name) {
        return Err(why);
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("is not in lower case");
    }
    if value.chars().any(|it| it.is_control() && it != '\t') {
        return Err("has a character in it that no header may have");
    }
    if name == "etag" && !is_entity_tag(value) {
        return Err("is not an entity tag; it must be in quotes");
    }
    Ok(())
}
