//! `gaocache explain`: what a node knows of a key, and what its owner does.

use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{
    address::Listener,
    admin::{Admin, AdminArgs, NoAnswer, Proof},
    cluster::{Cluster, Etcd, Whom},
    context::Context,
    failure::Failure,
    output::{counted, print_json, print_line, printable},
};
use crate::{clock::unix_seconds, registry::etcd::view};
use gaocache_core::{
    cluster::{Owner, Topology},
    ring::{group_seed, hash_key},
};

/// Time limit for the answer of a node: another one may be asked instead, and what one of two knows
/// is worth something without the other.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Name of the group
    group: String,
    /// The key
    key: String,
    /// Print JSON: what the node knows, and what the owner does if it is another one
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    cluster: Cluster,
}

pub(super) async fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let (admin, asked) = match args.etcd()? {
        Some((etcd, proof)) => ask_any(args, &etcd, &proof).await?,
        None => {
            let admin = args.admin.place().await?;
            let asked = ask(&admin, args).await.map_err(|why| admin.failed(why))?;
            (admin, asked)
        }
    };
    let owner = &asked["owner"];
    let owner = match owner["admin"].as_str() {
        Some(other) if owner["id"] != asked["node"] => Some(match admin.other(other) {
            Ok(admin) => ask(&admin, args).await,
            Err(problem) => Err(problem),
        }),
        _ => None,
    };
    if args.json {
        let (told, problem) = match owner {
            Some(Ok(told)) => (told, Value::Null),
            Some(Err(problem)) => (Value::Null, problem.to_string().into()),
            None => (Value::Null, Value::Null),
        };
        return print_json(&json!({
            "asked": asked,
            "owner": told,
            "owner_problem": problem,
        }));
    }
    for line in lines(&asked, owner.as_ref()) {
        print_line(&line)?;
    }
    Ok(())
}

impl ExplainArgs {
    /// Where the nodes are found, if no flag names one.
    fn etcd(&self) -> Result<Option<(Etcd, Proof)>, Failure> {
        let (context, named) = (Context::in_force()?, self.cluster.is_named());
        if self.admin.is_named() {
            let what = "--etcd finds the node to ask; leave out --admin and --socket";
            return if named {
                Err(Failure::Usage(what.into()))
            } else {
                Ok(None)
            };
        }
        match self.cluster.whom(None, &context, Listener::Admin)? {
            Some(Whom::Cluster(etcd)) => Ok(Some((etcd, self.admin.proof(&context, named)?))),
            _ => Ok(None),
        }
    }
}

/// Asks the key's owner, or else the first member in ring order that answers: each knows something.
async fn ask_any(
    args: &ExplainArgs,
    etcd: &Etcd,
    proof: &Proof,
) -> Result<(Admin, Value), Failure> {
    let (keys, discovery) = etcd.discover().await?;
    let topology = Topology::new("", view(&keys, &discovery.list()));
    let hash = hash_key(group_seed(&args.group), &args.key);
    let mut failure = etcd.nobody();
    for owner in topology.ranked(hash) {
        let Owner::Other(member) = owner else {
            continue;
        };
        let admin = Admin::of(member, proof).map_err(Failure::Failed)?;
        match ask(&admin, args).await {
            Ok(asked) => return Ok((admin, asked)),
            // Others would answer the same.
            Err(why) if why.is_answer() => return Err(admin.failed(why)),
            Err(why) => failure = admin.failed(why),
        }
    }
    Err(failure)
}

async fn ask(
    admin: &Admin,
    ExplainArgs { group, key, .. }: &ExplainArgs,
) -> Result<Value, NoAnswer> {
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (group, key) = (encoded(group), encoded(key));
    let path = format!("/explain?group={group}&key={key}");
    let answer = tokio::time::timeout(TIMEOUT, admin.get(&path)).await;
    let late = |_| format!("no answer within {} s", TIMEOUT.as_secs());
    let body = answer.map_err(late)??;
    serde_json::from_slice(&body)
        .map_err(|error| format!("the response is not an explanation: {error}").into())
}

