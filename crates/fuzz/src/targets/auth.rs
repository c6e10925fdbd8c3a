//! Permissions: files of tokens, grants, JWTs, and the names of hosts.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arbitrary::{Result, Unstructured};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gaocache::fuzzing::auth::{Action, Issuer, Tokens, answers_for, bearer, granted};
use http::HeaderValue;
use ring::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::json;

use crate::{memory::bounded, text};

const ACTIONS: [(Action, &str); 4] = [
    (Action::Read, "read"),
    (Action::Remove, "remove"),
    (Action::Purge, "purge"),
    (Action::Admin, "admin"),
];
const KNOWN: [&str; 3] = ["a", "b", "c"];

fn hash(token: &str) -> String {
    let mut hash = String::new();
    for byte in digest(&SHA256, token.as_bytes()).as_ref() {
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

/// A file of tokens, in which `@a` stands for the hash of `a`: who it lets in is who is named in
/// it, for what stands there, and an error quotes no token.
pub fn tokens(input: &[u8]) {
    let mut content = String::from_utf8_lossy(input).into_owned();
    for token in KNOWN {
        content = content.replace(&format!("@{token}"), &hash(token));
    }
    let read = bounded(content.len(), 64, 64 << 10, || {
        Tokens::parse(content.as_bytes())
    });
    let lines = content.lines().map(str::trim);
    let lines = lines.filter(|it| !it.is_empty() && !it.starts_with('#'));
    let words =
        |line: &str| -> Vec<String> { line.split_ascii_whitespace().map(String::from).collect() };
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            // What stands where the hash belongs may be the token itself.
            let number = error
                .strip_prefix("line ")
                .and_then(|it| it.split_once(':'));
            let number = number
                .and_then(|it| it.0.parse::<usize>().ok())
                .unwrap_or(1);
            let wrong = content.lines().nth(number - 1).unwrap_or_default();
            let second = words(wrong).into_iter().nth(1).unwrap_or_default();
            let is_hash = second.len() == 64;
            assert!(
                second.len() <= 16 || is_hash || !error.contains(&second),
                "{error}"
            );
            return;
        }
    };
    let lines: Vec<Vec<String>> = lines.map(words).collect();
    for token in KNOWN.into_iter().chain(["d", ""]) {
        let named = |it: &&Vec<String>| it[1].eq_ignore_ascii_case(&hash(token));
        let line = lines.iter().find(named);
        for (action, role) in ACTIONS {
            for group in ["users", "orders"] {
                let roles = |line: &Vec<String>| line[2].split(',').any(|it| it == role);
                let groups = |line: &Vec<String>| match line.get(3).map_or("*", |it| it) {
                    "*" => true,
                    groups => groups.split(',').any(|it| it == group),
                };
                let expected = line.map(|it| (it[0].clone(), roles(it) && groups(it)));
                assert_eq!(read.allows(token.as_bytes(), action, group), expected);
            }
        }
    }
}

/// Grants: a line gives its roles in its groups to whom it names, and to nobody else.
pub fn grants(input: &[u8]) {
    let lines = text::texts(input);
    for (is_jwt, kind) in [(false, "certificate:"), (true, "jwt:")] {
        for name in ["web", "spiffe://a/b", "a:b"] {
            for group in ["users", ""] {
                let Ok(found) = granted(&lines, is_jwt, name, group) else {
                    return;
                };
                let mut expected = HashMap::new();
                for line in &lines {
                    let mut words = line.split_ascii_whitespace();
                    let whom = words.next().unwrap_or_default();
                    if whom != format!("{kind}{name}") {
                        continue;
                    }
                    let roles = words.next().unwrap_or_default();
                    let groups = words.next().unwrap_or("*");
                    if groups == "*" || groups.split(',').any(|it| it == group) {
                        let all = ACTIONS
                            .iter()
                            .filter(|it| roles.split(',').any(|r| r == it.1));
                        expected.extend(all.map(|it| (it.1, ())));
                    }
                }
                let names: Vec<_> = found.iter().map(|it| it.name()).collect();
                assert_eq!(names.len(), expected.len(), "{lines:?}");
                assert!(
                    names.iter().all(|it| expected.contains_key(it)),
                    "{lines:?}"
                );
            }
        }
    }
}

const SUBJECT: &str = "system:serviceaccount:shop:web";

struct Made {
    key: Ed25519KeyPair,
    jwks: String,
    issuer: Issuer,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    // Always the same, so that inputs mean the same in each run.
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let public = URL_SAFE_NO_PAD.encode(key.public_key());
    let key_of = json!({ "kty": "OKP", "crv": "Ed25519", "x": public, "kid": "1", "use": "sig" });
    let other = json!({ "kty": "oct", "kid": "2", "k": "c2VjcmV0" });
    let jwks = json!({ "keys": [key_of, other] }).to_string();
    let issuer = Issuer::new(jwks.as_bytes(), "https://i.test", "gaocache").expect("keys");
    Made { key, jwks, issuer }
});

fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "tokens expire by the wall clock")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    now.as_secs() as i64
}

