//! Who a caller has proven to be.

use std::sync::Arc;

/// Who a caller has proven to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody in particular.
    Nobody,
    /// Who can open the admin socket.
    Socket,
    /// The holder of the token of that name.
    Token(Arc<str>),
    /// The holder of a certificate of that name.
    Certificate(String),
    /// The subject of a JWT.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    Subject(String),
}

impl Who {
    /// For a refusal.
    pub(super) fn told(&self) -> String {
        let name = match self {
            Self::Nobody => return "the caller".into(),
            Self::Socket => return "the admin socket".into(),
            Self::Token(name) => name,
            Self::Certificate(name) | Self::Subject(name) => name.as_str(),
        };
        let shown: String = name.escape_debug().take(128).collect();
        format!("'{shown}'")
    }
}
