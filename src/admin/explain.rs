//! `GET /explain?group=G&key=K`: what this node knows of a key, and what the members that are to
//! hold it have in memory.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::state::Admin;
use crate::auth::{Action, Caller};
use crate::status::http::failed;
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Explained, Group, Held},
    membership::Member,
    metadata::Metadata,
    store::GoneReason,
};

/// Questions at a time: each asks other members.
static QUESTIONS: Semaphore = Semaphore::const_new(16);

#[derive(Deserialize)]
pub(super) struct Question {
    group: String,
    key: String,
}

/// The handler.
pub(super) async fn explain(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    question: Result<Query<Question>, QueryRejection>,
) -> Response {
    let Ok(Query(question)) = question else {
        let what = "say which key, as in GET /explain?group=users&key=42";
        return failed(&Error::new(ErrorKind::InvalidRequest, what));
    };
    // Whether a key is held tells something of it.
    let allowed = admin
        .permissions
        .check(&caller, Action::Read, &question.group);
    if let Err(refusal) = allowed {
        return failed(&refusal.into());
    }
    let Ok(_place) = QUESTIONS.try_acquire() else {
        let what = "too many keys are being explained";
        return failed(&Error::new(ErrorKind::Overloaded, what));
    };
    match answer(&admin, &question).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => failed(&error),
    }
}

async fn answer(admin: &Admin, Question { group, key }: &Question) -> Result<Value> {
    let group = admin.groups.get(group)?;
    let known = group.explain(key).await?;
    let metrics = admin.metrics.group(group.name());
    Ok(json!({
        "node": &*admin.id,
        "group": group.name().to_string(),
        "key": key,
        "owner": known.ranked.first().map(member),
        "replica": known.ranked.get(1).filter(|_| known.replicated).map(member),
        "held": held(&admin.id, &group, &known),
        "not_asked": not_asked(&known),
        "removed_lately": known.removed,
        "sure_to_be_a_member": known.sure,
        "last_departure": known.last_departure.map(why),
        "remembered_failure": known.failure.as_ref().map(failure),
        "breaker": metrics.breaker_name(),
        "last_load": metrics.loads.of(key),
        "last_miss": metrics.misses.of(key),
    }))
}

fn member(member: &Member) -> Value {
    json!({
        "id": member.id.to_string(),
        "zone": member.zone.to_string(),
        "address": member.address.to_string(),
        "admin": (member.admin_port != 0).then(|| member.admin_address()),
        "state": member.state_name(),
    })
}

fn held(me: &str, group: &Group, known: &Explained) -> Vec<Value> {
    let ttl = group.rules().ttl;
    let show = |node: &str, tier: &str, it: &Held| {
        json!({
            "node": node,
            "tier": tier,
            "exists": it.bytes.is_some(),
            "bytes": it.metadata.plain_bytes().or(it.bytes.map(|it| it as u64)),
            "compressed_bytes": it.bytes.filter(|_| it.metadata.plain_bytes().is_some()),
            "etag": etag(it),
            "stale": it.stale,
            "ttl_remaining_seconds": it.left.map(|left| left.as_secs_f64()),
            "age_seconds": age(ttl, it),
            "uses": it.use_count,
            "headers": headers(&it.metadata),
            "tags": it.metadata.tags().count(),
        })
    };
    let here = [("owned", &known.owned), ("hot", &known.hot)];
    let here = here
        .into_iter()
        .filter_map(|(tier, it)| Some(show(me, tier, it.as_ref()?)));
    let others = known.others.iter();
    let others = others.filter_map(|(id, it)| Some(show(id, "owned", it.as_ref().ok()?.as_ref()?)));
    here.chain(others).collect()
}

/// What the HTTP listener sends as `ETag`; `None` where there is no value.
fn etag(it: &Held) -> Option<String> {
    it.bytes?;
    let said = it.metadata.get("etag").map(str::to_owned);
    Some(said.unwrap_or_else(|| format!("\"{:016x}\"", it.entity_tag)))
}

/// What the origin said of the value, in its order.
fn headers(metadata: &Metadata) -> Vec<Value> {
    let header = |(name, value): (&str, &str)| json!({ "name": name, "value": value });
    metadata.iter().map(header).collect()
}

/// How old a value is, if its TTL is the group's. Entries don't keep the time of their load.
fn age(ttl: Option<Duration>, it: &Held) -> Option<f64> {
    // For a stale one, it is not known how long ago it expired.
    if it.bytes.is_none() || it.stale {
        return None;
    }
    let age = ttl?.checked_sub(it.left?)?;
    Some(age.as_secs_f64())
}

fn not_asked(known: &Explained) -> Vec<Value> {
    let failed = known.others.iter();
    let failed = failed.filter_map(|(id, it)| Some((id, it.as_ref().err()?)));
    failed
        .map(|(id, problem)| json!({ "node": id.to_string(), "problem": problem }))
        .collect()
}

/// The error that gets of the key end with for so long.
fn failure(error: &Error) -> Value {
    json!({
        "error": error.kind().name(),
        "message": error.message(),
        "remaining_seconds": error.retry_after().map(|left| left.as_secs_f64()),
    })
}

fn why(left: GoneReason) -> &'static str {
    match left {
        GoneReason::Evicted => "evicted",
        GoneReason::Expired => "expired",
        GoneReason::Dropped => "removed, purged or handed over",
    }
}
