//! What fuzzing reaches of TLS: certificates, and who their names make a peer.

use std::sync::Arc;

use super::{AllowedPeers, names, pem};

/// The DNS names and URIs of a certificate.
///
/// # Errors
/// Why it can't be read.
pub fn names(certificate: &[u8]) -> Result<Vec<String>, String> {
    names::alternative_names(certificate).map_err(|error| error.to_string())
}

/// The members that a certificate with these names can be: none; any; or these.
///
/// # Errors
/// What is wrong with the patterns.
pub fn members(
    patterns: &[String],
    names: &[String],
) -> Result<Option<Option<Vec<Arc<str>>>>, String> {
    let allowed = AllowedPeers::parse(patterns)?;
    Ok(allowed.members(names.iter().map(String::as_str)))
}

/// How many certificates a text in PEM format has, and whether it has a key.
///
/// # Errors
/// What is wrong with it.
pub fn pem(text: &[u8]) -> (Result<usize, String>, Result<(), String>) {
    let certificates = pem::certificates(text).map(|it| it.len());
    (certificates, pem::private_key(text).map(drop))
}
