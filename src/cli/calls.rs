//! `gaocache get`, `remove` and `purge`: one call to a node, or to the cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use http::Uri;
use serde_json::json;
use tonic::{Status, transport::Endpoint};

use super::{
    access::{Access, IS_IT_A_SOCKET, with_advice, with_hint},
    address::{CONNECT_TIMEOUT, Listener, NodeAddress, grpc_address, look_up, seconds},
    cluster::{Cluster, Etcd, Whom},
    context::Context,
    failure::Failure,
    output::{counted, print_json, print_line, print_value, tell, write_file},
    shown::{as_json, summary},
    tls::{Tls, TlsArgs},
};
use crate::{
    client::{Client, ClientOptions, answer_of, connection},
    status::{codes, grpc::from_status},
    tls::SPEAKS_TLS,
    wire::{
        self,
        bearer::{Bearer, BearingClient},
    },
};
use gaocache_core::error::{Error, ErrorKind, with_causes};

/// The target of a call: a node, or the cluster through etcd.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The gRPC address of any node: HOST:PORT, or with https:// if it speaks TLS
    ///
    /// [default: GAOCACHE_TARGET, else that of the context, else the admin socket of a node on this
    /// machine, else 127.0.0.1:7070]
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_parser = grpc_address,
        conflicts_with_all = ["etcd", "socket"]
    )]
    target: Option<NodeAddress>,
    /// Timeout of a call, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: f64,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// Name of the group
    group: String,
    /// The key
    key: String,
    /// Print the source of the value to standard error
    #[arg(long, short)]
    verbose: bool,
    /// Write the value to a file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the origin's headers before the value
    #[arg(long, short, conflicts_with = "json")]
    include: bool,
    /// Print JSON: the value, what the origin said of it, where it came from, its owner and its
    /// remaining TTL; non-UTF-8 values appear as value_base64
    #[arg(long, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// Name of the group
    group: String,
    /// The key
    key: String,
    /// Print JSON: what was removed
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// Name of the group
    group: String,
    /// Remove only the keys whose values carry this tag
    #[arg(long)]
    tag: Option<String>,
    /// Print JSON: the group and the number of removed entries, or the tag
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What calls over a socket are told to be for.
const LOCAL: &str = "http://localhost";

/// A node, or the cluster.
enum Callee {
    /// With its address.
    Node(Box<BearingClient>, String),
    Cluster(Client),
}

impl Target {
    async fn connect(&self) -> Result<Callee, Failure> {
        let timeout = crate::config::seconds(self.timeout);
        let named = self.target.as_ref();
        if let Some(socket) = self.access.named_socket() {
            return self.over(socket).await;
        }
        let context = Context::in_force()?;
        let whom = self.cluster.whom(named, &context, Listener::Grpc)?;
        let named = named.is_some() || self.cluster.is_named();
        let bearer = self.access.bearer(&context, named)?;
        let tls = self.tls.files()?;
        let place = match whom {
            Some(Whom::Cluster(etcd)) => return cluster(&etcd, &tls, timeout, bearer).await,
            Some(Whom::Node(place)) => place,
            None => match self.access.socket(&context) {
                Some(socket) => return self.over(&socket).await,
                None => context.usual(Listener::Grpc)?,
            },
        };
        look_up(&place).await?;
        let address = place.to_string();
        let client = connect(&place, &tls, &bearer, timeout).await;
        let client = client.map_err(|what| Failure::Failed(format!("{address}: {what}")))?;
        Ok(Callee::Node(Box::new(client), address))
    }

    /// A node of this machine.
    async fn over(&self, socket: &Path) -> Result<Callee, Failure> {
        let timeout = crate::config::seconds(self.timeout);
        let name = socket.display().to_string();
        let failed = |error: tonic::transport::Error| {
            let causes = with_causes("can't connect".into(), &error);
            Failure::Failed(format!("{name}: {causes}; {IS_IT_A_SOCKET}"))
        };
        let endpoint = Endpoint::from_shared(format!("unix://{name}")).map_err(failed)?;
        let endpoint = endpoint.timeout(timeout).origin(Uri::from_static(LOCAL));
        let channel = endpoint.connect().await.map_err(failed)?;
        Ok(Callee::Node(
            Box::new(Bearer::default().client(channel)),
            name,
        ))
    }

    /// How to report a status: in the node's own words, or that there may be no node at all.
    fn failed(&self, address: &str, status: &Status) -> Failure {
        // The HTTP listener names the kinds of its errors too, but sends no gRPC code.
        if let Some(error) = from_status(status).filter(|it| codes(it.kind()).0 == status.code()) {
            let kind = error.kind().name();
            return match error.kind() {
                // That says nothing of the node.
                ErrorKind::NotFound => error.into(),
                _ => {
                    let message = with_hint(error.message(), Some(kind));
                    Failure::Answered(kind, format!("{address}: {message}"))
                }
            };
        }
        let cause = std::error::Error::source(status);
        let mut causes = cause.into_iter().flat_map(chain);
        if causes.any(<dyn std::error::Error>::is::<tonic::TimeoutExpired>) {
            return Failure::Failed(format!(
                "{address}: no answer within {} s (--timeout)",
                self.timeout
            ));
        }
        let doubt = Listener::Grpc.doubt();
        let what = match cause {
            Some(cause) if chain(cause).any(|cause| cause.to_string().contains(SPEAKS_TLS)) => {
                return Failure::Failed(format!("{address}: {SPEAKS_TLS}"));
            }
            Some(cause) => with_causes("the connection broke".into(), cause),
            None => "the response is not from a gaocache node".into(),
        };
        Failure::Failed(format!("{address}: {what}; {doubt}"))
    }
}

