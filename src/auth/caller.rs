//! Who calls, as far as a listener can tell.

use std::{fmt, net::SocketAddr};

use bytes::Bytes;
use http::{Extensions, HeaderMap, header::AUTHORIZATION};

use crate::tls::ClientNames;

/// The longest token that is looked at, in bytes. Longer ones are none.
pub(super) const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Over the network, from there.
    Network(SocketAddr),
    /// Through the admin socket, by a process of this user. Who can open the socket may do
    /// everything: the permissions of its file have decided.
    #[cfg_attr(not(unix), allow(dead_code))]
    Socket {
        /// The user's id, as the kernel tells it.
        uid: Option<u32>,
    },
    /// Nowhere: the process itself has found this to do, such as "SIGHUP".
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    Process(&'static str),
}

/// Who calls: where the connection came in, and what it or the request has brought as a proof.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(super) entry: Entry,
    pub(super) names: Option<ClientNames>,
    /// A bearer token, not yet looked at.
    pub(super) token: Option<Bytes>,
}

impl Caller {
    /// Who has proven nothing.
    pub(crate) const fn new(entry: Entry) -> Self {
        Self {
            entry,
            names: None,
            token: None,
        }
    }

    /// Whose connection has shown a certificate with these names.
    #[must_use]
    pub(crate) fn with_names(mut self, names: Option<ClientNames>) -> Self {
        self.names = names;
        self
    }

    /// Who has sent this token.
    #[must_use]
    pub(crate) fn with_token(mut self, token: Option<Bytes>) -> Self {
        self.token = token.filter(|it| it.len() <= MAX_TOKEN_BYTES);
        self
    }

    /// Who has sent a request with these extensions and headers.
    pub(crate) fn of_request(entry: Entry, extensions: &Extensions, headers: &HeaderMap) -> Self {
        Self::new(entry)
            .with_names(extensions.get().cloned())
            .with_token(bearer(headers).map(Bytes::copy_from_slice))
    }
}

impl Caller {
    /// Whether there is anything that may prove who it is.
    pub(super) fn has_proof(&self) -> bool {
        self.names.is_some() || self.token.is_some()
    }
}

/// Never shows the token.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("entry", &self.entry)
            .field("names", &self.names)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .finish()
    }
}

/// The bearer token of a request (RFC 6750).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
    (is_bearer && token.len() <= MAX_TOKEN_BYTES).then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(
                AUTHORIZATION,
                HeaderValue::from_bytes(value).expect("a value"),
            );
            bearer(&headers).map(<[u8]>::to_vec)
        };
        for good in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(of(good.as_bytes()).as_deref(), Some(&b"abc"[..]), "{good}");
        }
        for none in ["Basic abc", "Bearer", "abc"] {
            assert_eq!(of(none.as_bytes()), None, "{none}");
        }
        let long = [b"Bearer ".to_vec(), vec![b'a'; MAX_TOKEN_BYTES + 1]].concat();
        assert_eq!(of(&long), None, "too long");
    }

    #[test]
    fn a_token_is_never_shown() {
        let entry = Entry::Socket { uid: None };
        let caller = Caller::new(entry).with_token(Some(Bytes::from_static(b"secret")));
        assert!(!format!("{caller:?}").contains("secret"));
    }
}
