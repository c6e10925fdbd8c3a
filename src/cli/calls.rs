//! `gaocache get`, `remove` and `purge`: one call to a node, or to the cluster.

use std::{io::Write, time::Duration};

use clap::Args;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{Failure, counted, println_or_stop};
use crate::{
    client::{Client, ClientOptions},
    rpc::wire::{self, cache_client::CacheClient},
    status::grpc::from_status,
};
use gaocache_core::error::{Error, ErrorKind};
use gaocache_discovery::EtcdConfig;

/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The target of a call: a node, or the cluster through etcd.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The gRPC address of any node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    target: String,
    #[command(flatten)]
    cluster: Cluster,
    /// Timeout of a call, in seconds
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
}

/// The cluster as registered in etcd.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// URLs of etcd; find the nodes there, and ask the key's owner instead of --target
    #[arg(long, value_name = "URL,URL…", value_delimiter = ',')]
    pub(super) etcd: Vec<String>,
    /// The service name under which the nodes are registered in etcd
    #[arg(long, default_value = "gaocache")]
    pub(super) service: String,
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    group: String,
    key: String,
    #[command(flatten)]
    target: Target,
    /// Print the source of the value to standard error
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    group: String,
    #[command(flatten)]
    target: Target,
}

/// A node, or the cluster.
enum Callee {
    Node(CacheClient<Channel>),
    Cluster(Client),
}

impl Target {
    async fn connect(&self) -> Result<Callee, Failure> {
        let timeout = crate::config::seconds(self.timeout);
        if !self.cluster.etcd.is_empty() {
            let options = ClientOptions::default().with_deadline(timeout);
            let etcd = EtcdConfig::new(self.cluster.etcd.clone());
            return Ok(Callee::Cluster(Client::new(
                etcd,
                &self.cluster.service,
                options,
            )));
        }
        let address = &self.target;
        let failed = |error: tonic::transport::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| error.to_string());
            Failure::Failed(format!("{address}: {cause}"))
        };
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .connect()
            .await
            .map_err(failed)?;
        // The node limits the size of values; the client accepts any size.
        let client = CacheClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Callee::Node(client))
    }
}

fn failed(status: &Status) -> Failure {
    let error = from_status(status).unwrap_or_else(|| {
        let message = format!("{}: {}", status.code(), status.message());
        Error::new(ErrorKind::PeerUnreachable, message).with_source(status.clone())
    });
    error.into()
}

pub(super) async fn get(args: &KeyArgs) -> Result<(), Failure> {
    let KeyArgs { group, key, .. } = args;
    let (value, told) = match args.target.connect().await? {
        Callee::Node(mut client) => {
            let request = wire::GetRequest {
                group: group.clone(),
                key: key.clone(),
            };
            let answer = client
                .get(request)
                .await
                .map_err(|status| failed(&status))?;
            let answer = answer.into_inner();
            let told = told(answer.source(), &answer.owner, answer.ttl_remaining_ms);
            (answer.value, told)
        }
        Callee::Cluster(client) => {
            let answer = client.get(group, key).await?;
            let left = answer.ttl_remaining.map(|left| left.as_millis());
            (answer.value, told(answer.source, "asked directly", left))
        }
    };
    if args.verbose {
        eprintln!("{told}, {} bytes", value.len());
    }
    std::io::stdout()
        .write_all(&value)
        .map_err(|error| Failure::Failed(format!("standard output: {error}")))
}

fn told(source: impl std::fmt::Debug, owner: &str, left: Option<impl std::fmt::Display>) -> String {
    let left = left.map_or_else(|| "never".to_owned(), |ms| format!("in {ms} ms"));
    format!("source {source:?}, owner {owner}, expires {left}")
}

pub(super) async fn remove(args: &KeyArgs) -> Result<(), Failure> {
    let KeyArgs { group, key, .. } = args;
    match args.target.connect().await? {
        Callee::Node(mut client) => {
            let request = wire::RemoveRequest {
                group: group.clone(),
                key: key.clone(),
            };
            let removed = client.remove(request).await;
            removed.map_err(|status| failed(&status))?;
        }
        Callee::Cluster(client) => client.remove(group, key).await?,
    }
    Ok(())
}

pub(super) async fn purge(args: &GroupArgs) -> Result<(), Failure> {
    let entries = match args.target.connect().await? {
        Callee::Node(mut client) => {
            let request = wire::PurgeRequest {
                group: args.group.clone(),
            };
            let purged = client.purge(request).await;
            purged
                .map_err(|status| failed(&status))?
                .into_inner()
                .entries
        }
        Callee::Cluster(client) => client.purge(&args.group).await?,
    };
    println_or_stop(&format!("removed {}", counted(entries, "entry", "entries")))
}