/// An error of the cluster, and how to prove more if that is what it takes.
fn hinted(error: Error) -> Failure {
    let kind = error.kind();
    match kind {
        ErrorKind::Unauthenticated | ErrorKind::PermissionDenied => {
            let message = with_hint(error.message(), Some(kind.name()));
            Failure::Answered(kind.name(), message)
        }
        _ => error.into(),
    }
}

/// The failure of a removal, and what to do if it waits for members that never come back. A node
/// that is asked at its address doesn't say how it finds the others.
fn of_removal(failure: Failure) -> Failure {
    match failure {
        Failure::Answered(kind, what) if kind == ErrorKind::PeerUnreachable.name() => {
            let hint = "if the nodes find each other in etcd, `gaocache members` shows which are \
                        gone, and `gaocache forget` takes those that never come back off the list; \
                        if they have a fixed list, restart them without those \
                        (registry.static.peers)";
            Failure::Answered(kind, format!("{what}; {hint}"))
        }
        other => other,
    }
}

/// An error and its causes.
fn chain<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// A client of the node there.
pub(super) async fn connect(
    place: &NodeAddress,
    tls: &Tls,
    bearer: &Bearer,
    timeout: Duration,
) -> Result<BearingClient, String> {
    let (address, tls) = (place.address.as_str().into(), tls.at(place));
    let endpoint = connection::endpoint(&place.address, tls.is_some());
    let endpoint = endpoint
        .map_err(|error| error.message().to_owned())?
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout);
    let connected = connection::now(&endpoint, &address, tls).await;
    let channel = connected.map_err(|error| {
        let causes = with_causes("can't connect".into(), &error);
        with_advice(causes, Listener::Grpc, place.is_assumed)
    })?;
    Ok(bearer.client(channel))
}

/// A client of the nodes that are registered in etcd.
async fn cluster(
    etcd: &Etcd,
    tls: &Tls,
    timeout: Duration,
    bearer: Bearer,
) -> Result<Callee, Failure> {
    let (keys, discovery) = etcd.discover().await?;
    if discovery.list().endpoints.is_empty() {
        return Err(etcd.nobody());
    }
    let mut options = ClientOptions::default().with_deadline(timeout);
    options.bearer = bearer;
    options.tls = tls.for_all();
    Ok(Callee::Cluster(Client::over(discovery, keys, options)))
}

pub(super) async fn get(args: &GetArgs) -> Result<(), Failure> {
    let GetArgs { group, key, .. } = args;
    let got = match args.target.connect().await? {
        Callee::Node(mut client, address) => {
            let request = wire::GetRequest {
                group: group.clone(),
                key: key.clone(),
            };
            let answer = client.get(request).await;
            let answer = answer.map_err(|status| args.target.failed(&address, &status))?;
            answer_of(answer.into_inner())
        }
        Callee::Cluster(client) => client.get(group, key).await.map_err(hinted)?,
    };
    if args.verbose {
        tell(&summary(&got));
    }
    if args.include {
        for (name, value) in got.metadata.iter() {
            print_line(&format!("{name}: {value}"))?;
        }
        print_line("")?;
    }
    match &args.output {
        Some(file) => write_file(file, &got.value),
        None if args.json => print_json(&as_json(&got, group, key)),
        None => print_value(&got.value),
    }
}

pub(super) async fn remove(args: &RemoveArgs) -> Result<(), Failure> {
    let RemoveArgs { group, key, .. } = args;
    match args.target.connect().await? {
        Callee::Node(mut client, address) => {
            let request = wire::RemoveRequest {
                group: group.clone(),
                key: key.clone(),
            };
            let removed = client.remove(request).await;
            removed.map_err(|status| of_removal(args.target.failed(&address, &status)))?;
        }
        Callee::Cluster(client) => client
            .remove(group, key)
            .await
            .map_err(hinted)
            .map_err(of_removal)?,
    }
    if args.json {
        print_json(&json!({ "group": group, "key": key, "removed": true }))?;
    }
    Ok(())
}

pub(super) async fn purge(args: &PurgeArgs) -> Result<(), Failure> {
    let PurgeArgs { group, target, .. } = args;
    if let Some(tag) = &args.tag {
        return purge_tag(args, tag).await;
    }
    let entries = match target.connect().await? {
        Callee::Node(mut client, address) => {
            let request = wire::PurgeRequest {
                group: group.clone(),
            };
            let purged = client.purge(request).await;
            purged
                .map_err(|status| of_removal(target.failed(&address, &status)))?
                .into_inner()
                .entries
        }
        Callee::Cluster(client) => client
            .purge(group)
            .await
            .map_err(hinted)
            .map_err(of_removal)?,
    };
    if args.json {
        return print_json(&json!({ "group": group, "entries": entries }));
    }
    print_line(&format!("removed {}", counted(entries, "entry", "entries")))
}

async fn purge_tag(args: &PurgeArgs, tag: &str) -> Result<(), Failure> {
    let PurgeArgs { group, target, .. } = args;
    match target.connect().await? {
        Callee::Node(mut client, address) => {
            let request = wire::PurgeTagRequest {
                group: group.clone(),
                tag: tag.to_owned(),
            };
            let purged = client.purge_tag(request).await;
            purged.map_err(|status| of_removal(target.failed(&address, &status)))?;
        }
        Callee::Cluster(client) => client
            .purge_tag(group, tag)
            .await
            .map_err(hinted)
            .map_err(of_removal)?,
    }
    if args.json {
        print_json(&json!({ "group": group, "tag": tag, "removed": true }))?;
    }
    Ok(())
}
