//! Connections between nodes, in each of the ways in which nodes may know each other.

use std::{fmt, io, sync::Arc};

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    fingerprint,
    keys::{OwnKey, any_name},
    stream::Stream,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    identity::Identity,
    membership::{KeyFingerprint, Member},
};

/// How nodes know each other. Cheap to clone.
#[derive(Clone)]
pub struct PeerTls(Kind);

#[derive(Clone)]
enum Kind {
    /// They don't; connections are plaintext.
    Plaintext,
    /// By the keys that they registered.
    Keys(Arc<OwnKey>),
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Plaintext => "plaintext",
            Kind::Keys(_) => "registered keys",
        })
    }
}

impl PeerTls {
    /// Nobody proves anything.
    pub fn plaintext() -> Self {
        Self(Kind::Plaintext)
    }

    /// Each node holds a key that it registers.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if no key can be made.
    pub fn keys() -> Result<Self> {
        Ok(Self(Kind::Keys(Arc::new(OwnKey::generate()?))))
    }

    /// The key that this node is to register; `None`: the others don't ask for any.
    pub fn fingerprint(&self) -> Option<KeyFingerprint> {
        match &self.0 {
            Kind::Plaintext => None,
            Kind::Keys(own) => Some(own.fingerprint),
        }
    }

    /// Takes a connection of another node. Returns what it has proven.
    ///
    /// # Errors
    /// What ended the handshake.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Identity)> {
        match &self.0 {
            Kind::Plaintext => Ok((Stream::Plain(stream), Identity::Unproven)),
            Kind::Keys(own) => {
                let stream = TlsAcceptor::from(own.server.clone()).accept(stream).await?;
                let shown = stream.get_ref().1.peer_certificates();
                let certificate = shown.and_then(|chain| chain.first());
                let certificate = certificate
                    .ok_or_else(|| io::Error::other("no certificate, though one is required"))?;
                let identity = Identity::Key(fingerprint(certificate));
                Ok((Stream::Tls(Box::new(stream.into())), identity))
            }
        }
    }

    /// The way to a member.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnreachable`] if it has not registered what this node wants to see.
    pub fn way(&self, member: &Member) -> Result<Way> {
        let tls = match &self.0 {
            Kind::Plaintext => None,
            Kind::Keys(own) => {
                let key = member.contact.key.ok_or_else(|| {
                    let what = format!(
                        "{} has registered no key; all nodes need the same peer.insecure and \
                         peer.tls",
                        member.id
                    );
                    Error::new(ErrorKind::PeerUnreachable, what)
                })?;
                Some(Arc::new(own.client(key)?))
            }
        };
        Ok(Way {
            address: member.contact.address.clone(),
            tls,
        })
    }
}

/// How a member is connected to. Cheap to clone.
#[derive(Clone)]
pub struct Way {
    address: Arc<str>,
    tls: Option<Arc<ClientConfig>>,
}

impl Way {
    /// A new connection.
    ///
    /// # Errors
    /// It can't be made, or the other end is not the member.
    pub async fn connect(self) -> io::Result<Stream> {
        let stream = TcpStream::connect(&*self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let stream = TlsConnector::from(tls).connect(any_name(), stream).await?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}
