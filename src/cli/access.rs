//! What a command proves to a node: a token, or nothing at the socket of a node on this machine.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{address::Listener, context::Context, failure::Failure};
use crate::wire::bearer::Bearer;

/// Where the image and the chart have the socket of a node.
const USUAL_SOCKET: &str = "/run/gaocache/admin.sock";
/// The largest file with a token, in bytes.
const MAX_TOKEN_FILE_BYTES: u64 = 64 << 10;

/// What a command proves to a node.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for access")]
pub(super) struct Access {
    #[command(flatten)]
    token: Token,
    #[command(flatten)]
    local: Socket,
}

/// A proof that is sent over the network.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for access")]
pub(super) struct Token {
    /// Bearer token; others can see it in the list of processes, unlike the variable or a file
    ///
    /// [default: GAOCACHE_TOKEN, else that of the context]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File with the bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The socket of a node on this machine.
#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The admin socket of a node on this machine, through which everything is allowed
    ///
    /// [default: GAOCACHE_SOCKET, else /run/gaocache/admin.sock where it exists and no node, etcd
    /// or context is named]
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

impl Socket {
    /// The socket, if one is meant although no flag names it. Who chose a context does not mean the
    /// node that happens to be on this machine.
    pub(super) fn socket(&self, context: &Context) -> Option<PathBuf> {
        let variable = std::env::var_os("GAOCACHE_SOCKET").filter(|it| !it.is_empty());
        let usual = || Some(PathBuf::from(USUAL_SOCKET)).filter(|it| it.exists());
        let is_usual = !context.is_chosen();
        variable
            .map(PathBuf::from)
            .or_else(|| is_usual.then(usual).flatten())
    }

    /// The socket that a flag names.
    pub(super) fn named(&self) -> Option<&PathBuf> {
        self.socket.as_ref()
    }
}

impl Token {
    /// The token to send. That of a context is for its nodes alone: `named` says that the node was
    /// named by a flag.
    pub(super) fn bearer(&self, context: &Context, named: bool) -> Result<Bearer, Failure> {
        let variable = std::env::var("GAOCACHE_TOKEN").ok();
        let variable = variable.filter(|it| !it.is_empty());
        let file = |path: &Path| read_token(path).map(Some);
        let token = match (&self.token, &self.token_file, variable) {
            (Some(token), ..) => Some(token.clone()),
            (None, Some(path), _) => file(path)?,
            (None, None, Some(token)) => Some(token),
            (None, None, None) if named => None,
            (None, None, None) => match (&context.token, &context.token_file) {
                (Some(token), _) => Some(token.clone()),
                (None, Some(path)) => file(path)?,
                (None, None) => None,
            },
        };
        let Some(token) = token else {
            return Ok(Bearer::default());
        };
        Bearer::new(&token).map_err(|error| Failure::Usage(error.to_string()))
    }
}

impl Access {
    /// As [`Token::bearer`].
    pub(super) fn bearer(&self, context: &Context, named: bool) -> Result<Bearer, Failure> {
        self.token.bearer(context, named)
    }

    /// As [`Socket::socket`].
    pub(super) fn socket(&self, context: &Context) -> Option<PathBuf> {
        self.local.socket(context)
    }

    /// The socket that a flag names.
    pub(super) fn named_socket(&self) -> Option<&PathBuf> {
        self.local.named()
    }
}

/// What a refusal says, and how a command proves more.
pub(super) fn with_hint(message: &str, kind: Option<&str>) -> String {
    match kind {
        Some("unauthenticated") => format!(
            "{message}; pass --token-file or GAOCACHE_TOKEN, or use the admin socket of a node on \
             its own machine (--socket)"
        ),
        Some("permission_denied") => format!(
            "{message}; ask an operator of the nodes to grant it (auth.token_file, auth.grants), or use \
             the admin socket of a node on its own machine (--socket)"
        ),
        _ => message.to_owned(),
    }
}

/// The question where nobody answers at a socket.
pub(super) const IS_IT_A_SOCKET: &str = "is this the admin.socket of a node that runs?";

/// Why no connection could be made, and what to do about it where that is known. `is_assumed`:
/// nobody named the address.
pub(super) fn with_advice(causes: String, listener: Listener, is_assumed: bool) -> String {
    if causes.contains("UnknownIssuer") {
        return format!("{causes}; name the CA of the node's certificate with --ca");
    }
    // Somebody is there who speaks something else.
    let other = ["NoApplicationProtocol", "deadline has elapsed"];
    if other.iter().any(|it| causes.contains(it)) {
        return format!("{causes}; {}", listener.doubt());
    }
    if is_assumed && causes.contains("Connection refused") {
        return format!("{causes}; {}", listener.others());
    }
    causes
}

pub(super) fn read_token(path: &Path) -> Result<String, Failure> {
    let wrong = |why: String| Failure::Usage(format!("token file {}: {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if length.len() > MAX_TOKEN_FILE_BYTES {
        return Err(wrong("it is too large to be a token".into()));
    }
    let token = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let token = token.trim();
    if token.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    Ok(token.to_owned())
}
