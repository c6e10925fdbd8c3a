//! Who a caller has proven to be.

use std::sync::Arc;

use crate::fairness::ClientId;

/// Who a caller has proven to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody in particular.
    Nobody,
    /// Who can open the admin socket.
    Socket,
    /// Who can send signals to the process, or write its file of settings.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    Operator,
    /// The holder of the token of that name.
    Token(Arc<str>),
    /// The holder of a certificate of that name.
    Certificate(String),
    /// The subject of a JWT.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    Subject(String),
}

impl Who {
    /// The client that it is, if it is somebody in particular.
    pub(super) fn client(&self) -> Option<ClientId> {
        let (how, name) = match self {
            Self::Nobody | Self::Socket | Self::Operator => return None,
            Self::Token(name) => ("token", &**name),
            Self::Certificate(name) => ("certificate", name.as_str()),
            Self::Subject(name) => ("jwt", name.as_str()),
        };
        Some(ClientId::named(how, name))
    }

    /// For a refusal.
    pub(super) fn shown_name(&self) -> String {
        let name = match self {
            Self::Nobody => return "the caller".into(),
            Self::Socket => return "the admin socket".into(),
            Self::Operator => return "the operator".into(),
            Self::Token(name) => name,
            Self::Certificate(name) | Self::Subject(name) => name.as_str(),
        };
        let name: String = name.escape_debug().take(128).collect();
        format!("'{name}'")
    }
}
