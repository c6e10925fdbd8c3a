//! `gaocache get`, `remove` and `purge`: one call to a node, or to the cluster.

use clap::Args;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    Failure,
    address::{CONNECT_TIMEOUT, Listener, host_and_port, look_up, seconds},
    cluster::Cluster,
    output::{counted, print_line, print_value},
};
use crate::{
    client::{Client, ClientOptions},
    rpc::wire::{self, cache_client::CacheClient},
    status::{codes, grpc::from_status},
};
use gaocache_core::error::with_causes;

/// The target of a call: a node, or the cluster through etcd.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// The gRPC address of any node
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7070",
        value_parser = host_and_port,
        conflicts_with = "etcd"
    )]
    target: String,
    /// Timeout of a call, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: f64,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// Name of the group
    group: String,
    /// The key
    key: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Print the source of the value to standard error
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    /// Name of the group
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
        if let Some(etcd) = self.cluster.given()? {
            let (keys, discovery) = etcd.discover().await?;
            if discovery.list().endpoints.is_empty() {
                return Err(etcd.nobody());
            }
            let options = ClientOptions::default().with_deadline(timeout);
            return Ok(Callee::Cluster(Client::over(discovery, keys, options)));
        }
        let address = &self.target;
        look_up(address).await?;
        let failed = |error: tonic::transport::Error| {
            let causes = with_causes("can't connect".into(), &error);
            Failure::Failed(format!("{address}: {causes}"))
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

    /// What to tell about a status: the node's own words, or whether there is a node at all.
    fn failed(&self, status: &Status) -> Failure {
        // The HTTP listener names the kinds of its errors too, but sends no gRPC code.
        if let Some(error) = from_status(status).filter(|it| codes(it.kind()).0 == status.code()) {
            return error.into();
        }
        let address = &self.target;
        let cause = std::error::Error::source(status);
        let mut causes = std::iter::successors(cause, |cause| cause.source());
        if causes.any(<dyn std::error::Error>::is::<tonic::TimeoutExpired>) {
            return Failure::Failed(format!(
                "{address}: no answer within {} s (--timeout)",
                self.timeout
            ));
        }
        let doubt = Listener::Grpc.doubt();
        let what = match cause {
            Some(cause) => with_causes("the connection broke".into(), cause),
            None => "the answer is not one of the cache".into(),
        };
        Failure::Failed(format!("{address}: {what}; {doubt}"))
    }
}

pub(super) async fn get(args: &GetArgs) -> Result<(), Failure> {
    let KeyArgs { group, key, target } = &args.key;
    let (value, told) = match target.connect().await? {
        Callee::Node(mut client) => {
            let request = wire::GetRequest {
                group: group.clone(),
                key: key.clone(),
            };
            let answer = client.get(request).await;
            let answer = answer
                .map_err(|status| target.failed(&status))?
                .into_inner();
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
    print_value(&value)
}

fn told(source: impl std::fmt::Debug, owner: &str, left: Option<impl std::fmt::Display>) -> String {
    let left = left.map_or_else(|| "never".to_owned(), |ms| format!("in {ms} ms"));
    format!("source {source:?}, owner {owner}, expires {left}")
}

pub(super) async fn remove(args: &KeyArgs) -> Result<(), Failure> {
    let KeyArgs { group, key, target } = args;
    match target.connect().await? {
        Callee::Node(mut client) => {
            let request = wire::RemoveRequest {
                group: group.clone(),
                key: key.clone(),
            };
            let removed = client.remove(request).await;
            removed.map_err(|status| target.failed(&status))?;
        }
        Callee::Cluster(client) => client.remove(group, key).await?,
    }
    Ok(())
}

pub(super) async fn purge(args: &GroupArgs) -> Result<(), Failure> {
    let GroupArgs { group, target } = args;
    let entries = match target.connect().await? {
        Callee::Node(mut client) => {
            let request = wire::PurgeRequest {
                group: group.clone(),
            };
            let purged = client.purge(request).await;
            purged
                .map_err(|status| target.failed(&status))?
                .into_inner()
                .entries
        }
        Callee::Cluster(client) => client.purge(group).await?,
    };
    print_line(&format!("removed {}", counted(entries, "entry", "entries")))
}
