//! The admin listener of a node, as commands reach it.

use std::{fmt, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::Args;
use reqwest::{ClientBuilder, Method};

use super::{
    access::{Access, IS_IT_A_SOCKET, with_advice, with_hint},
    address::{CONNECT_TIMEOUT, Listener, NodeAddress, Scheme, admin_address, admin_of, look_up},
    context::Context,
    failure::Failure,
    tls::{Tls, TlsArgs},
};
use crate::{
    http_client::{self, Proxies},
    status::{KIND_HEADER, http::NO_SUCH_PATH},
    tls::{ClientTls, SPEAKS_TLS, to_nodes::meaning},
    wire::bearer::Bearer,
};
use gaocache_core::{
    error::{ErrorKind, with_causes},
    membership::Member,
};

/// Time limit for an answer. Nodes give up sooner on what they wait for: at most 30 s, for a change
/// of the ring or for a reload.
const LONGEST_ANSWER: Duration = Duration::from_secs(40);

/// Which node's admin listener a command asks, and how.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// The admin address of the node: HOST:PORT, or with https:// if it speaks TLS
    ///
    /// [default: GAOCACHE_ADMIN, else that of the context, else the admin socket of a node on this
    /// machine, else 127.0.0.1:9090]
    #[arg(long, value_name = "HOST:PORT", value_parser = admin_address, conflicts_with = "socket")]
    admin: Option<NodeAddress>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    tls: TlsArgs,
}

impl AdminArgs {
    /// Whether a flag says which node.
    pub(super) fn is_named(&self) -> bool {
        self.admin.is_some() || self.access.named_socket().is_some()
    }

    /// What is proved to nodes that are found in etcd; `named` says that a flag names it.
    pub(super) fn proof(&self, context: &Context, named: bool) -> Result<Proof, Failure> {
        Ok(Proof {
            bearer: self.access.bearer(context, named)?,
            tls: self.tls.files()?,
        })
    }

    /// Where the paths of the admin listener are: at the node that a flag names, else at a socket,
    /// else where the context says, else on this machine.
    pub(super) async fn place(&self) -> Result<Admin, Failure> {
        let Self { admin, access, tls } = self;
        if let Some(socket) = access.named_socket() {
            return Ok(Admin::at_socket(socket.clone()));
        }
        let context = Context::in_force()?;
        let bearer = access.bearer(&context, admin.is_some())?;
        let place = match (admin, context.node(Listener::Admin)?) {
            (Some(place), _) => place.clone(),
            (None, Some(place)) => place,
            (None, None) => match access.socket(&context) {
                Some(socket) => return Ok(Admin::at_socket(socket)),
                None => context.usual(Listener::Admin)?,
            },
        };
        look_up(&place).await?;
        Ok(Admin {
            way: Way::Network(place, tls.files()?),
            bearer,
        })
    }
}

/// What is proved to several nodes.
pub(super) struct Proof {
    bearer: Bearer,
    tls: Tls,
}

/// Why an admin listener brought nothing.
#[derive(Debug)]
pub(super) struct NoAnswer {
    /// Of the error that a node answered, if one did.
    kind: Option<ErrorKind>,
    what: String,
}

impl From<String> for NoAnswer {
    fn from(what: String) -> Self {
        Self { kind: None, what }
    }
}

