//! What a section of the settings names: a certificate with its key, and authorities.

use std::sync::Arc;

use rustls::{RootCertStore, crypto::CryptoProvider, sign::SingleCertAndKey};

use super::pem::{self, Life};
use gaocache_core::error::{Error, ErrorKind, Result};

/// The section's name, such as `grpc.tls`.
#[derive(Clone, Copy)]
pub(super) struct Section(pub(super) &'static str);

impl Section {
    /// The certificate in the file `cert`, with its key, and its validity.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if it can't be used now.
    pub(super) fn identity(
        self,
        cert: &[u8],
        key: &[u8],
        provider: &Arc<CryptoProvider>,
    ) -> Result<(Arc<SingleCertAndKey>, Life)> {
        let wrong = |setting| move |what| self.wrong(setting, what);
        let chain = pem::certificates(cert).map_err(wrong("cert"))?;
        let life = pem::of_server(&chain[0]).map_err(wrong("cert"))?;
        let key = pem::private_key(key).map_err(wrong("key"))?;
        let certified = pem::together(chain, key, provider).map_err(wrong("key"))?;
        Ok((Arc::new(SingleCertAndKey::from(certified)), life))
    }

    /// The authorities in the file that this setting names.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if they can't be used.
    pub(super) fn authorities(self, setting: &str, file: &[u8]) -> Result<Arc<RootCertStore>> {
        let roots = pem::authorities(file).map_err(|what| self.wrong(setting, what))?;
        Ok(Arc::new(roots))
    }

    fn wrong(self, setting: &str, what: String) -> Error {
        let what = format!("{}.{setting}: {what}", self.0);
        Error::new(ErrorKind::Configuration, what)
    }
}
