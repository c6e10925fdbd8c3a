//! What fuzzing reaches of permissions: tokens, JWTs, grants, and the names of hosts.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header::HOST};

pub use super::action::Action;
use super::{
    caller::{Caller, Entry},
    grants::Grants,
    hosts::Hosts,
    jwt::{Jwt, JwtRules, KeysFrom},
    tokens,
};
use crate::http_client::Proxies;

/// A file of tokens.
pub struct Tokens(tokens::Tokens);

impl Tokens {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        tokens::Tokens::parse(content).map(Self)
    }

    /// The name of a token, and whether it allows that; `None` if it is not known.
    pub fn allows(&self, token: &[u8], action: Action, group: &str) -> Option<(String, bool)> {
        let token = self.0.find(token)?;
        let allows = token.grants.iter().any(|it| it.allows(action, group));
        Some((token.name.to_string(), allows))
    }
}

/// The actions that `auth.grants` allows a subject of a JWT, or a name of a certificate, in a
/// group.
///
/// # Errors
/// What is wrong with the grants.
pub fn granted(
    grants: &[String],
    is_jwt: bool,
    name: &str,
    group: &str,
) -> Result<Vec<Action>, String> {
    let grants = Grants::parse(grants)?;
    let table = if is_jwt {
        &grants.subjects
    } else {
        &grants.certificates
    };
    let granted = table.get(name).map(Vec::as_slice).unwrap_or_default();
    let allowed = |it: &Action| granted.iter().any(|grant| grant.allows(*it, group));
    Ok(Action::ALL.into_iter().filter(allowed).collect())
}

/// An issuer of JWTs.
pub struct Issuer(Jwt);

impl Issuer {
    /// With the keys of this JWKS.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(jwks: &[u8], issuer: &str, audience: &str) -> Result<Self, String> {
        let rules = JwtRules {
            keys: KeysFrom::Url {
                url: String::new(),
                ca: None,
                token_file: None,
                proxies: Proxies::None,
            },
            issuer: issuer.into(),
            audience: audience.into(),
        };
        let jwt = Jwt::load(&rules).map_err(|error| error.to_string())?;
        jwt.with_keys(jwks.to_vec()).map(Self)
    }

    /// The subject of a token that counts.
    ///
    /// # Errors
    /// Why it doesn't.
    pub fn subject(&self, token: &[u8]) -> Result<String, &'static str> {
        self.0.subject(token)
    }
}

/// The bearer token of a request with these headers.
pub fn bearer(headers: &HeaderMap) -> Option<Bytes> {
    let entry = Entry::Socket { uid: None };
    Caller::of_request(entry, &http::Extensions::new(), headers).token
}

/// Whether a listener with these names of its own answers for a host.
pub fn answers_for(own: &[&str], allowed: &[String], host: HeaderValue) -> bool {
    let hosts = Hosts::new(own.iter().copied(), allowed);
    let headers = HeaderMap::from_iter([(HOST, host)]);
    hosts
        .check(&Method::GET, &Uri::from_static("/"), &headers)
        .is_ok()
}