fn signed(header: &serde_json::Value, claims: &serde_json::Value) -> String {
    let part = |it: &serde_json::Value| URL_SAFE_NO_PAD.encode(it.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = MADE.key.sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What the first byte says: changes of a good token, a token with these claims, any token, or a
/// JWKS. Only what the issuer signed counts, for its subject, within its time.
pub fn jwt(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => changed(rest),
        1 => drop(claimed(&mut Unstructured::new(rest))),
        2 => made_up(rest),
        _ => keys(rest),
    }
}

/// Every three bytes are a place and what to put there.
fn changed(edits: &[u8]) {
    let header = json!({ "alg": "EdDSA", "kid": "1" });
    let good = signed(
        &header,
        &json!({
            "iss": "https://i.test", "aud": "gaocache", "sub": SUBJECT, "exp": 4_102_444_800_u64,
        }),
    );
    let mut token = good.clone().into_bytes();
    assert_eq!(MADE.issuer.subject(&token).as_deref(), Ok(SUBJECT));
    for edit in edits.chunks_exact(3).take(8) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % token.len();
        token[at] = edit[2];
    }
    let message = |it: &[u8]| {
        it.iter()
            .rposition(|byte| *byte == b'.')
            .map(|at| it[..at].to_vec())
    };
    if let Ok(subject) = MADE.issuer.subject(&token) {
        assert_eq!(subject, SUBJECT);
        assert_eq!(message(&token), message(good.as_bytes()), "it was changed");
    }
}

fn claimed(given: &mut Unstructured<'_>) -> Result<()> {
    let issuers = ["https://i.test", "https://i.test.evil", ""];
    let audiences = [
        json!("gaocache"),
        json!(["x", "gaocache"]),
        json!("x"),
        json!([]),
        json!(7),
    ];
    let mut claims = json!({ "sub": SUBJECT });
    let (issuer, audience) = (given.int_in_range(0..=3)?, given.int_in_range(0..=5)?);
    if issuer < 3 {
        claims["iss"] = issuers[issuer].into();
    }
    if audience < 5 {
        claims["aud"] = audiences[audience].clone();
    }
    // Away from the moments that a slow machine could shift.
    let far = |given: &mut Unstructured<'_>| -> Result<i64> {
        let seconds = i64::from(given.arbitrary::<i32>()? / 4);
        Ok(if seconds < 0 {
            seconds - 60
        } else {
            seconds + 60
        })
    };
    let (expires, begins) = (far(given)?, far(given)?);
    let (has_expiry, has_begin) = (given.ratio(7, 8)?, given.ratio(1, 2)?);
    if has_expiry {
        claims["exp"] = (now() + expires).into();
    }
    if has_begin {
        claims["nbf"] = (now() + begins).into();
    }
    let algorithms = ["EdDSA", "HS256", "none", "RS256", "ES256"];
    let algorithm = *given.choose(&algorithms)?;
    let id = *given.choose(&["1", "2", "3"])?;
    let token = signed(&json!({ "alg": algorithm, "kid": id }), &claims);
    let good = issuer == 0
        && audience < 2
        && has_expiry
        && expires > 0
        && (!has_begin || begins < 0)
        && (algorithm, id) == ("EdDSA", "1");
    let subject = MADE.issuer.subject(token.as_bytes());
    assert_eq!(
        subject.is_ok(),
        good,
        "{algorithm} {id} {claims}: {subject:?}"
    );
    Ok(())
}

fn made_up(token: &[u8]) {
    let refused = bounded(token.len(), 32, 64 << 10, || MADE.issuer.subject(token));
    assert!(refused.is_err(), "nobody signed it");
    let header = [b"Bearer ", token].concat();
    if let Ok(value) = HeaderValue::from_bytes(&header) {
        let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
        let found = bearer(&headers);
        assert_eq!(found.as_deref(), Some(token.trim_ascii()));
    }
}

/// A JWKS, or changes of a good one.
fn keys(input: &[u8]) {
    let mut jwks = MADE.jwks.clone().into_bytes();
    if let Some((b'!', edits)) = input.split_first() {
        for edit in edits.chunks_exact(2) {
            let at = usize::from(edit[0]) % jwks.len();
            jwks[at] = edit[1];
        }
    } else {
        jwks = input.to_vec();
    }
    let issuer = bounded(jwks.len(), 64, 64 << 10, || {
        Issuer::new(&jwks, "https://i.test", "gaocache")
    });
    // Whatever the keys are, a token of an algorithm for secrets never counts.
    let forged = json!({ "alg": "HS256", "kid": "2" });
    if let Ok(issuer) = issuer {
        let claims = json!({
            "iss": "https://i.test", "aud": "gaocache", "sub": SUBJECT, "exp": now() + 600,
        });
        assert!(issuer.subject(signed(&forged, &claims).as_bytes()).is_err());
    }
}

/// The first line is a host, the others are hosts that are allowed: no name of a stranger is
/// answered for.
pub fn hosts(input: &[u8]) {
    let (host, rest) = text::line(input);
    let allowed: Vec<String> = text::texts(rest);
    let allowed: Vec<String> = allowed.into_iter().filter(|it| !it.is_empty()).collect();
    let Ok(value) = HeaderValue::from_bytes(host) else {
        return;
    };
    if !answers_for(&["n0.test"], &allowed, value) || allowed.iter().any(|it| it.starts_with('*')) {
        return;
    }
    // Then it is an address, a name without a dot, or one of those that are listed.
    let host = std::str::from_utf8(host).expect("a host is text");
    let host = host.rsplit_once('@').map_or(host, |it| it.1);
    let bare = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let bare = bare.trim_end_matches('.').to_ascii_lowercase();
    let address = bare.trim_start_matches('[').trim_end_matches(']');
    let is_address = address.parse::<Ipv4Addr>().is_ok() || address.parse::<Ipv6Addr>().is_ok();
    let own = [".localhost", ".svc", ".cluster.local"]
        .iter()
        .any(|it| bare.ends_with(it));
    let listed = allowed
        .iter()
        .chain([&"n0.test".to_owned()])
        .any(|it| it.trim_end_matches('.').eq_ignore_ascii_case(&bare));
    assert!(
        is_address || !bare.contains('.') || own || listed,
        "{host:?} {allowed:?}"
    );
}
