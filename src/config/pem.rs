//! Whether the files that settings name can be used. Certificates are read anew on each connect, so
//! this only finds early what would fail then.

use std::path::Path;

use crate::tls::pem;

/// A file with at least one certificate.
pub(crate) fn certificates(path: &Path) -> Result<(), String> {
    pem::certificates(&read(path)?).map(drop)
}

/// A file with at least one certificate of an authority.
pub(crate) fn authorities(path: &Path) -> Result<(), String> {
    pem::authorities(&read(path)?).map(drop)
}

/// A file with a certificate that is good now.
pub(crate) fn valid_certificate(path: &Path) -> Result<(), String> {
    let chain = pem::certificates(&read(path)?)?;
    pem::good_now(&chain[0]).map(drop)
}

/// A file with a certificate that is good now, and that servers may show.
pub(crate) fn server_certificate(path: &Path) -> Result<(), String> {
    let chain = pem::certificates(&read(path)?)?;
    pem::of_server(&chain[0]).map(drop)
}

/// A file with a private key.
pub(crate) fn private_key(path: &Path) -> Result<(), String> {
    pem::private_key(&read(path)?).map(drop)
}

/// Files with a certificate and its key.
pub(crate) fn together(cert: &Path, key: &Path) -> Result<(), String> {
    let (chain, key) = (
        pem::certificates(&read(cert)?)?,
        pem::private_key(&read(key)?)?,
    );
    pem::together(chain, key, &crate::tls::provider()).map(drop)
}

/// A file with any text.
pub(crate) fn text(path: &Path) -> Result<(), String> {
    match read(path)?.trim_ascii() {
        [] => Err("the file is empty".into()),
        _ => Ok(()),
    }
}

/// The file, as it is.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("the file can't be read: {error}"))
}
