//! `gaocache members` and `gaocache forget`: the list of members in etcd, to find out why a removal
//! waits, and for which member.
//!
//! `forget` must never take away a member that may be alive: it could go on answering from memory
//! what others remove.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    address::admin_of,
    cluster::Cluster,
    failure::Failure,
    output::{print_json, print_line, table},
    ring::fetch_report,
    sources::ConfigArgs,
    tls::{Tls, TlsArgs},
};
use crate::registry::etcd::{Forgotten, forget as forget_in, view};
use gaocache_core::membership::Member;

/// How long a member is given to show that it is alive.
const ALIVE: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct MembersArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON: a list of members
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The id of the member; see `gaocache members`
    id: String,
    /// Print JSON: the member that was taken off the list
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    tls: TlsArgs,
}

/// A member as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    id: &'a str,
    address: &'a str,
    state: &'static str,
    /// The revision of etcd at which it came into this state of the ring.
    since: u64,
    /// Absent: its key hangs on no lease, so it never goes by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(member: &'a Member) -> Self {
        Self {
            id: &member.id,
            address: &member.address,
            state: member.state_name(),
            since: member.since,
            lease: (member.lease != 0).then(|| format!("{:x}", member.lease)),
        }
    }
}

pub(super) async fn members(args: &MembersArgs) -> Result<(), Failure> {
    let etcd = args.cluster.or_configured(&args.config, "members")?;
    let (keys, discovery) = etcd.discover().await?;
    let view = view(&keys, &discovery.list());
    let shown: Vec<Shown<'_>> = view.members.iter().map(Shown::of).collect();
    if args.json {
        print_json(&shown)?;
    } else if !shown.is_empty() {
        let rows = shown.iter().map(|it| {
            let since = format!("revision {}", it.since);
            let lease = it.lease.clone().unwrap_or_else(|| "none".into());
            [
                it.id.into(),
                it.address.into(),
                it.state.into(),
                since,
                lease,
            ]
        });
        print_line(&table(["id", "address", "state", "since", "lease"], rows))?;
    }
    if shown.is_empty() {
        return Err(etcd.nobody());
    }
    Ok(())
}

pub(super) async fn forget(args: &ForgetArgs) -> Result<(), Failure> {
    let etcd = args.cluster.or_configured(&args.config, "forget")?;
    let tls = args.tls.files()?;
    let (keys, discovery) = etcd.discover().await?;
    let view = view(&keys, &discovery.list());
    let Some(member) = view.member(&args.id) else {
        return Err(Failure::Failed(format!(
            "etcd has no member '{}'; see `gaocache members`",
            args.id
        )));
    };
    // Off the network of etcd, it may still answer clients.
    let asked = tokio::time::timeout(ALIVE, fetch_report_of(member, &tls)).await;
    if let Ok(Ok(report)) = asked
        && report.node == *member.id
    {
        return Err(alive(member, "it answers at its admin listener"));
    }
    let forgotten = forget_in(&etcd.config, &keys, member).await?;
    match forgotten {
        Forgotten::Yes if args.json => print_json(&json!({ "forgotten": Shown::of(member) })),
        Forgotten::Yes => print_line(&format!(
            "{} at {} is off the list",
            member.id, member.address
        )),
        Forgotten::LeaseLives => Err(alive(member, "its lease is still alive")),
        Forgotten::Changed => Err(Failure::Failed(format!(
            "{} was changed in etcd meanwhile; see `gaocache members`",
            member.id
        ))),
    }
}

async fn fetch_report_of(member: &Member, tls: &Tls) -> Result<crate::admin::RingReport, String> {
    fetch_report(&admin_of(member)?, tls, None, None).await
}

fn alive(member: &Member, why: &str) -> Failure {
    Failure::Failed(format!(
        "{} at {} is not gone: {why}; stop it first",
        member.id, member.address
    ))
}
