//! `gaocache ring`: the ring as a node sees it, read from its admin listener.

use std::fmt::Write;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    address::{CONNECT_TIMEOUT, Listener, NodeAddress, admin_address, admin_of, look_up},
    admin::{Admin, NoAnswer},
    cluster::{Cluster, Etcd, Whom},
    context::Context,
    failure::Failure,
    output::{counted, print_line, printable, tell},
    tls::{Tls, TlsArgs},
};
use crate::{
    admin::{GroupReport, MemberReport, OwnerReport, RingReport, report},
    registry::etcd::view,
};
use gaocache_core::{
    cluster::Topology,
    ring::{group_seed, hash_key},
};

#[derive(Debug, Args)]
pub(super) struct RingArgs {
    /// The admin address of a node: HOST:PORT, or with https:// if it speaks TLS
    ///
    /// [default: GAOCACHE_ADMIN, else that of the context, else 127.0.0.1:9090]
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_parser = admin_address,
        conflicts_with = "etcd"
    )]
    admin: Option<NodeAddress>,
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
    #[arg(long, requires = "key")]
    group: Option<String>,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    tls: TlsArgs,
}

pub(super) async fn ring(args: &RingArgs) -> Result<(), Failure> {
    let context = Context::in_force()?;
    let named = args.admin.as_ref();
    let whom = args.cluster.whom(named, &context, Listener::Admin)?;
    let tls = args.tls.files()?;
    let admin = match whom {
        Some(Whom::Node(admin)) => admin,
        Some(Whom::Cluster(etcd)) => return ring_from_etcd(args, &etcd, &tls).await,
        None => context.usual(Listener::Admin)?,
    };
    look_up(&admin).await?;
    let mut known: Option<String> = None;
    loop {
        let report = fetch(args, &admin, &tls, known.as_deref()).await?;
        if known.as_deref() != Some(&report.fingerprint) {
            show(args, &report, || {
                Failure::Failed(format!(
                    "{}: this node knows no members, not even itself; `curl {}/readyz` shows why",
                    admin, admin
                ))
            })?;
        }
        if !args.watch {
            return Ok(());
        }
        known = Some(report.fingerprint);
    }
}

/// An empty ring is a failure for a single query, and only the beginning for `--watch`.
fn show(
    args: &RingArgs,
    report: &RingReport,
    empty: impl FnOnce() -> Failure,
) -> Result<(), Failure> {
    let shown = if args.json {
        serde_json::to_string(report).map_err(|error| Failure::Failed(error.to_string()))?
    } else {
        table(report)
    };
    print_line(shown.trim_end())?;
    if report.members.is_empty() && !args.watch {
        return Err(empty());
    }
    Ok(())
}

/// The ring computed from the registrations in etcd, without asking any node.
async fn ring_from_etcd(args: &RingArgs, etcd: &Etcd, tls: &Tls) -> Result<(), Failure> {
    if args.key.is_some() && args.group.is_none() {
        return Err(Failure::Usage(
            "--key needs --group here: etcd does not know the groups".into(),
        ));
    }
    let (keys, discovery) = etcd.discover().await?;
    let mut changes = discovery.changes();
    loop {
        let snapshot = changes.borrow_and_update().clone();
        let topology = Topology::new("", view(&keys, &snapshot));
        if let Some(group) = args.group.as_ref().filter(|_| !args.watch) {
            has_group(&topology, group, tls).await?;
        }
        let asked = args.key.as_ref().zip(args.group.as_ref());
        let owner = asked.map(|(key, group)| {
            let owner = topology.owner_id(hash_key(group_seed(group), key));
            OwnerReport {
                group: group.clone(),
                owner: owner.map(ToString::to_string).unwrap_or_default(),
            }
        });
        let report = report("etcd", &topology, owner.into_iter().collect());
        show(args, &report, || etcd.nobody())?;
        if !args.watch || changes.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Asks the nodes whether there is such a group, since the ring would assign keys of any: the first
/// that answers decides.
async fn has_group(topology: &Topology, group: &str, tls: &Tls) -> Result<(), Failure> {
    for member in topology.view.members.iter().filter(|it| !it.vanished) {
        let asked = tokio::time::timeout(CONNECT_TIMEOUT, async {
            fetch_report(&admin_of(member)?, tls, None, None).await
        });
        let Ok(Ok(RingReport {
            groups: Some(groups),
            ..
        })) = asked.await
        else {
            continue;
        };
        return match groups.iter().any(|it| it.name == group) {
            true => Ok(()),
            false => Err(no_group(&member.id, group, &groups)),
        };
    }
    if !topology.view.members.is_empty() {
        tell(&format!(
            "gaocache: no node answered, so it is not certain that the group '{group}' exists"
        ));
    }
    Ok(())
}

fn no_group(node: &str, group: &str, groups: &[GroupReport]) -> Failure {
    let names: Vec<&str> = groups.iter().map(|it| it.name.as_str()).collect();
    Failure::Failed(format!(
        "{node} has no group '{group}'; it has: {}",
        names.join(", ")
    ))
}

async fn fetch(
    args: &RingArgs,
    admin: &NodeAddress,
    tls: &Tls,
    known: Option<&str>,
) -> Result<RingReport, Failure> {
    let mut report = fetch_report(admin, tls, args.key.as_deref(), known)
        .await
        .map_err(|why| Admin::at(admin, tls).failed(why))?;
    if let Some(group) = &args.group {
        report.owners.retain(|owner| owner.group == *group);
        if let (true, Some(groups)) = (report.owners.is_empty(), &report.groups) {
            return Err(no_group(&report.node, group, groups));
        }
    }
    Ok(report)
}

/// The ring of the node whose admin listener is there.
pub(super) async fn fetch_report(
    admin: &NodeAddress,
    tls: &Tls,
    key: Option<&str>,
    known: Option<&str>,
) -> Result<RingReport, NoAnswer> {
    let mut url = String::from("/ring?");
    if let Some(key) = key {
        let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
        let _ = write!(url, "key={key}&");
    }
    if let Some(known) = known {
        let _ = write!(url, "unlike={known}");
    }
    let body = Admin::at(admin, tls).get(&url).await?;
    let doubt = Listener::Admin.doubt();
    let read = serde_json::from_slice(&body);
    read.map_err(|_| format!("the response is not a ring; {doubt}").into())
}

fn table(report: &RingReport) -> String {
    let mut out = format!(
        "{}, revision {}, fingerprint {}, as seen by {}\n",
        counted(report.members.len() as u64, "member", "members"),
        report.revision,
        report.fingerprint,
        report.node
    );
    list_members(&mut out, &report.members);
    if !report.unreachable.is_empty() {
        let (node, others) = (&report.node, report.unreachable.join(", "));
        let (node, others) = (printable(node), printable(&others));
        let _ = writeln!(out, "{node} can't connect to: {others}");
    }
    for owner in &report.owners {
        let (group, owner) = (printable(&owner.group), printable(&owner.owner));
        let _ = writeln!(out, "owner in group {group}: {owner}");
    }
    out
}

/// A line for each member, in columns as wide as they need.
fn list_members(out: &mut String, members: &[MemberReport]) {
    let members = members.iter().map(|member| MemberReport {
        id: printable(&member.id),
        address: printable(&member.address),
        zone: printable(&member.zone),
        ..member.clone()
    });
    let members: Vec<MemberReport> = members.collect();
    let width = |of: fn(&MemberReport) -> &String, title: &str| {
        let longest = members
            .iter()
            .map(|member| of(member).chars().count())
            .max();
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
    for member in &members {
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
}
