//! What the text of a PEM file says: certificates, authorities, a key; and whether a certificate
//! and a key can be used together.
//!
//! The errors of the parser may quote a line of the file, which may be one of a key. So they are
//! never passed on, not even as a source.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error, PemObject},
    },
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::unix_seconds;

/// From when until when a certificate is good, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From then on.
    pub begins: i64,
    /// Until then.
    pub ends: i64,
}

/// All certificates of a text; at least one.
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let describe = |error| describe(&error, "certificate");
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(describe)?;
    if found.is_empty() {
        return Err(describe(Error::NoItemsFound));
    }
    Ok(found)
}

/// The authorities of a text; at least one.
pub(crate) fn authorities(text: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(text)? {
        roots
            .add(root)
            .map_err(|error| format!("a certificate can't be used as an authority: {error}"))?;
    }
    Ok(roots)
}

/// The first private key of a text.
pub(crate) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The first is PKCS #8's, the second OpenSSL's own.
    let marks: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let has = |mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
    if marks.into_iter().any(has) {
        return Err(
            "the private key is encrypted, and a node never asks for a passphrase; write it \
             without one, as `openssl pkey` does"
                .into(),
        );
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| describe(&error, "private key"))
}

/// A certificate, those between it and its authority, and its key.
pub(crate) fn together(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, String> {
    match CertifiedKey::from_der(chain, key, provider) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("the key does not belong to the certificate".into())
        }
        Err(error) => Err(format!("the key can't be used: {error}")),
    }
}

/// When a certificate is good, if it is now.
pub(crate) fn good_now(certificate: &[u8]) -> Result<Life, String> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("the certificate can't be read: {error}"))?;
    let validity = parsed.validity();
    let life = Life {
        begins: validity.not_before.timestamp(),
        ends: validity.not_after.timestamp(),
    };
    if (life.ends as f64) < unix_seconds() {
        return Err(format!("the certificate expired on {}", validity.not_after));
    }
    if life.begins as f64 > unix_seconds() {
        return Err(format!(
            "the certificate is not valid before {}; is the clock of this machine right?",
            validity.not_before
        ));
    }
    Ok(life)
}

/// When a certificate is good, if it is now, and servers may show it.
pub(crate) fn of_server(certificate: &[u8]) -> Result<Life, String> {
    let life = good_now(certificate)?;
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("the certificate can't be read: {error}"))?;
    let usage = parsed.extended_key_usage().map_err(|error| {
        format!("the extended key usage of the certificate can't be read: {error}")
    })?;
    match usage.map(|it| it.value) {
        Some(usage) if !usage.server_auth && !usage.any => Err(
            "the certificate is not for servers (its extended key usage lacks serverAuth), so \
             clients would refuse it"
                .into(),
        ),
        _ => Ok(life),
    }
}

fn describe(error: &Error, what: &str) -> String {
    match error {
        Error::NoItemsFound => format!("the file contains no {what} in PEM format"),
        _ => format!("the file is not valid PEM with a {what}"),
    }
}
