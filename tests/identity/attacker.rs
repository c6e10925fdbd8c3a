//! An attacker with network access: what it holds, and the connections that it makes with that.

use std::{net::SocketAddr, sync::Arc};

use gaocache::internal::wire::peer_client::PeerClient;
use gaocache_core::membership::KeyFingerprint;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tonic::transport::Channel;

use super::common::tls::{channel, connect};

/// What the attacker holds.
pub(super) struct Held {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Held {
    pub(super) fn new() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["somebody".to_owned()]).unwrap();
        Self {
            certificate: params.self_signed(&pair).unwrap().der().clone(),
            key: PrivateKeyDer::Pkcs8(pair.serialize_der().into()),
        }
    }

    pub(super) fn fingerprint(&self) -> KeyFingerprint {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, &self.certificate);
        KeyFingerprint(digest.as_ref().try_into().unwrap())
    }

    pub(super) fn server(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(NoVerification))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap()
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The methods on signatures of both verifiers: any is accepted.
macro_rules! any_signature {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            let algorithms = provider().signature_verification_algorithms;
            algorithms.supported_schemes()
        }
    };
}

/// Verifies nothing: accepts any certificate, and any signature.
#[derive(Debug)]
pub(super) struct NoVerification;

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    any_signature!();
}

impl rustls::server::danger::ClientCertVerifier for NoVerification {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<rustls::server::danger::ClientCertVerified, rustls::Error> {
        Ok(rustls::server::danger::ClientCertVerified::assertion())
    }
    any_signature!();
}

/// Shows a certificate whether or not the key fits it.
#[derive(Debug)]
pub(super) struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// A client that shows this certificate, and signs with this key; `None`: it shows none.
pub(super) fn showing(certificate: Option<(&CertificateDer<'static>, &Held)>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = match certificate {
        Some((certificate, held)) => {
            let signs = provider()
                .key_provider
                .load_private_key(held.key.clone_key());
            let shown = CertifiedKey::new(vec![certificate.clone()], signs.unwrap());
            let shows = Arc::new(Shows(Arc::new(shown)));
            let roots = builder.with_root_certificates(RootCertStore::empty());
            roots.with_client_cert_resolver(shows)
        }
        None => {
            let roots = builder.with_root_certificates(RootCertStore::empty());
            roots.with_no_client_auth()
        }
    };
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(NoVerification));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A connection whose first call makes it.
pub(super) fn caller(address: SocketAddr, config: ClientConfig) -> PeerClient<Channel> {
    PeerClient::new(channel(address, "node", config))
}

pub(super) fn with_key(address: SocketAddr, held: &Held) -> PeerClient<Channel> {
    caller(address, showing(Some((&held.certificate, held))))
}

/// The certificate that a node shows.
pub(super) async fn shown_by(address: SocketAddr) -> CertificateDer<'static> {
    let held = Held::new();
    let config = showing(Some((&held.certificate, &held)));
    let stream = connect(address, "node", config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}
