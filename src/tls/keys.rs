//! Keys instead of authorities: each node makes one when it starts, and the others know it by the
//! fingerprint that is registered along with its address.
//!
//! The key exists only in this process' memory. It is as trustworthy as those that can write to the
//! registry.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, DistinguishedName, Error as TlsError, ServerConfig,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{
    client_config, failed, fingerprint, provider, server_config, signatures::signatures_of_tls13,
};
use gaocache_core::{error::Result, membership::KeyFingerprint};

/// Certificates need a name; it is never checked.
const NAME: &str = "gaocache";

/// The key of this node, and its self-signed certificate.
pub(super) struct OwnKey {
    shown: Arc<SingleCertAndKey>,
    provider: Arc<CryptoProvider>,
    pub(super) fingerprint: KeyFingerprint,
    pub(super) server: Arc<ServerConfig>,
}

impl OwnKey {
    /// A new one.
    pub(super) fn generate() -> Result<Self> {
        let pair = KeyPair::generate().map_err(failed)?;
        let params = CertificateParams::new(vec![NAME.to_owned()]).map_err(failed)?;
        let certificate = params.self_signed(&pair).map_err(failed)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        let provider = provider();
        let verifier = Arc::new(AnyKey {
            provider: provider.clone(),
        });
        let fingerprint = fingerprint(&certificate);
        let certified = CertifiedKey::from_der(vec![certificate], key, &provider);
        let shown = Arc::new(SingleCertAndKey::from(certified.map_err(failed)?));
        Ok(Self {
            server: Arc::new(server_config(&provider, verifier, shown.clone())?),
            fingerprint,
            shown,
            provider,
        })
    }

    /// For connections to the holder of the key `wanted`.
    pub(super) fn client(&self, wanted: KeyFingerprint) -> Result<ClientConfig> {
        let verifier = Arc::new(ExactKey {
            wanted,
            provider: self.provider.clone(),
        });
        client_config(&self.provider, verifier, self.shown.clone())
    }
}

/// The name that a handshake is begun with. It is neither sent nor compared.
pub(super) fn any_name() -> ServerName<'static> {
    ServerName::from(std::net::IpAddr::from([0; 4]))
}

/// Accepts any key whose holder proves that it has it. The member behind the key is looked up with
/// each call: at the time of the handshake, it may not be known yet.
#[derive(Debug)]
struct AnyKey {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        Ok(ClientCertVerified::assertion())
    }

    signatures_of_tls13!();
}

/// Accepts the holder of one key only.
#[derive(Debug)]
struct ExactKey {
    wanted: KeyFingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExactKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let shown = fingerprint(certificate);
        if shown == self.wanted {
            return Ok(ServerCertVerified::assertion());
        }
        let what = format!(
            "it holds the key {shown}, but {} is registered",
            self.wanted
        );
        Err(TlsError::General(what))
    }

    signatures_of_tls13!();
}
