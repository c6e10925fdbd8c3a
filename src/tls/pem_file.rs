//! Files with a certificate, its key, or authorities, which belong to a listener or an origin.
//!
//! Errors name the file and what it is for, but no setting: a program that embeds a node has none.

use std::{path::PathBuf, sync::Arc};

use rustls::{RootCertStore, crypto::CryptoProvider, sign::SingleCertAndKey};

use super::pem::{self, Life};
use gaocache_core::error::{Error, ErrorKind, Result};

/// A file of a listener or an origin.
pub(super) struct PemFile {
    /// Whose it is, such as `the gRPC listener`.
    whose: String,
    has: Has,
    path: PathBuf,
}

/// What a file has.
#[derive(Clone, Copy)]
pub(super) enum Has {
    Certificate,
    Key,
    Authorities,
}

/// A file as it was read.
pub(super) struct Content {
    file: Arc<PemFile>,
    pub(super) text: Vec<u8>,
}

impl PemFile {
    pub(super) fn new(whose: String, has: Has, path: PathBuf) -> Arc<Self> {
        Arc::new(Self { whose, has, path })
    }

    /// # Errors
    /// [`ErrorKind::Configuration`] if it can't be read.
    pub(super) fn read(self: &Arc<Self>) -> Result<Content> {
        let text = std::fs::read(&self.path);
        let text = text.map_err(|error| self.wrong(&error.to_string()).with_source(error))?;
        Ok(Content {
            file: self.clone(),
            text,
        })
    }

    fn wrong(&self, what: &str) -> Error {
        let (has, path) = (self.has.name(), self.path.display());
        let what = format!("{has} of {}, {path}: {what}", self.whose);
        Error::new(ErrorKind::Configuration, what)
    }
}

impl Has {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "the certificate",
            Self::Key => "the private key",
            Self::Authorities => "the CA certificates",
        }
    }
}

impl Content {
    /// The authorities in it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if they can't be used.
    pub(super) fn authorities(&self) -> Result<Arc<RootCertStore>> {
        let roots = pem::authorities(&self.text).map_err(|what| self.file.wrong(&what))?;
        Ok(Arc::new(roots))
    }
}

/// A certificate, with its key, and its validity.
///
/// # Errors
/// [`ErrorKind::Configuration`] if it can't be used now.
pub(super) fn identity(
    cert: &Content,
    key: &Content,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<SingleCertAndKey>, Life)> {
    let of_cert = |what: String| cert.file.wrong(&what);
    let of_key = |what: String| key.file.wrong(&what);
    let chain = pem::certificates(&cert.text).map_err(of_cert)?;
    let life = pem::of_server(&chain[0]).map_err(of_cert)?;
    let own = pem::private_key(&key.text).map_err(of_key)?;
    let certified = pem::together(chain, own, provider).map_err(of_key)?;
    Ok((Arc::new(SingleCertAndKey::from(certified)), life))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_whose_it_is_and_no_setting() {
        let file = |has, path: &str| PemFile::new("the gRPC listener".into(), has, path.into());
        let missing = file(Has::Key, "/no/such.key").read().err();
        let missing = missing.expect("there is none");
        assert_eq!(missing.kind(), ErrorKind::Configuration);
        let (told, rest) = missing.message().split_at(51);
        assert_eq!(told, "the private key of the gRPC listener, /no/such.key:");
        assert!(rest.contains("No such file"), "{rest}");
        let none = file(Has::Authorities, "Cargo.toml").read();
        let none = none.expect("there is one").authorities().err();
        assert_eq!(
            none.expect("no certificate").message(),
            "the CA certificates of the gRPC listener, Cargo.toml: the file contains no \
             certificate in PEM format"
        );
    }
}
