//! TLS 1.3 of the listeners for clients and operators: what a listener shows of itself, and which
//! certificates it wants to see.

use std::{fmt, io, path::PathBuf, sync::Arc};

use rustls::{ServerConfig, crypto::CryptoProvider, server::WebPkiClientVerifier, version::TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{
    bounded::Bounded,
    client_names::ClientNames,
    failed,
    followed::{Followed, Observer},
    names::alternative_names,
    pem::{self, Life},
    plaintext::{self, Begins},
    provider, set_up_server,
    stream::Stream,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// A listener's files.
#[derive(Clone, Debug)]
pub struct ListenerFiles {
    /// The section of the settings, such as `grpc.tls`.
    pub section: &'static str,
    /// The certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients, and whether each client has to show a certificate; `None`: none
    /// is asked for.
    pub clients: Option<(PathBuf, Asked)>,
}

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It may; a wrong one is refused.
    Optional,
    /// It has to.
    Required,
}

/// What the connections of one listener begin with. Cheap to clone.
#[derive(Clone)]
pub struct ListenerTls(Arc<Followed<ServerConfig>>);

/// Why a connection does not come about.
#[derive(Debug)]
pub enum Refused {
    /// The client hung up.
    Gone,
    /// It speaks plaintext.
    Plaintext,
    /// It doesn't speak TLS 1.3, shows no certificate or a wrong one, or doesn't trust this node's.
    Handshake(io::Error),
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificates")
    }
}

impl ListenerTls {
    /// A listener for these protocols, in order of preference. The files are followed on the
    /// current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if the files can't be used.
    pub fn start(
        files: ListenerFiles,
        protocols: &'static [&'static [u8]],
        observer: Observer,
    ) -> Result<Self> {
        let ListenerFiles {
            section,
            cert,
            key,
            clients,
        } = files;
        let (client_ca, asked) = clients.unzip();
        let files = [cert, key].into_iter().chain(client_ca).collect();
        let provider = provider();
        let make = move |contents: &[Vec<u8>]| {
            let (mut server, life) = server(section, contents, asked, &provider)?;
            server.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Ok((server, life))
        };
        Followed::start(section, files, make, observer).map(Self)
    }

    /// Takes a connection. Returns the names that the client has proven, if it has shown a
    /// certificate.
    ///
    /// # Errors
    /// Why there is none. A client that speaks plaintext has been told so.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::result::Result<(Stream, Option<ClientNames>), Refused> {
        match plaintext::begins(&stream).await {
            Ok(Begins::WithTls) => {}
            Ok(Begins::Never) | Err(_) => return Err(Refused::Gone),
            Ok(otherwise) => {
                // Who doesn't wait for the answer doesn't need it.
                let _ = plaintext::tell(stream, otherwise).await;
                return Err(Refused::Plaintext);
            }
        }
        let acceptor = TlsAcceptor::from(self.0.now());
        let accepted = acceptor.accept(Bounded::handshake(stream)).await;
        let mut stream = accepted.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Refused::Gone,
            _ => Refused::Handshake(error),
        })?;
        let (socket, tls) = stream.get_mut();
        socket.open();
        let shown = tls.peer_certificates().and_then(|chain| chain.first());
        let names = shown.map(|it| alternative_names(it)).transpose();
        let names = names.map_err(|error| Refused::Handshake(io::Error::other(error)))?;
        let names = names.map(|names| ClientNames(names.into()));
        Ok((Stream::Tls(Box::new(stream.into())), names))
    }
}

/// What the files make: certificate, key and perhaps the authorities of clients.
fn server(
    section: &str,
    contents: &[Vec<u8>],
    asked: Option<Asked>,
    provider: &Arc<CryptoProvider>,
) -> Result<(ServerConfig, Life)> {
    let wrong = |name: &'static str| {
        move |what: String| {
            Error::new(
                ErrorKind::Configuration,
                format!("{section}.{name}: {what}"),
            )
        }
    };
    let [cert, key, rest @ ..] = contents else {
        return Err(Error::new(
            ErrorKind::Internal,
            "a certificate has two files",
        ));
    };
    let chain = pem::certificates(cert).map_err(wrong("cert"))?;
    let life = pem::of_server(&chain[0]).map_err(wrong("cert"))?;
    let key = pem::private_key(key).map_err(wrong("key"))?;
    let certified = pem::together(chain, key, provider).map_err(wrong("key"))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?;
    let builder = match rest.first().zip(asked) {
        None => builder.with_no_client_auth(),
        Some((ca, asked)) => {
            let roots = pem::authorities(ca).map_err(wrong("client_ca"))?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let verifier = match asked {
                Asked::Required => verifier,
                Asked::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(failed)?)
        }
    };
    let shown = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let mut server = builder.with_cert_resolver(shown);
    set_up_server(&mut server);
    Ok((server, life))
}
