//! Whether the files that settings name can be used. Certificates are read anew on each connect, so
//! this only finds early what would fail then.

use std::path::Path;

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};

/// A file with at least one certificate.
pub(crate) fn certificates(path: &Path) -> Result<(), String> {
    let describe = |error: &Error| describe(error, "certificate");
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| describe(&error))?;
    let mut found = 0;
    for certificate in certificates {
        certificate.map_err(|error| describe(&error))?;
        found += 1;
    }
    if found == 0 {
        return Err(describe(&Error::NoItemsFound));
    }
    Ok(())
}

/// A file with a private key.
pub(crate) fn private_key(path: &Path) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_file(path);
    key.map(drop)
        .map_err(|error| describe(&error, "private key"))
}

/// A file with any text.
pub(crate) fn text(path: &Path) -> Result<(), String> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => Err("the file is empty".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(unreadable(&error)),
    }
}

fn describe(error: &Error, what: &str) -> String {
    match error {
        Error::Io(error) => unreadable(error),
        Error::NoItemsFound => format!("the file contains no {what} in PEM format"),
        // The error itself may quote a line of the file.
        _ => format!("the file is not valid PEM with a {what}"),
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("the file can't be read: {error}")
}
