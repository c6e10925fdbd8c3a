//! An error as Redis clients know errors: a code that they look at, and a text.

use gaocache_core::error::{Error, ErrorKind};

/// The code of a kind. Clients retry what is `TRYAGAIN`, and know `BUSY` as a server that has no
/// time.
pub const fn code(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unauthenticated => "NOAUTH",
        ErrorKind::PermissionDenied => "NOPERM",
        ErrorKind::Overloaded | ErrorKind::TooManyRequests => "BUSY",
        ErrorKind::PeerUnreachable | ErrorKind::NotReady | ErrorKind::Registry => "TRYAGAIN",
        _ => "ERR",
    }
}

/// The text: the exact kind, and what happened.
pub fn message(error: &Error) -> String {
    let (kind, what) = (error.kind(), error.message());
    let advice = match kind {
        ErrorKind::Unauthenticated => "; log in with AUTH",
        _ => "",
    };
    format!("{}: {what}{advice}", kind.name())
}
