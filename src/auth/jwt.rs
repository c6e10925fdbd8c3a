//! JWTs (RFC 7519) of an issuer whose keys are a JWKS (RFC 7517): who is their subject.
//!
//! Kubernetes' projected tokens of service accounts are such JWTs. Only signatures with a public
//! key count (RS256, ES256, EdDSA): with HS256, anyone who knows the public keys could sign. The
//! key decides which of them it is for, never the token. Issuer, audience, subject and expiry must
//! be there.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, Validation,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    decode, decode_header,
    errors::{Error as JwtError, ErrorKind as JwtErrorKind},
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
    signature::{self, Verifier},
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;

use super::tokens::bounded;
use crate::http_client::Proxies;
use gaocache_core::error::{Error, ErrorKind, Result};

/// The largest JWKS, in bytes.
pub(super) const MAX_JWKS_BYTES: usize = 256 << 10;
/// The most keys of one. A token without a key id is tried with each that fits.
const MAX_KEYS: usize = 32;
/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 30;

/// Which JWTs count.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JwtRules {
    /// Where the keys are.
    pub(crate) keys: KeysFrom,
    /// The issuer of the tokens.
    pub(crate) issuer: String,
    /// For whom they must be issued.
    pub(crate) audience: String,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KeysFrom {
    /// In a file.
    File(PathBuf),
    /// Behind a URL.
    Url {
        url: String,
        /// File with the authorities of the server's certificate, in PEM format; else the system's.
        ca: Option<PathBuf>,
        /// File with a bearer token for the server.
        token_file: Option<PathBuf>,
        /// Whether a proxy may be in between.
        proxies: Proxies,
    },
}

/// An issuer, with its keys as they were read last.
pub(super) struct Jwt {
    validation: Validation,
    keys: Vec<Key>,
    /// As they were read.
    pub(super) content: Vec<u8>,
    /// A token named a key that is not among them. The issuer may have a new one.
    misses_a_key: AtomicBool,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Jwt {
    /// With the keys of the file; behind a URL, they are fetched later.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the file can't be used.
    pub(super) fn load(rules: &JwtRules) -> Result<Self> {
        // The one of another part of the program will do, too.
        let _ = RING.install_default();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&rules.issuer]);
        validation.set_audience(&[&rules.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let without_keys = Self {
            validation,
            keys: Vec::new(),
            content: Vec::new(),
            misses_a_key: AtomicBool::new(false),
        };
        let KeysFrom::File(file) = &rules.keys else {
            return Ok(without_keys);
        };
        let read = bounded(file, MAX_JWKS_BYTES as u64);
        read.and_then(|content| without_keys.with_keys(content))
            .map_err(|why| {
                let what = format!("auth.jwt.jwks {}: {why}", file.display());
                Error::new(ErrorKind::Configuration, what)
            })
    }

    /// The same, with the keys of this JWKS. Keys of other kinds are left out.
    ///
    /// # Errors
    /// Why it can't be used, as a phrase.
    pub(super) fn with_keys(&self, content: Vec<u8>) -> std::result::Result<Self, String> {
        Ok(Self {
            validation: self.validation.clone(),
            keys: keys(&content)?,
            content,
            misses_a_key: AtomicBool::new(false),
        })
    }

    /// The subject of a token that counts.
    ///
    /// # Errors
    /// Why it doesn't.
    pub(super) fn subject(&self, token: &[u8]) -> std::result::Result<String, &'static str> {
        let header = decode_header(token).map_err(|_| "the bearer token is not known")?;
        if self.keys.is_empty() {
            self.misses_a_key.store(true, Ordering::Relaxed);
            return Err("the issuer's keys could not be fetched yet");
        }
        let fits = |key: &&Key| {
            key.algorithm == header.alg && (header.kid.is_none() || key.id == header.kid)
        };
        let mut problem = "no key of the issuer fits the bearer token";
        let mut is_any = false;
        for key in self.keys.iter().filter(fits) {
            is_any = true;
            let mut validation = self.validation.clone();
            validation.algorithms = vec![key.algorithm];
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(read) => return Ok(read.claims.sub),
                Err(error) => problem = reason(&error),
            }
        }
        if !is_any {
            self.misses_a_key.store(true, Ordering::Relaxed);
        }
        Err(problem)
    }

    /// Whether a token named a key that is not there, since this was asked last.
    pub(super) fn missed_a_key(&self) -> bool {
        self.misses_a_key.swap(false, Ordering::Relaxed)
    }
}

/// Whether a file has keys that can be used.
pub(crate) fn check(path: &Path) -> std::result::Result<(), String> {
    keys(&bounded(path, MAX_JWKS_BYTES as u64)?).map(drop)
}

/// The keys of a JWKS.
fn keys(content: &[u8]) -> std::result::Result<Vec<Key>, String> {
    if content.len() > MAX_JWKS_BYTES {
        return Err(format!("it is larger than {MAX_JWKS_BYTES} bytes"));
    }
    let set: JwkSet =
        serde_json::from_slice(content).map_err(|error| format!("it is not a JWKS: {error}"))?;
    let keys: Vec<Key> = set.keys.iter().filter_map(Key::of).collect();
    if keys.is_empty() {
        return Err("it has no key for RS256, ES256 or EdDSA".into());
    }
    if keys.len() > MAX_KEYS {
        return Err(format!("it has more than {MAX_KEYS} keys"));
    }
    Ok(keys)
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            _ => return None,
        };
        let common = &jwk.common;
        let other_use = common.public_key_use.as_ref();
        if other_use.is_some_and(|it| *it != PublicKeyUse::Signature)
            || common
                .key_algorithm
                .is_some_and(|it| it != algorithm.into())
        {
            return None;
        }
        Some(Self {
            id: common.key_id.clone(),
            algorithm,
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}

/// What is wrong with a token, for its sender.
fn reason(error: &JwtError) -> &'static str {
    match error.kind() {
        JwtErrorKind::ExpiredSignature => "the bearer token has expired",
        JwtErrorKind::ImmatureSignature => "the bearer token is not valid yet",
        JwtErrorKind::InvalidAudience => "the bearer token is for another audience",
        JwtErrorKind::InvalidIssuer => "the bearer token is from another issuer",
        JwtErrorKind::MissingRequiredClaim(_) => "the bearer token lacks a claim",
        JwtErrorKind::InvalidSignature => "the signature of the bearer token is wrong",
        _ => "the bearer token is not valid",
    }
}

/// Verifies with `ring`, which this program has anyway. It never signs.
static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(JwtErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| match algorithm {
        Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA => Ok(Box::new(ByRing {
            algorithm: *algorithm,
            key: key.clone(),
        })),
        _ => Err(JwtErrorKind::UnsupportedAlgorithm.into()),
    },
    // For turning private keys into a JWK, which nobody does here.
    key_utils: KeyUtils::new_unimplemented(),
};

struct ByRing {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for ByRing {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for ByRing {
    fn verify(
        &self,
        message: &[u8],
        signed: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signed)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signed)
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signed)
            }
            _ => return Err(signature::Error::new()),
        };
        verified.map_err(|_| signature::Error::new())
    }
}
