//! TLS 1.3 of the listeners for clients and operators: which certificate a listener presents, and
//! which it requires.

use std::{fmt, io, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{
    bounded::Bounded,
    client_names::ClientNames,
    failed,
    followed::{Followed, Observer},
    names::alternative_names,
    paced::Paced,
    pem::Life,
    pem_file::{self, Content, Has, PemFile},
    plaintext::{self, Begins, Untold},
    provider, server_config,
    stream::Stream,
    trust::{Trust, verifies},
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// A listener's files.
#[derive(Clone, Debug)]
pub struct ListenerFiles {
    /// Whose they are, for errors and the log: such as `gRPC`.
    pub listener: &'static str,
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
    /// It may; an invalid one is refused.
    Optional,
    /// It has to.
    Required,
}

/// The TLS acceptor of one listener. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls(Arc<Followed<Made>>);

/// What the files make.
struct Made {
    server: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum Refused {
    /// The client hung up.
    Gone,
    /// It speaks plaintext, and is to be told so.
    Plaintext(Untold),
    /// It doesn't speak TLS 1.3, shows no certificate or an invalid one, or doesn't trust this
    /// node's.
    Handshake(io::Error),
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificates")
    }
}

impl ServerTls {
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
            listener,
            cert,
            key,
            clients,
        } = files;
        let (client_ca, asked) = clients.unzip();
        let files = [
            (Has::Certificate, Some(cert)),
            (Has::Key, Some(key)),
            (Has::Authorities, client_ca),
        ];
        let whose = || format!("the {listener} listener");
        let file = |(has, path): (Has, Option<_>)| Some(PemFile::new(whose(), has, path?));
        let files = files.into_iter().filter_map(file).collect();
        let provider = provider();
        let make = move |contents: &[Content]| made(contents, asked, protocols, &provider);
        Followed::start(listener, files, make, observer).map(Self)
    }

    /// Takes a connection. Returns the names that the client has proven, if it has shown a
    /// certificate, and whether it still counts.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::result::Result<(Stream, Option<ClientNames>, Trust), Refused> {
        match plaintext::begins(&stream).await {
            Ok(Begins::WithTls) => {}
            Ok(Begins::Never) | Err(_) => return Err(Refused::Gone),
            Ok(otherwise) => return Err(Refused::Plaintext(Untold::new(stream, otherwise))),
        }
        let changes = self.0.changes();
        let acceptor = TlsAcceptor::from(self.0.now().server.clone());
        let accepted = Paced::new(acceptor.accept(Bounded::handshake(stream))).await;
        let mut stream = accepted.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Refused::Gone,
            _ => Refused::Handshake(error),
        })?;
        let (socket, tls) = stream.get_mut();
        socket.open();
        let chain = tls.peer_certificates().unwrap_or_default();
        let files = self.0.clone();
        let trust = match chain {
            [] => Trust::UNPROVEN,
            chain => Trust::in_chain(chain, changes, move |chain| {
                verifies(&*files.now().verifier, chain)
            }),
        };
        let names = chain.first().map(|it| alternative_names(it)).transpose();
        let names = names.map_err(|error| Refused::Handshake(io::Error::other(error)))?;
        let names = names.map(|names| ClientNames(names.into()));
        Ok((Stream::Tls(Box::new(stream.into())), names, trust))
    }
}

/// What the files make: certificate, key and perhaps the authorities of clients.
fn made(
    contents: &[Content],
    asked: Option<Asked>,
    protocols: &[&[u8]],
    provider: &Arc<CryptoProvider>,
) -> Result<(Made, Life)> {
    let [cert, key, rest @ ..] = contents else {
        let what = "a certificate has two files";
        return Err(Error::new(ErrorKind::Internal, what));
    };
    let (shown, life) = pem_file::identity(cert, key, provider)?;
    let verifier = match rest.first().zip(asked) {
        None => WebPkiClientVerifier::no_client_auth(),
        Some((ca, asked)) => {
            let roots = ca.authorities()?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
            let verifier = match asked {
                Asked::Required => verifier,
                Asked::Optional => verifier.allow_unauthenticated(),
            };
            verifier.build().map_err(failed)?
        }
    };
    let mut server = server_config(provider, verifier.clone(), shown)?;
    server.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
    let server = Arc::new(server);
    Ok((Made { server, verifier }, life))
}
