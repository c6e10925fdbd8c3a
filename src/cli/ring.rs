//! `gaocache ring`: the ring as a node sees it, read from its admin listener.

use std::{fmt::Write, time::Duration};

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Failure, calls::Cluster, counted, println_or_stop};
use crate::{
    admin::{OwnerReport, RingReport, report},
    http_client,
    registry::etcd::{Keys, view},
};
use gaocache_core::{
    cluster::Topology,
    error::with_causes,
    ring::{group_seed, hash_key},
};
use gaocache_discovery::{Discovery, EtcdConfig};

/// Time limit for the first answer from etcd.
const ETCD_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct RingArgs {
    /// The admin address of a node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9090")]
    target: String,
    #[command(flatten)]
    cluster: Cluster,
    /// Print the ring again whenever it changes
    #[arg(long)]
    watch: bool,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
    /// Also print the owner of this key in each group
    #[arg(long)]
    key: Option<String>,
    /// The group of --key; needed with --etcd, since etcd does not know the groups
    #[arg(long)]
    group: Option<String>,
}

pub(super) async fn ring(args: &RingArgs) -> Result<(), Failure> {
    if !args.cluster.etcd.is_empty() {
        return ring_from_etcd(args).await;
    }
    let mut known: Option<String> = None;
    loop {
        let report = fetch(args, known.as_deref()).await?;
        if known.as_deref() != Some(&report.fingerprint) {
            show(args, &report)?;
        }
        if !args.watch {
            return Ok(());
        }
        known = Some(report.fingerprint);
    }
}

fn show(args: &RingArgs, report: &RingReport) -> Result<(), Failure> {
    let shown = if args.json {
        serde_json::to_string(report).map_err(|error| Failure::Failed(error.to_string()))?
    } else {
        table(report)
    };
    println_or_stop(shown.trim_end())
}

/// The ring computed from the registrations in etcd, without asking any node.
async fn ring_from_etcd(args: &RingArgs) -> Result<(), Failure> {
    let keys = Keys::of(&args.cluster.service);
    let etcd = EtcdConfig::new(args.cluster.etcd.clone());
    let discovery = Discovery::start_ranges(etcd, [keys.range()], |_| {});
    let known = tokio::time::timeout(ETCD_TIMEOUT, discovery.known()).await;
    known.map_err(|_| Failure::Failed(format!("etcd: {}", discovery.list().problem)))?;
    let mut changes = discovery.changes();
    loop {
        let snapshot = changes.borrow_and_update().clone();
        let topology = Topology::new("", view(&keys, &snapshot));
        let owner = args
            .key
            .as_ref()
            .zip(args.group.as_ref())
            .map(|(key, group)| {
                let owner = topology.owner_id(hash_key(group_seed(group), key));
                OwnerReport {
                    group: group.clone(),
                    owner: owner.map(ToString::to_string).unwrap_or_default(),
                }
            });
        show(
            args,
            &report("etcd", &topology, owner.into_iter().collect()),
        )?;
        if !args.watch || changes.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn fetch(args: &RingArgs, known: Option<&str>) -> Result<RingReport, Failure> {
    let report = fetch_report(&args.target, args.key.as_deref(), known).await;
    report.map_err(|what| Failure::Failed(format!("{}: {what}", args.target)))
}

/// The ring of the node whose admin listener is at `target`.
pub(super) async fn fetch_report(
    target: &str,
    key: Option<&str>,
    known: Option<&str>,
) -> Result<RingReport, String> {
    let mut url = format!("http://{target}/ring?");
    if let Some(key) = key {
        let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
        let _ = write!(url, "key={key}&");
    }
    if let Some(known) = known {
        let _ = write!(url, "unlike={known}");
    }
    let client = http_client::plain().map_err(|error| error.to_string())?;
    let response = client.get(url).send().await;
    let response = response.and_then(reqwest::Response::error_for_status);
    let bytes = response.map_err(|error| describe(&error))?.bytes().await;
    let body = bytes.map_err(|error| describe(&error))?;
    serde_json::from_slice(&body)
        .map_err(|error| format!("not the admin listener of a gaocache node: {error}"))
}

fn describe(error: &reqwest::Error) -> String {
    with_causes(error.to_string(), error)
}

fn table(report: &RingReport) -> String {
    let mut out = format!(
        "{}, revision {}, fingerprint {}, as seen by {}\n",
        counted(report.members.len() as u64, "member", "members"),
        report.revision,
        report.fingerprint,
        report.node
    );
    let width = |of: fn(&crate::admin::MemberReport) -> &String, title: &str| {
        let longest = report.members.iter().map(|member| of(member).len()).max();
        longest.unwrap_or(0).max(title.len())
    };
    let (id, address, zone) = (
        width(|it| &it.id, "id"),
        width(|it| &it.address, "address"),
        width(|it| &it.zone, "zone"),
    );
    let _ = writeln!(
        out,
        "{:id$}  {:address$}  {:zone$}  state     weight   share  version   lease",
        "id", "address", "zone"
    );
    for member in &report.members {
        let _ = writeln!(
            out,
            "{:id$}  {:address$}  {:zone$}  {:8}  {:6}  {:5.1}%  {:8}  {}",
            member.id,
            member.address,
            member.zone,
            member.state,
            member.weight,
            member.share * 100.0,
            member.version,
            member.lease.as_deref().unwrap_or("-")
        );
    }
    for owner in &report.owners {
        let _ = writeln!(out, "owner in group {}: {}", owner.group, owner.owner);
    }
    out
}
