//! `gaocache check` checks that every node registered in etcd has the same ring and answers. `helm
//! test` runs it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    access::{Token, with_hint},
    address::{admin_of, grpc_of},
    calls::connect,
    cluster::Cluster,
    config::warn,
    context::Context,
    failure::Failure,
    output::{counted, print_json, print_line},
    ring::fetch_report,
    sources::ConfigArgs,
    tls::{Tls, TlsArgs},
};
use crate::{
    admin::{GroupReport, RingReport},
    config::listed,
    registry::etcd::view,
    status::grpc::from_status,
    wire::{GetRequest, bearer::Bearer},
};
use gaocache_core::{
    error::ErrorKind,
    membership::{Member, View},
};

/// Time limit for one request to one node.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON: the nodes, and the problems if there are any
    #[arg(long)]
    json: bool,
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
    token: Token,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    tls: TlsArgs,
}

pub(super) async fn check(args: &CheckArgs) -> Result<(), Failure> {
    let etcd = args.cluster.or_configured(&args.config, "check")?;
    if args.config.is_given() {
        let warnings = args.config.load()?.warnings;
        if !warnings.is_empty() {
            warn(&listed("warning", &warnings), args.json);
        }
    }
    let tls = args.tls.files()?;
    let bearer = args
        .token
        .bearer(&Context::in_force()?, args.cluster.is_named())?;
    let (keys, discovery) = etcd.discover().await?;
    let view = view(&keys, &discovery.list());
    let wanted = args.members.unwrap_or(view.members.len().max(1));
    let mut survey = Survey::of(&view, wanted);
    for member in view.members.iter() {
        match ask(member, args, &tls, &bearer).await {
            Ok((report, got)) => survey.add(member, report, got),
            Err(problem) => {
                let vanished = match member.vanished {
                    true => "vanished; see `gaocache forget` if it never comes back: ",
                    false => "",
                };
                let (id, address) = (&member.id, &member.address);
                let problem = format!("{id} at {address}: {vanished}{problem}");
                survey.problems.push(problem);
            }
        }
    }
    survey.compare_revisions();
    survey.print(args.json)
}

/// What the nodes reported, and the problems found.
struct Survey {
    fingerprint: String,
    wanted: usize,
    /// The ids of members that vanished.
    gone: BTreeSet<String>,
    nodes: Vec<NodeReport>,
    /// The first node that reported its groups.
    groups: Option<(Arc<str>, Vec<GroupReport>)>,
    problems: Vec<String>,
}

/// A node that answered.
#[derive(Serialize)]
struct NodeReport {
    id: String,
    address: String,
    members: usize,
    revision: u64,
    fingerprint: String,
    /// What the get brought, if one was asked for: bytes, or that there is no such key.
    #[serde(skip_serializing_if = "Option::is_none")]
    get: Option<String>,
}

impl Survey {
    fn of(view: &View, wanted: usize) -> Self {
        let registered = view.members.len();
        let problem = (registered != wanted).then(|| {
            format!(
                "etcd has {}, expected {wanted}",
                counted(registered as u64, "registered node", "registered nodes")
            )
        });
        let gone = view.members.iter().filter(|it| it.vanished);
        Self {
            fingerprint: view.fingerprint().to_string(),
            wanted,
            gone: gone.map(|it| it.id.to_string()).collect(),
            nodes: Vec::new(),
            groups: None,
            problems: problem.into_iter().collect(),
        }
    }

    fn add(&mut self, member: &Member, report: RingReport, get: Option<String>) {
        if report.fingerprint != self.fingerprint {
            let problem = format!("the ring of {} differs from etcd", member.id);
            self.problems.push(problem);
        }
        // That nobody can connect to those that are gone is no news.
        let gone = &self.gone;
        let unreachable = report.unreachable.iter().filter(|it| !gone.contains(*it));
        self.problems.extend(unreachable.map(|other| {
            let id = &member.id;
            format!(
                "{id} can't connect to {other}; the log of {id} says why (is peer.listen open \
                 between them, and does each accept the other's certificate?)"
            )
        }));
        // An older release doesn't report its groups.
        if let Some(own) = report.groups {
            let (first, groups) = self.groups.get_or_insert((member.id.clone(), own.clone()));
            let differences = differences(groups, &own).into_iter();
            self.problems
                .extend(differences.map(|what| {
                    format!("{first} and {} have different groups: {what}", member.id)
                }));
        }
        self.nodes.push(NodeReport {
            id: member.id.to_string(),
            address: member.address.to_string(),
            members: report.members.len(),
            revision: report.revision,
            fingerprint: report.fingerprint,
            get,
        });
    }

