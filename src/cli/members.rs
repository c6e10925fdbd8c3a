//! `gaocache members` and `gaocache forget`: the list of members in etcd, to find out why a removal
//! waits, and for which member.
//!
//! `forget` must never take away a member that may be alive: it could keep answering from memory
//! what others remove.

use std::path::PathBuf;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    access::Socket,
    address::admin_of,
    admin::{Admin, NoAnswer},
    cluster::{Cluster, Etcd},
    context::Context,
    failure::Failure,
    output::{counted, print_json, print_line, printable, table},
    ring::fetch_report,
    sources::ConfigArgs,
    tls::{Tls, TlsArgs},
};
use crate::registry::etcd::{Forgotten, Keys, forget as forget_in, registered_at, view};
use gaocache_core::{
    error::{Error, ErrorKind},
    membership::{Member, View},
};
use gaocache_discovery::Snapshot;

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
    access: Socket,
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
    /// When it registered, by its own clock. Absent: its release doesn't say.
    #[serde(skip_serializing_if = "Option::is_none")]
    registered_at: Option<String>,
    /// The revision of etcd at which it came into this state of the ring.
    since: u64,
    /// Absent: its key hangs on no lease, so it never goes by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(member: &'a Member, (keys, snapshot): (&Keys, &Snapshot)) -> Self {
        Self {
            id: &member.id,
            address: &member.address,
            state: member.state_name(),
            registered_at: registered_at(keys, snapshot, member).and_then(as_time),
            since: member.since,
            lease: (member.lease != 0).then(|| format!("{:x}", member.lease)),
        }
    }
}

/// Seconds since the Unix epoch, for people and programs.
fn as_time(seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    time.format(&Rfc3339).ok()
}

pub(super) async fn members(args: &MembersArgs) -> Result<(), Failure> {
    let etcd = args.cluster.or_configured(&args.config, "members")?;
    let (keys, discovery) = etcd.discover().await?;
    let snapshot = discovery.list();
    let view = view(&keys, &snapshot);
    let members = view.members.iter();
    let shown: Vec<Shown<'_>> = members
        .map(|it| Shown::of(it, (&keys, &snapshot)))
        .collect();
    if args.json {
        print_json(&shown)?;
    } else if !shown.is_empty() {
        let rows = shown.iter().map(|it| {
            let registered = it.registered_at.clone();
            let lease = it.lease.clone().unwrap_or_else(|| "none".into());
            [
                printable(it.id),
                printable(it.address),
                it.state.into(),
                registered.unwrap_or_else(|| "unknown".into()),
                lease,
            ]
        });
        let titles = ["id", "address", "state", "registered", "lease"];
        print_line(&table(titles, rows))?;
    }
    if shown.is_empty() {
        return Err(etcd.nobody());
    }
    Ok(())
}

pub(super) async fn forget(args: &ForgetArgs) -> Result<(), Failure> {
    let context = Context::in_force()?;
    let is_etcd_named = args.cluster.is_named() || !context.etcd.is_empty();
    let socket = match args.access.named() {
        Some(socket) => Some(socket.clone()),
        None if is_etcd_named => None,
        None => args.access.socket(&context),
    };
    let done = match socket {
        // The node of this machine has etcd's address and password, and an audit.
        Some(socket) => over(socket, &args.id).await?,
        None => {
            let etcd = args.cluster.or_configured(&args.config, "forget")?;
            forget_member(&etcd, &args.tls.files()?, &args.id).await?
        }
    };
    if args.json {
        return print_json(&done);
    }
    let text = |field: &str| printable(done["forgotten"][field].as_str().unwrap_or("?"));
    print_line(&format!(
        "{} at {} is off the list",
        text("id"),
        text("address")
    ))?;
    match outlook(&done["left"]) {
        Some(outlook) => print_line(&outlook),
        None => Ok(()),
    }
}

/// What comes of the members that are left, if some of them have vanished too.
fn outlook(left: &Value) -> Option<String> {
    let names = left["vanished"]
        .as_array()?
        .iter()
        .filter_map(Value::as_str);
    let names: Vec<String> = names.map(printable).collect();
    let (gone, all) = (names.len() as u64, left["members"].as_u64()?);
    if names.is_empty() {
        return None;
    }
    let counted = counted(all, "member", "members");
    let names = names.join(", ");
    // At least half of all members have to agree that one is gone.
    Some(if gone * 2 > all {
        format!(
            "{gone} of {counted} are still gone: {names}; removals stay refused until more of them \
             are back or forgotten too"
        )
    } else {
        format!(
            "{gone} of {counted} are still gone: {names}; the others can take them off the list by \
             themselves now, and then removals go on"
        )
    })
}

async fn over(socket: PathBuf, id: &str) -> Result<Value, Failure> {
    let admin = Admin::at_socket(socket);
    let path = format!("/forget?id={}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    let done = admin.ask(Method::POST, &path).await;
    let done = done.map_err(|why| admin.failed(why))?;
    serde_json::from_slice(&done)
        .map_err(|error| admin.failed(format!("the answer does not describe a member: {error}")))
}

/// Takes a member off the list in etcd; returns it as JSON.
///
/// # Errors
/// That there is none, that it may be alive, or what etcd says.
pub(super) async fn forget_member(etcd: &Etcd, tls: &Tls, id: &str) -> Result<Value, Error> {
    let refused = |what: String| Error::new(ErrorKind::InvalidRequest, what);
    let (keys, discovery) = etcd
        .discover()
        .await
        .map_err(|failure| Error::new(ErrorKind::Registry, failure.message()))?;
    let snapshot = discovery.list();
    let view = view(&keys, &snapshot);
    let Some(member) = view.member(id) else {
        let what = format!("etcd has no member '{id}'; see `gaocache members`");
        return Err(refused(what));
    };
    let alive = |why: &str| {
        refused(format!(
            "{} at {} is not gone: {why}",
            member.id, member.address
        ))
    };
    // Off the network of etcd, it may still answer clients.
    let asked = tokio::time::timeout(ALIVE, fetch_report_of(member, tls)).await;
    if let Ok(Ok(report)) = asked
        && report.node == *member.id
    {
        return Err(alive("it answers at its admin listener; stop it first"));
    }
    match forget_in(&etcd.config, &keys, member).await? {
        Forgotten::Yes => Ok(json!({
            "forgotten": Shown::of(member, (&keys, &snapshot)),
            "left": left(&view, id),
        })),
        Forgotten::LeaseLives => Err(alive(
            "its lease is still alive; stop it first, or, if it has just died, wait until its lease \
             ends (registry.etcd.lease_ttl_seconds)",
        )),
        Forgotten::Changed => Err(refused(format!(
            "{} was changed in etcd meanwhile; see `gaocache members`",
            member.id
        ))),
    }
}

/// How many members there are without that one, and which of them have vanished.
fn left(view: &View, id: &str) -> Value {
    let left = || view.members.iter().filter(|it| *it.id != *id);
    let vanished = left().filter(|it| it.vanished).map(|it| &*it.id);
    json!({ "members": left().count(), "vanished": vanished.collect::<Vec<_>>() })
}

async fn fetch_report_of(member: &Member, tls: &Tls) -> Result<crate::admin::RingReport, NoAnswer> {
    fetch_report(&admin_of(member)?, tls, None, None).await
}
