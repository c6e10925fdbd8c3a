//! Who may do what: the one place that decides whether a call is allowed, for every listener.
//!
//! A listener describes who calls as a [`Caller`], and asks [`Permissions::check`], or wraps a call
//! that changes something into [`Permissions::run`], which also writes the audit. Everything else
//! is in here: what nobody has to prove (`auth.anonymous`), bearer tokens of a file, client
//! certificates, and JWTs.
//!
//! Calls of other nodes never come here: they were allowed at the node that the client asked.
//!
//! Before that, what a browser may have been tricked into is refused by [`Hosts`].
//!
//! A decision must not depend on the protocol of a request. This module must never log a token, and
//! must never wait for anything while it decides. A file or URL that can't be used must not end
//! what works: what was read before stays in force.

mod action;
mod audit;
mod audit_file;
mod call;
mod caller;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grants;
mod hosts;
#[cfg(feature = "cli")]
mod jwt;
mod permissions;
mod proof;
mod refusal;
mod rules;
mod sources;
mod tokens;
mod who;

pub use action::Action;
#[cfg(feature = "cli")]
pub(crate) use action::Actions;
pub(crate) use call::Call;
pub(crate) use caller::{Caller, Entry};
pub(crate) use hosts::{Hosts, Misdirected};
#[cfg(feature = "cli")]
pub(crate) use jwt::{JwtRules, KeysFrom};
pub(crate) use permissions::Permissions;
pub use rules::{AuditTo, AuthRules};
#[cfg(feature = "cli")]
pub(crate) use {
    grants::check as check_grants, grants::named_groups as granted_groups,
    hosts::check as check_host, jwt::check as check_jwks, tokens::check as check_tokens,
    tokens::named_groups as groups_of_tokens,
};