    fn compare_revisions(&mut self) {
        let revisions: BTreeSet<u64> = self.nodes.iter().map(|node| node.revision).collect();
        if revisions.len() > 1 {
            let problem = format!("the nodes are at different revisions: {revisions:?}");
            self.problems.push(problem);
        }
    }

    fn print(&self, as_json: bool) -> Result<(), Failure> {
        let Self {
            nodes, problems, ..
        } = self;
        let ok = problems.is_empty();
        if as_json {
            print_json(&json!({ "ok": ok, "nodes": nodes, "problems": problems }))?;
        } else {
            for node in nodes {
                let members = counted(node.members as u64, "member", "members");
                let got = node.get.as_ref();
                let got = got.map_or_else(String::new, |got| format!(", get: {got}"));
                print_line(&format!(
                    "{} at {}: {members}, revision {}, fingerprint {}{got}",
                    node.id, node.address, node.revision, node.fingerprint
                ))?;
            }
        }
        match (ok, as_json) {
            (true, true) => Ok(()),
            (true, false) => {
                let agree = counted(self.wanted as u64, "node agrees", "nodes agree");
                print_line(&format!("ok: {agree}"))
            }
            (false, _) => Err(Failure::Failed(problems.join("\n  "))),
        }
    }
}

/// What differs between the groups of two nodes.
fn differences(first: &[GroupReport], second: &[GroupReport]) -> Vec<String> {
    let find = |groups: &[GroupReport], name: &str| {
        groups.iter().find(|group| group.name == name).cloned()
    };
    let names: BTreeSet<&String> = first
        .iter()
        .chain(second)
        .map(|group| &group.name)
        .collect();
    let mut differences = Vec::new();
    for name in names {
        let (Some(first), Some(second)) = (find(first, name), find(second, name)) else {
            differences.push(format!("only one has '{name}'"));
            continue;
        };
        for (setting, first, second) in [
            ("ttl_seconds", first.ttl_seconds, second.ttl_seconds),
            (
                "negative_ttl_seconds",
                first.negative_ttl_seconds,
                second.negative_ttl_seconds,
            ),
            ("max_value", first.max_value as f64, second.max_value as f64),
        ] {
            if first != second {
                differences.push(format!("{setting} of '{name}' is {first} and {second}"));
            }
        }
    }
    differences
}

/// The node's view of the ring and its groups, after it has also answered a get.
async fn ask(
    member: &Member,
    args: &CheckArgs,
    tls: &Tls,
    bearer: &Bearer,
) -> Result<(RingReport, Option<String>), String> {
    let admin = admin_of(member)?;
    let report = tokio::time::timeout(TIMEOUT, fetch_report(&admin, tls, None, None)).await;
    let report = report.map_err(|_| "the admin listener did not answer in time".to_owned())?;
    let report = report.map_err(|why| why.to_string())?;
    let got = match args.group.as_ref().zip(args.key.as_ref()) {
        Some((group, key)) => Some(get(member, tls, bearer, (group, key)).await?),
        None => None,
    };
    Ok((report, got))
}

async fn get(
    member: &Member,
    tls: &Tls,
    bearer: &Bearer,
    (group, key): (&str, &str),
) -> Result<String, String> {
    let mut client = connect(&grpc_of(member), tls, bearer, TIMEOUT).await?;
    let request = GetRequest {
        group: group.to_owned(),
        key: key.to_owned(),
    };
    match client.get(request).await {
        Ok(got) => Ok(counted(
            got.into_inner().value.len() as u64,
            "byte",
            "bytes",
        )),
        Err(status) => match from_status(&status) {
            Some(error) if error.kind() == ErrorKind::NotFound => Ok("no such key".into()),
            Some(error) => {
                let (kind, message) = (error.kind().name(), error.message());
                Err(format!("get {key}: {}", with_hint(message, Some(kind))))
            }
            None => Err(format!(
                "get {key}: {}: {}",
                status.code(),
                status.message()
            )),
        },
    }
}
