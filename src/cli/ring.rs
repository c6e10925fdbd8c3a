//! `gaocache ring`: the ring as a node sees it, read from its admin listener.

use std::fmt::Write;

use bytes::Bytes;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    address::{CONNECT_TIMEOUT, Listener, Place, admin_address, admin_of, here, look_up},
    cluster::{Cluster, Etcd, Whom},
    context::Context,
    failure::Failure,
    output::{counted, print_line},
    tls::{Tls, TlsArgs},
};
use crate::{
    admin::{GroupReport, OwnerReport, RingReport, report},
    http_client,
    registry::etcd::view,
    settings::ADMIN_PORT,
    status::{KIND_HEADER, http::NO_SUCH_PATH},
    tls::{ClientTls, TOLD, to_nodes::meaning},
};
use gaocache_core::{
    cluster::Topology,
    error::with_causes,
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
    admin: Option<Place>,
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
    let (named, usual) = (args.admin.as_ref(), here(ADMIN_PORT));
    let whom = args
        .cluster
        .whom(named, Context::admin, admin_address, usual)?;
    let tls = args.tls.files()?;
    let admin = match whom {
        Whom::Node(admin) => admin,
        Whom::Cluster(etcd) => return ring_from_etcd(args, &etcd, &tls).await,
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
        eprintln!(
            "gaocache: no node answered, so it is not certain that there is a group '{group}'"
        );
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
    admin: &Place,
    tls: &Tls,
    known: Option<&str>,
) -> Result<RingReport, Failure> {
    let mut report = fetch_report(admin, tls, args.key.as_deref(), known)
        .await
        .map_err(|what| Failure::Failed(format!("{admin}: {what}")))?;
    if let Some(group) = &args.group {
        report.owners.retain(|owner| owner.group == *group);
        if let (true, Some(groups)) = (report.owners.is_empty(), &report.groups) {
            return Err(no_group(&report.node, group, groups));
        }
    }
    Ok(report)
}

/// What an admin listener answers at this path, if it is a success.
pub(super) async fn ask_admin(admin: &Place, tls: &Tls, path: &str) -> Result<Bytes, String> {
    let tls = tls.at(admin);
    let (client, url) = client(admin, tls.as_ref(), path).await?;
    let doubt = Listener::Admin.doubt();
    let response = client.get(url).send().await.map_err(|error| {
        if let Some(meaning) = meaning(&error) {
            return meaning.to_owned();
        }
        let refused = error.is_connect();
        let causes = with_causes("no answer".into(), &error);
        if refused {
            causes
        } else {
            format!("{causes}; {doubt}")
        }
    })?;
    let status = response.status();
    if !status.is_success() {
        // The node's own words, if it is one.
        let ours = response.headers().contains_key(KIND_HEADER);
        let body = response.bytes().await.unwrap_or_default();
        if body.trim_ascii() == TOLD.as_bytes() {
            return Err(TOLD.into());
        }
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        return Err(match body["message"].as_str().filter(|_| ours) {
            // The HTTP listener of a node names the kinds of its errors, too.
            Some(message) if body["reason"] == NO_SUCH_PATH => format!("{message}; {doubt}"),
            Some(message) => message.to_owned(),
            None => format!("it answered {status}; {doubt}"),
        });
    }
    let body = response.bytes().await;
    body.map_err(|error| with_causes("the answer broke off".into(), &error))
}

/// A client for the admin listener there, and the URL of `path`.
async fn client(
    admin: &Place,
    tls: Option<&ClientTls>,
    path: &str,
) -> Result<(reqwest::Client, String), String> {
    let mut builder = http_client::builder().map_err(|error| error.to_string())?;
    let (mut host, mut scheme) = (admin.address.clone(), "http");
    if let Some(tls) = tls {
        scheme = "https";
        let config = tls.config().map_err(|error| error.to_string())?;
        builder = builder.tls_backend_preconfigured(config);
        if let Some(name) = tls.server_name() {
            let found = look_up(admin).await;
            let found = found.map_err(|_| "the host can't be found".to_owned())?;
            let port = found.first().map_or(0, std::net::SocketAddr::port);
            builder = builder.resolve_to_addrs(name, &found);
            host = format!("{name}:{port}");
        }
    }
    let client = http_client::build(builder.connect_timeout(CONNECT_TIMEOUT));
    let client = client.map_err(|error| error.to_string())?;
    Ok((client, format!("{scheme}://{host}{path}")))
}

/// The ring of the node whose admin listener is there.
pub(super) async fn fetch_report(
    admin: &Place,
    tls: &Tls,
    key: Option<&str>,
    known: Option<&str>,
) -> Result<RingReport, String> {
    let mut url = String::from("/ring?");
    if let Some(key) = key {
        let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
        let _ = write!(url, "key={key}&");
    }
    if let Some(known) = known {
        let _ = write!(url, "unlike={known}");
    }
    let body = ask_admin(admin, tls, &url).await?;
    let doubt = Listener::Admin.doubt();
    serde_json::from_slice(&body).map_err(|_| format!("the response is not a ring; {doubt}"))
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
