//! Who may do what: roles × calls × listeners, tokens and their file, JWTs, the admin socket,
//! passwords of Redis clients, the audit, and what a browser may be tricked into.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod browsers;
mod calls;
mod certificates;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod issuer;
mod jwt;
mod matrix;
mod redis;
mod socket;
mod tokens;

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

/// The line of a token in a file of tokens.
fn line(name: &str, token: &str, grant: &str) -> String {
    let mut hash = String::new();
    for byte in digest(&SHA256, token.as_bytes()).as_ref() {
        write!(hash, "{byte:02x}").expect("it grows");
    }
    format!("{name} {hash} {grant}\n")
}