impl NoAnswer {
    /// Whether a node said so.
    pub(super) fn is_answer(&self) -> bool {
        self.kind.is_some()
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// The paths of an admin listener.
pub(super) struct Admin {
    way: Way,
    bearer: Bearer,
}

enum Way {
    Network(NodeAddress, Tls),
    Socket(PathBuf),
}

impl Admin {
    /// There, without a proof.
    pub(super) fn at(place: &NodeAddress, tls: &Tls) -> Self {
        Self {
            way: Way::Network(place.clone(), tls.clone()),
            bearer: Bearer::default(),
        }
    }

    /// Of a member, as it registered it.
    pub(super) fn of(member: &Member, proof: &Proof) -> Result<Self, String> {
        Ok(Self {
            way: Way::Network(admin_of(member)?, proof.tls.clone()),
            bearer: proof.bearer.clone(),
        })
    }

    /// At the address that another node names, with the same proof. The address says whether it is
    /// one of TLS.
    pub(super) fn other(&self, address: &str) -> Result<Self, NoAnswer> {
        let mut place = admin_address(address)?;
        place.scheme.get_or_insert(Scheme::Http);
        let tls = match &self.way {
            Way::Network(_, tls) => tls.clone(),
            Way::Socket(_) => Tls::default(),
        };
        Ok(Self {
            way: Way::Network(place, tls),
            bearer: self.bearer.clone(),
        })
    }

    /// At the socket of a node on this machine.
    pub(super) fn at_socket(socket: PathBuf) -> Self {
        Self {
            way: Way::Socket(socket),
            bearer: Bearer::default(),
        }
    }

    /// For errors.
    pub(super) fn name(&self) -> String {
        match &self.way {
            Way::Network(place, _) => place.to_string(),
            Way::Socket(path) => path.display().to_string(),
        }
    }

    /// What it answers, if that is a success.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, NoAnswer> {
        self.ask(Method::GET, path).await
    }

    /// The same, for what changes something.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Bytes, NoAnswer> {
        let doubt = Listener::Admin.doubt();
        let (client, url) = self.client(path).await?;
        let mut request = client.request(method, url);
        if let Some(token) = self.bearer.header() {
            request = request.header(reqwest::header::AUTHORIZATION, token);
        }
        let response = request.send().await.map_err(|error| {
            if let Some(meaning) = meaning(&error) {
                return NoAnswer::from(meaning.to_owned());
            }
            let refused = error.is_connect();
            let is_assumed = matches!(&self.way, Way::Network(place, _) if place.is_assumed);
            let causes = with_causes("no answer".into(), &error);
            let causes = with_advice(causes, Listener::Admin, is_assumed);
            NoAnswer::from(if let (Way::Socket(_), true) = (&self.way, refused) {
                format!("{causes}; {IS_IT_A_SOCKET}")
            } else if refused {
                causes
            } else {
                format!("{causes}; {doubt}")
            })
        })?;
        let status = response.status();
        if status.is_success() {
            let body = response.bytes().await;
            let broke = |error| with_causes("the answer was cut off".into(), &error);
            return body.map_err(|error| broke(error).into());
        }
        // The node's own words, if it is one.
        let ours = response.headers().contains_key(KIND_HEADER);
        let body = response.bytes().await.unwrap_or_default();
        if body.trim_ascii() == SPEAKS_TLS.as_bytes() {
            return Err(SPEAKS_TLS.to_owned().into());
        }
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let kind = body["error"].as_str();
        Err(match body["message"].as_str().filter(|_| ours) {
            // The HTTP listener of a node names the kinds of its errors, too.
            Some(message) if body["reason"] == NO_SUCH_PATH => format!("{message}; {doubt}").into(),
            Some(message) => NoAnswer {
                kind: kind.and_then(ErrorKind::from_name),
                what: with_hint(message, kind),
            },
            None => format!("it answered {status}; {doubt}").into(),
        })
    }

    /// The failure of a command that got no answer here.
    pub(super) fn failed(&self, why: impl Into<NoAnswer>) -> Failure {
        let NoAnswer { kind, what } = why.into();
        let what = format!("{}: {what}", self.name());
        match kind {
            Some(kind) => Failure::Answered(kind.name(), what),
            None => Failure::Failed(what),
        }
    }

    /// A client for it, and the URL of `path`.
    async fn client(&self, path: &str) -> Result<(reqwest::Client, String), String> {
        let builder = http_client::builder(Proxies::None).map_err(|error| error.to_string())?;
        let (builder, host) = match &self.way {
            Way::Network(place, tls) => match tls.at(place) {
                Some(tls) => over_tls(builder, place, &tls).await?,
                None => (builder, format!("http://{}", place.address)),
            },
            Way::Socket(path) => {
                let builder = builder.unix_socket(path.as_path());
                (builder, "http://localhost".into())
            }
        };
        let builder = builder
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(LONGEST_ANSWER);
        let client = http_client::build(builder);
        let client = client.map_err(|error| error.to_string())?;
        Ok((client, format!("{host}{path}")))
    }
}

/// A client that speaks TLS with the listener there, and the beginning of its URLs.
async fn over_tls(
    builder: ClientBuilder,
    place: &NodeAddress,
    tls: &ClientTls,
) -> Result<(ClientBuilder, String), String> {
    let config = tls.config().map_err(|error| error.to_string())?;
    let builder = builder.tls_backend_preconfigured(config);
    let Some(name) = tls.server_name() else {
        return Ok((builder, format!("https://{}", place.address)));
    };
    let found = look_up(place).await;
    let found = found.map_err(|_| "the host can't be found".to_owned())?;
    let port = found.first().map_or(0, std::net::SocketAddr::port);
    let builder = builder.resolve_to_addrs(name, &found);
    Ok((builder, format!("https://{name}:{port}")))
}
