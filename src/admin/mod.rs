//! The admin listener: probes, metrics, the ring as JSON, and the admin page. Neither may the load
//! of clients starve it, nor may it hold up anything: it runs on a thread of its own.

mod changes;
mod events;
mod explain;
mod report;
mod scrapes;
mod settings;
mod state;

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{
    auth::{Call, Caller},
    status::http::{failed, no_such_path, not_allowed, not_here},
    telemetry::level::LogLevel,
};
pub use changes::{Changes, RingChange};
use gaocache_core::error::{Error, ErrorKind};
#[cfg(feature = "cli")]
pub use report::{GroupReport, MemberReport, OwnerReport};
pub use report::{RingReport, report};
use report::{group_reports, owners, unreachable};
pub use scrapes::Scrapes;
pub use state::{Admin, Readiness};
#[cfg(feature = "cli")]
pub use state::{Reloads, Wish};

/// Longest wait of `/ring?unlike=`. After that, clients ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Most requests that wait so at a time.
static WAITERS: Semaphore = Semaphore::const_new(64);

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/events", get(events::stream))
        .route("/log", get(log_level).put(set_log_level))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/ring", get(ring))
        .route("/explain", get(explain::explain))
        .route("/config", get(settings::in_force))
        .route("/reload", post(settings::reload))
        .route("/forget", post(settings::forget))
        .fallback(async || no_such_path("no such path; see docs/api.md"))
        .method_not_allowed_fallback(async || not_allowed("this path doesn't support this method"))
        .with_state(admin)
}

/// The page needs nothing from other hosts, and must not load anything from them.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn page() -> Response {
    let policy = HeaderValue::from_static(POLICY);
    let headers = [(CONTENT_SECURITY_POLICY, policy)];
    (headers, Html(include_str!("page.html"))).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let why_not = admin.readiness.borrow().clone();
    if why_not.is_empty() {
        "ready\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why_not}\n"),
        )
            .into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let scrapes = admin.scrapes.clone();
    match scrapes.join(move || admin.render()).await {
        Ok(text) => {
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4");
            ([(CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
struct LogQuery {
    /// In the syntax of the setting `log.level`.
    level: String,
}

async fn log_level() -> Response {
    match LogLevel::of_process() {
        Some(level) => format!("{}\n", level.text()).into_response(),
        None => no_log(),
    }
}

async fn set_log_level(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        let what = "the query parameter level is missing, as in PUT /log?level=debug";
        return failed(&Error::new(ErrorKind::InvalidRequest, what));
    };
    let call = Call::admin("log_level", Some(("level", &query.level)));
    let level = LogLevel::of_process();
    // Wrong here is what the caller said, not the node's settings.
    let wrong = |why: &str| Error::new(ErrorKind::InvalidRequest, why);
    let set = async {
        let set = level.map(|level| level.set(&query.level));
        let set = set.unwrap_or_else(|| Err(wrong(NO_LOG)));
        set.map_err(|error| wrong(error.message()))
    };
    match admin.permissions.run(&caller, call, set).await {
        Ok(()) => format!("{}\n", query.level).into_response(),
        Err(error) if error.message() == NO_LOG => no_log(),
        Err(error) => failed(&error),
    }
}

const NO_LOG: &str = "the log of this process is not managed by gaocache";

fn no_log() -> Response {
    not_here(NO_LOG)
}

#[derive(Deserialize)]
struct RingQuery {
    /// If set, the report includes the owner of this key in each group.
    key: Option<String>,
    /// If set, waits up to thirty seconds for a ring with a different fingerprint.
    unlike: Option<String>,
}

async fn ring(State(admin): State<Admin>, Query(query): Query<RingQuery>) -> Response {
    if let Some(known) = query.unlike {
        let Ok(_waiter) = WAITERS.try_acquire() else {
            let retry = [(RETRY_AFTER, HeaderValue::from_static("1"))];
            let text = "too many requests wait for a change of the ring at this node\n";
            return (StatusCode::SERVICE_UNAVAILABLE, retry, text).into_response();
        };
        let mut rings = admin.cluster.rings();
        let other = rings.wait_for(|ring| ring.view.fingerprint().to_string() != known);
        let other = admin.stop.run_until_cancelled(other);
        // If the wait times out, the answer is the current ring.
        let _ = tokio::time::timeout(LONGEST_WAIT, other).await;
    }
    let topology = admin.cluster.snapshot();
    let owners = query.key.map(|key| owners(&admin.groups, &topology, &key));
    let mut report = report(&admin.id, &topology, owners.unwrap_or_default());
    report.groups = Some(group_reports(&admin.groups));
    report.unreachable = unreachable(&topology, &*admin.peers);
    Json(report).into_response()
}
