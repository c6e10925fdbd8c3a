//! Connections between nodes, in each of the ways in which nodes may know each other.

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    bounded::Bounded,
    files::{Certificates, PeerFiles},
    fingerprint,
    followed::Observer,
    keys::{OwnKey, any_name},
    paced::Paced,
    stream::Stream,
    trust::Trust,
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
    /// By certificates of authorities that they trust.
    Files(Arc<Certificates>),
}

/// What a certificate proves, as the other end showed it.
type Identify<'a> = &'a (dyn Fn(&[u8]) -> io::Result<Identity> + Send + Sync);

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Plaintext => "plaintext",
            Kind::Keys(_) => "registered keys",
            Kind::Files(_) => "certificates",
        })
    }
}

impl PeerTls {
    /// No proof is required.
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

    /// Each node has a certificate in files. They are followed on the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the files can't be used.
    pub fn files(files: PeerFiles, observer: Observer) -> Result<Self> {
        let certificates = Certificates::start(files, observer)?;
        Ok(Self(Kind::Files(Arc::new(certificates))))
    }

    /// The key that this node is to register; `None`: the others don't ask for any.
    pub fn fingerprint(&self) -> Option<KeyFingerprint> {
        match &self.0 {
            Kind::Plaintext | Kind::Files(_) => None,
            Kind::Keys(own) => Some(own.fingerprint),
        }
    }

    /// Takes a connection of another node. Returns what it has proven, and whether that still
    /// counts as far as files tell.
    ///
    /// # Errors
    /// What ended the handshake.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Identity, Trust)> {
        let files = match &self.0 {
            Kind::Files(files) => Some((files, files.changes())),
            Kind::Plaintext | Kind::Keys(_) => None,
        };
        let (server, identify): (_, Identify<'_>) = match &self.0 {
            Kind::Plaintext => {
                return Ok((Stream::Plain(stream), Identity::Unproven, Trust::UNPROVEN));
            }
            Kind::Keys(own) => (own.server.clone(), &|certificate| {
                Ok(Identity::Key(fingerprint(certificate)))
            }),
            Kind::Files(files) => (files.server(), &|certificate| {
                let ids = files.members(certificate).map_err(io::Error::other)?;
                Ok(Identity::Certificate { ids })
            }),
        };
        let acceptor = TlsAcceptor::from(server);
        let mut stream = Paced::new(acceptor.accept(Bounded::handshake(stream))).await?;
        let (socket, tls) = stream.get_mut();
        socket.open();
        let chain = tls.peer_certificates().unwrap_or_default();
        let certificate = chain
            .first()
            .ok_or_else(|| io::Error::other("no certificate, though one is required"))?;
        let identity = identify(certificate)?;
        let trust = files.map_or(Trust::UNPROVEN, |(files, changes)| {
            files.trust(chain, changes)
        });
        Ok((Stream::Tls(Box::new(stream.into())), identity, trust))
    }

    /// The way to a member.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnreachable`] if it has not registered what this node wants to see.
    pub fn way(&self, member: &Member) -> Result<Way> {
        let tls = match &self.0 {
            Kind::Plaintext => Shown::Nothing,
            Kind::Keys(own) => {
                let key = member.contact.key.ok_or_else(|| {
                    let what = format!(
                        "{} has registered no key; all nodes have to authenticate each other in \
                         the same way: by keys, by certificates, or not at all",
                        member.id
                    );
                    Error::new(ErrorKind::PeerUnreachable, what)
                })?;
                Shown::Key(Arc::new(own.client(key)?))
            }
            Kind::Files(files) => Shown::Certificate(files.clone(), member.id.clone()),
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
    tls: Shown,
}

/// What the two ends show each other.
#[derive(Clone)]
enum Shown {
    Nothing,
    /// Their keys.
    Key(Arc<ClientConfig>),
    /// Certificates, as the files have them at the moment of connecting; the member has that id.
    Certificate(Arc<Certificates>, Arc<str>),
}

impl Way {
    /// A new connection. Something has to accept it within `reached_within`, and then the member
    /// has to prove who it is within `proven_within`.
    ///
    /// # Errors
    /// It can't be made in time, or the other end is not the member.
    pub async fn connect(
        self,
        reached_within: Duration,
        proven_within: Duration,
    ) -> io::Result<Stream> {
        let stream = within(reached_within, TcpStream::connect(&*self.address)).await?;
        stream.set_nodelay(true)?;
        let tls = match self.tls {
            Shown::Nothing => return Ok(Stream::Plain(stream)),
            Shown::Key(tls) => tls,
            Shown::Certificate(files, id) => Arc::new(files.client(&id).map_err(io::Error::other)?),
        };
        let connector = TlsConnector::from(tls);
        let connected = connector.connect(any_name(), Bounded::handshake(stream));
        let mut stream = within(proven_within, connected).await?;
        stream.get_mut().0.open();
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

async fn within<T>(bound: Duration, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| Err(io::ErrorKind::TimedOut.into());
    timeout(bound, done).await.unwrap_or_else(late)
}