/// For a person.
fn lines(asked: &Value, owner: Option<&Result<Value, NoAnswer>>) -> Vec<String> {
    let mut lines = vec![
        format!("owner      {}", place(&asked["owner"])),
        format!("replica    {}", place(&asked["replica"])),
    ];
    let told = owner.and_then(|told| told.as_ref().ok());
    let held = holders(asked, told);
    if held.is_empty() {
        lines.push("held       no node that was asked holds this key".into());
    }
    for it in held {
        lines.push(format!("held       {}", holder(it)));
        let headers = it["headers"].as_array().into_iter().flatten();
        let said =
            headers.map(|it| format!("           {}: {}", text(&it["name"]), text(&it["value"])));
        lines.extend(said);
    }
    let not_asked = asked["not_asked"].as_array().into_iter().flatten();
    lines.extend(
        not_asked.map(|it| format!("not asked  {}: {}", text(&it["node"]), text(&it["problem"]))),
    );
    for told in [Some(asked), told].into_iter().flatten() {
        let node = text(&told["node"]);
        lines.push(format!(
            "last load  {} (at {node})",
            note(&told["last_load"])
        ));
        lines.push(format!(
            "last miss  {} (at {node})",
            note(&told["last_miss"])
        ));
        lines.extend(
            reasons(told)
                .into_iter()
                .map(|why| format!("           {node}: {why}")),
        );
    }
    if let Some(Err(problem)) = owner {
        lines.push(format!(
            "           the owner could not be asked: {problem}"
        ));
    }
    lines
}

fn text(value: &Value) -> String {
    // Keys and ids come from elsewhere; they must not be able to control the terminal.
    printable(value.as_str().unwrap_or("?"))
}

fn place(member: &Value) -> String {
    if member.is_null() {
        return "none".into();
    }
    let zone = text(&member["zone"]);
    let zone = if zone.is_empty() {
        String::new()
    } else {
        format!(" in zone {zone}")
    };
    format!(
        "{}{zone}, at {}",
        text(&member["id"]),
        text(&member["address"])
    )
}

/// The nodes that hold the key. What the owner says about itself comes first: it tells other nodes
/// of fresh entries alone.
fn holders<'a>(asked: &'a Value, owner: Option<&'a Value>) -> Vec<&'a Value> {
    let held = |told: &'a Value| told["held"].as_array().into_iter().flatten();
    let is_owner_s = |it: &&Value| owner.is_some_and(|owner| it["node"] == owner["node"]);
    let own = owner.into_iter().flat_map(held).filter(is_owner_s);
    own.chain(held(asked).filter(|it| !is_owner_s(it)))
        .collect()
}

fn holder(it: &Value) -> String {
    let mut parts = vec![match it["bytes"].as_u64() {
        Some(bytes) => {
            let mut size = counted(bytes, "byte", "bytes");
            if let Some(compressed) = it["compressed_bytes"].as_u64() {
                size += &format!(" (kept as {compressed}, compressed)");
            }
            format!("{size}, etag {}", text(&it["etag"]))
        }
        None => "remembers that the origin has no such key".into(),
    }];
    if let Some(age) = it["age_seconds"].as_f64() {
        parts.push(format!("{age:.1} s old"));
    }
    parts.push(match it["ttl_remaining_seconds"].as_f64() {
        _ if it["stale"] == true => "expired, but still served as a stale value".into(),
        Some(left) => format!("expires in {left:.1} s"),
        None => "never expires".into(),
    });
    if let Some(tags) = it["tags"].as_u64().filter(|tags| *tags > 0) {
        parts.push(counted(tags, "tag", "tags"));
    }
    if let Some(uses) = it["uses"].as_u64() {
        parts.push(format!("used {}", counted(uses, "time", "times")));
    }
    format!(
        "by {} ({}): {}",
        text(&it["node"]),
        text(&it["tier"]),
        parts.join(", ")
    )
}

fn note(it: &Value) -> String {
    let Some(at) = it["at_seconds"].as_f64() else {
        return "none known".into();
    };
    let ago = (unix_seconds() - at).max(0.0);
    let took = it["took_seconds"].as_f64().unwrap_or_default();
    let error = it["error"].as_str();
    let error = error.map_or_else(String::new, |it| format!(": {}", printable(it)));
    format!(
        "{ago:.1} s ago, took {took:.3} s: {}{error}",
        text(&it["outcome"])
    )
}

/// Why a get may have missed.
fn reasons(told: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    if told["sure_to_be_a_member"] == false {
        reasons.push("not certain to be a member, so it doesn't answer from memory".into());
    }
    if told["removed_lately"] == true {
        reasons.push("removed recently, so only the origin is trusted".into());
    }
    if let Some(why) = told["last_departure"].as_str() {
        reasons.push(format!("no longer in memory: {why}"));
    }
    let failure = &told["remembered_failure"];
    if let Some(left) = failure["remaining_seconds"].as_f64() {
        reasons.push(format!(
            "the last load failed, and gets fail the same way for another {left:.1} s: {}: {}",
            text(&failure["error"]),
            text(&failure["message"])
        ));
    }
    match told["breaker"].as_str() {
        Some("open") => reasons.push("the circuit breaker of the group is open".into()),
        Some("half_open") => {
            reasons.push("the circuit breaker of the group is half-open: one load tests it".into());
        }
        _ => {}
    }
    reasons
}
