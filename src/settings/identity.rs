//! With which keys and certificates the listeners and their callers identify themselves.

use std::path::PathBuf;

/// How nodes know each other.
///
/// ```
/// use gaocache::{PeerIdentity, Settings};
///
/// let mut settings = Settings::loopback("node-0");
/// // Certificates of one's own CA, each for the name of a node.
/// settings.peer_identity = PeerIdentity::Certificates {
///     ca: "/tls/ca.crt".into(),
///     cert: "/tls/tls.crt".into(),
///     key: "/tls/tls.key".into(),
///     allowed: vec!["{id}.cache.example".into()],
/// };
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum PeerIdentity {
    /// Each node makes a key when it starts and registers it along with its address. Nodes connect
    /// by mutual TLS, and accept only registered keys. So anyone who can write to the registry can
    /// become a node. Not with [`Registry::fixed`](crate::Registry::fixed), which registers
    /// nothing.
    #[default]
    RegisteredKeys,
    /// By certificates of authorities that all nodes trust. The files are followed: what changes in
    /// them counts from the next connection on.
    Certificates {
        /// File with the authorities, in PEM format. Two at once while one replaces the other.
        ca: PathBuf,
        /// File with this node's certificate, valid for server and client authentication.
        cert: PathBuf,
        /// File with its key.
        key: PathBuf,
        /// DNS names or URIs of certificates that make their holder a peer. `{id}` stands for the
        /// id of the node that a certificate belongs to, `*` for any text in one label or segment,
        /// and `*` alone for any certificate of the authorities.
        allowed: Vec<String>,
    },
    /// Not at all: connections are plaintext, and anyone who can reach a node's listener for peers
    /// is believed.
    Plaintext,
}

/// TLS 1.3 of a listener for clients. The files are followed: what changes in them counts from the
/// next connection on.
///
/// ```
/// use gaocache::{ClientCertificates, ListenerTls, Settings};
///
/// let mut settings = Settings::loopback("node-0");
/// let mut tls = ListenerTls::new("/tls/tls.crt", "/tls/tls.key");
/// tls.clients = ClientCertificates::Required { ca: "/tls/ca.crt".into() };
/// settings.grpc_tls = Some(tls);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ListenerTls {
    /// File with the listener's certificate and those between it and its CA, in PEM format.
    pub cert: PathBuf,
    /// File with its key.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
}

impl ListenerTls {
    /// With this certificate and its key; clients are asked for none.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            cert: cert.into(),
            key: key.into(),
            clients: ClientCertificates::NotAsked,
        }
    }
}

/// Whether clients show certificates.
///
/// ```
/// use gaocache::{ClientCertificates, ListenerTls};
///
/// let mut tls = ListenerTls::new("/tls/tls.crt", "/tls/tls.key");
/// assert_eq!(tls.clients, ClientCertificates::NotAsked);
/// tls.clients = ClientCertificates::Optional { ca: "/tls/ca.crt".into() };
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// They are not asked for any.
    #[default]
    NotAsked,
    /// A client may show one. A wrong one is refused.
    Optional {
        /// File with the authorities, in PEM format. Two at once while one replaces the other.
        ca: PathBuf,
    },
    /// A client without a certificate is refused as well.
    Required {
        /// File with the authorities, in PEM format. Two at once while one replaces the other.
        ca: PathBuf,
    },
}
