//! `gaocache check` checks that every node registered in etcd has the same ring and answers. `helm
//! test` runs it.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use tonic::transport::Endpoint;

use super::{
    ConfigArgs, Failure,
    cluster::{Cluster, Etcd},
    output::{counted, print_line},
    ring::fetch_report,
};
use crate::{
    config::RegistryKind,
    node::configured::etcd_config,
    registry::etcd::view,
    rpc::wire::{GetRequest, cache_client::CacheClient},
    status::grpc::from_status,
};
use gaocache_core::{error::ErrorKind, membership::Member};

/// Time limit for one request to one node.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The expected number of nodes
    #[arg(long)]
    members: Option<usize>,
    /// Also get --key of this group through every node; "no such key" counts as an answer
    #[arg(long, requires = "key")]
    group: Option<String>,
    /// The key to get
    #[arg(long, requires = "group")]
    key: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
}

pub(super) async fn check(args: &CheckArgs) -> Result<(), Failure> {
    // Where etcd is: from the flags, else from the node's settings.
    let etcd = match args.cluster.given()? {
        Some(etcd) => etcd,
        None => {
            let registry = args.config.load(false)?.settings.registry;
            if registry.kind != RegistryKind::Etcd {
                return Err(Failure::Usage(
                    "`check` finds the nodes in etcd, but registry.kind is another; see --etcd"
                        .into(),
                ));
            }
            Etcd {
                config: etcd_config(&registry.etcd),
                service: registry.service,
            }
        }
    };
    let (keys, discovery) = etcd.discover().await?;
    let view = view(&keys, &discovery.list());
    let mut problems = Vec::new();
    let wanted = args.members.unwrap_or(view.members.len().max(1));
    if view.members.len() != wanted {
        problems.push(format!(
            "etcd has {} registered nodes, expected {wanted}",
            view.members.len()
        ));
    }
    let expected = view.fingerprint().to_string();
    let mut revisions = BTreeSet::new();
    for member in view.members.iter() {
        match ask(member, args).await {
            Ok((fingerprint, revision, members)) => {
                print_line(&format!(
                    "{} at {}: {}, revision {revision}, fingerprint {fingerprint}",
                    member.id,
                    member.address,
                    counted(members as u64, "member", "members")
                ))?;
                revisions.insert(revision);
                if fingerprint != expected {
                    problems.push(format!("the ring of {} differs from etcd", member.id));
                }
            }
            Err(problem) => {
                problems.push(format!("{} at {}: {problem}", member.id, member.address))
            }
        }
    }
    if revisions.len() > 1 {
        problems.push(format!(
            "the nodes are at different revisions: {revisions:?}"
        ));
    }
    if problems.is_empty() {
        return print_line(&format!(
            "ok: {} agree",
            counted(wanted as u64, "node", "nodes")
        ));
    }
    Err(Failure::Failed(problems.join("\n  ")))
}

/// The node's fingerprint, revision and number of members, after it has also answered a get.
async fn ask(member: &Member, args: &CheckArgs) -> Result<(String, u64, usize), String> {
    let host = member.address.rsplit_once(':').map_or("", |(host, _)| host);
    let admin = format!("{host}:{}", member.admin_port);
    let report = tokio::time::timeout(TIMEOUT, fetch_report(&admin, None, None)).await;
    let report = report.map_err(|_| "the admin listener did not answer in time".to_owned())??;
    if let Some((group, key)) = args.group.as_ref().zip(args.key.as_ref()) {
        get(member, group, key).await?;
    }
    Ok((report.fingerprint, report.revision, report.members.len()))
}

async fn get(member: &Member, group: &str, key: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{}", member.address));
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    let channel = endpoint
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT)
        .connect()
        .await;
    let channel = channel.map_err(|error| error.to_string())?;
    let request = GetRequest {
        group: group.to_owned(),
        key: key.to_owned(),
    };
    let mut client = CacheClient::new(channel).max_decoding_message_size(usize::MAX);
    match client.get(request).await {
        Ok(_) => Ok(()),
        Err(status) => match from_status(&status) {
            Some(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            _ => Err(format!(
                "get {key}: {}: {}",
                status.code(),
                status.message()
            )),
        },
    }
}
