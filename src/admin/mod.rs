//! The admin listener: probes, metrics, the ring as JSON, and the admin page. Neither may the load
//! of clients starve it, nor may it hold up anything: it runs on a thread of its own.

mod events;
mod explain;
mod scrapes;
mod settings;

use std::{sync::Arc, time::Duration};

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
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Call, Caller, Permissions},
    status::http::{failed, no_such_path, not_allowed, not_here},
    telemetry::{level::LogLevel, metrics::Metrics},
    traffic::Budget,
};
pub use events::{Changes, RingChange};
use gaocache_core::{
    cluster::{Cluster, Topology},
    error::{Error, ErrorKind, Result},
    group::Groups,
    store::Store,
};
pub use scrapes::Scrapes;
pub use settings::Reloads;
#[cfg(feature = "cli")]
pub use settings::Wish;

/// Longest wait of `/ring?unlike=`. After that, clients ask again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Most requests that wait so at a time.
static WAITERS: Semaphore = Semaphore::const_new(64);

/// Why a node is not ready; empty if it is ready.
pub type Readiness = watch::Receiver<Arc<str>>;

/// The data that the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    /// This node's id.
    pub id: Arc<str>,
    /// Why it is not ready.
    pub readiness: Readiness,
    /// Its cluster, with the ring in force.
    pub cluster: Arc<Cluster>,
    /// Its groups.
    pub groups: Groups,
    /// Who may do what.
    pub(crate) permissions: Permissions,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    /// The latest ring changes.
    pub changes: Changes,
    /// Its stores, by tier.
    pub stores: Arc<[(&'static str, Arc<Store>)]>,
    /// The bytes in flight.
    pub budget: Arc<Budget>,
    /// The rendering of the metrics that scrapes of one moment share.
    pub scrapes: Scrapes,
    /// The settings in force; `None` where the program around the node has its own.
    pub settings: Option<Reloads>,
    /// Cancelled when the listener is to close: nobody is kept waiting then.
    pub stop: CancellationToken,
}

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
        .fallback(async || no_such_path(StatusCode::NOT_FOUND, "no such path; see docs/api.md"))
        .method_not_allowed_fallback(async || not_allowed("this path takes another method"))
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

impl Admin {
    fn render(&self) -> Result<Bytes> {
        let budget = &self.budget;
        self.metrics
            .connections
            .in_flight(budget.used(), budget.limit(), budget.refused());
        for (tier, store) in self.stores.iter() {
            self.metrics.stores.holds(tier, store.capacity());
            for group in self.groups.ever() {
                let stats = store.stats(group.id());
                self.metrics.stores.of_group(group.name(), tier, stats);
            }
        }
        self.metrics.render().map(Bytes::from)
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
        let what = "say which level, as in PUT /log?level=debug";
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

/// The ring, as served by `/ring` and read by `gaocache ring`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RingReport {
    /// The id of the reporting node.
    pub node: String,
    /// The registry's revision.
    pub revision: u64,
    /// Equal on nodes that know the same members.
    pub fingerprint: String,
    /// All members, including draining ones, ordered by id.
    pub members: Vec<MemberReport>,
    /// The owner of the requested key in each group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerReport>,
    /// The reporting node's groups, by name. All nodes must have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupReport>>,
}

/// A group in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// How long values are kept; 0: no limit.
    pub ttl_seconds: f64,
    /// How long a node remembers that a key does not exist.
    pub negative_ttl_seconds: f64,
    /// Maximum size of a value, in bytes.
    pub max_value: u64,
}

/// A member in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Stays the same across restarts.
    pub id: String,
    /// The address of its gRPC listener.
    pub address: String,
    /// Where the member runs.
    pub zone: String,
    /// Its weight relative to the other members.
    pub weight: u32,
    /// `serving`, `draining`, `joining`, or `vanished`: its registration has ended although it did
    /// not leave, and the others have not taken it off the list yet.
    pub state: String,
    /// The release it runs.
    pub version: String,
    /// The lease of its registration, as etcd writes it; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Its share of all keys, 0 to 1.
    pub share: f64,
    /// The registry's revision at which it came into the ring; 0: not known.
    #[serde(default)]
    pub since: u64,
}

/// An owner in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnerReport {
    /// The group.
    pub group: String,
    /// The owner's id; empty if there is no ring yet.
    pub owner: String,
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
    Json(report).into_response()
}

fn group_reports(groups: &Groups) -> Vec<GroupReport> {
    let reports = groups.iter().map(|group| {
        let rules = group.rules();
        GroupReport {
            name: rules.name.to_string(),
            ttl_seconds: rules.ttl.unwrap_or_default().as_secs_f64(),
            negative_ttl_seconds: rules.negative_ttl.as_secs_f64(),
            max_value: rules.max_value,
        }
    });
    let mut reports: Vec<GroupReport> = reports.collect();
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    reports
}

fn owners(groups: &Groups, topology: &Topology, key: &str) -> Vec<OwnerReport> {
    let owner = |hash| topology.owner_id(hash).map(ToString::to_string);
    let mut owners: Vec<OwnerReport> = groups
        .iter()
        .map(|group| OwnerReport {
            group: group.name().to_string(),
            owner: owner(group.hash(key)).unwrap_or_default(),
        })
        .collect();
    owners.sort_by(|a, b| a.group.cmp(&b.group));
    owners
}

/// Converts a topology to a report.
pub fn report(node: &str, topology: &Topology, owners: Vec<OwnerReport>) -> RingReport {
    let members = topology.view.members.iter().enumerate();
    RingReport {
        node: node.to_owned(),
        revision: topology.view.revision,
        fingerprint: topology.view.fingerprint().to_string(),
        members: members
            .map(|(at, member)| MemberReport {
                id: member.id.to_string(),
                address: member.address.to_string(),
                zone: member.zone.to_string(),
                weight: member.weight,
                state: member.state_name().to_owned(),
                version: member.version.to_string(),
                lease: (member.lease != 0).then(|| format!("{:x}", member.lease)),
                share: topology.share(at),
                since: member.since,
            })
            .collect(),
        owners,
        groups: None,
    }
}
