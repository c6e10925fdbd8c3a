//! The settings as plain values, section by section.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::settings::Replicate;

/// All settings of the program, as they came in force.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// `[node]`
    pub node: NodeSettings,
    /// `[grpc]`
    pub grpc: ListenSettings,
    /// `[http]`
    pub http: ListenSettings,
    /// `[admin]`
    pub admin: ListenSettings,
    /// `[registry]`
    pub registry: RegistrySettings,
    /// `[peers]`
    pub peers: PeerSettings,
    /// `[cache]`
    pub cache: CacheSettings,
    /// `[handoff]`
    pub handoff: HandoffSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[trace]`
    pub trace: TraceSettings,
    /// `[[groups]]`
    #[serde(default)]
    pub groups: Vec<GroupSettings>,
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
pub struct NodeSettings {
    /// Stable over restarts.
    pub id: String,
    /// The host that others reach this node at.
    pub advertise_host: String,
    /// Where it runs.
    pub zone: String,
    /// Share of the keys relative to the others.
    pub weight: u32,
    /// Threads that serve reads; 0: one a core.
    pub worker_threads: usize,
    /// Seconds to tell the others and to wait until they have seen it.
    pub drain_timeout_seconds: f64,
    /// Seconds for requests that are still open after the drain.
    pub shutdown_timeout_seconds: f64,
}

/// A listener.
#[derive(Clone, Debug, Deserialize)]
pub struct ListenSettings {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// Which registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// Leases in etcd.
    Etcd,
    /// A fixed list.
    Static,
    /// Nodes of one process.
    Memory,
}

/// `[registry]`
#[derive(Clone, Debug, Deserialize)]
pub struct RegistrySettings {
    /// Which.
    pub kind: RegistryKind,
    /// The name under which the nodes find each other.
    pub service: String,
    /// `[registry.static]`
    #[serde(rename = "static")]
    pub fixed: StaticSettings,
    /// `[registry.etcd]`
    pub etcd: EtcdSettings,
}

/// `[registry.static]`
#[derive(Clone, Debug, Deserialize)]
pub struct StaticSettings {
    /// `id=host:port` each.
    pub peers: Vec<String>,
}

/// `[registry.etcd]`
#[derive(Clone, Debug, Deserialize)]
pub struct EtcdSettings {
    /// URLs.
    pub endpoints: Vec<String>,
    /// Time to live of the lease.
    pub lease_ttl_seconds: u64,
    /// User, if etcd asks for one.
    pub username: String,
    /// File with the password.
    pub password_file: PathBuf,
    /// `[registry.etcd.tls]`
    pub tls: TlsSettings,
}

/// `[registry.etcd.tls]`
#[derive(Clone, Debug, Deserialize)]
pub struct TlsSettings {
    /// File with the authorities that sign etcd's certificate.
    pub ca: PathBuf,
    /// File with this node's certificate.
    pub cert: PathBuf,
    /// File with its key.
    pub key: PathBuf,
}

/// `[peers]`
#[derive(Clone, Debug, Deserialize)]
pub struct PeerSettings {
    /// Bound on connecting.
    pub connect_timeout_seconds: f64,
    /// Bound on a call, loading at the origin included.
    pub timeout_seconds: f64,
}

/// `[cache]`
#[derive(Clone, Debug, Deserialize)]
pub struct CacheSettings {
    /// Bytes for all entries of all groups.
    #[serde(deserialize_with = "bytes")]
    pub capacity: u64,
    /// Requests within five to ten seconds that make a key of another member hot; 0: never.
    pub hot_after_requests: u32,
    /// Members that hold each key: 1 or 2.
    pub replicas: usize,
    /// Which entries the second holds.
    pub replicate: Replicate,
}

/// `[handoff]`
#[derive(Clone, Debug, Deserialize)]
pub struct HandoffSettings {
    /// Bound on what goes out in the background.
    #[serde(deserialize_with = "bytes")]
    pub max_bytes_per_second: u64,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
pub struct LogSettings {
    /// A filter as of tracing's EnvFilter.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Which requests are sampled: the words of `OTEL_TRACES_SAMPLER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Sampler {
    /// As the caller decided, else a share.
    #[serde(rename = "parentbased_traceidratio")]
    ParentBasedRatio,
    /// As the caller decided, else all.
    #[serde(rename = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As the caller decided, else none.
    #[serde(rename = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// A share.
    #[serde(rename = "traceidratio")]
    Ratio,
    /// All.
    #[serde(rename = "always_on")]
    AlwaysOn,
    /// None.
    #[serde(rename = "always_off")]
    AlwaysOff,
}

/// `[trace]`
#[derive(Clone, Debug, Deserialize)]
pub struct TraceSettings {
    /// False: no spans, whatever the endpoint.
    pub enabled: bool,
    /// The OTLP receiver; empty: no spans.
    pub endpoint: String,
    /// File with the authorities that sign its certificate; empty: the system's.
    pub ca: PathBuf,
    /// Which requests are sampled.
    pub sampler: Sampler,
    /// The share, for the samplers that take one.
    pub sample_ratio: f64,
    /// As what this service appears in traces.
    pub service_name: String,
    /// Whether spans tell keys.
    pub keys: bool,
    /// Spans that wait to be sent.
    pub max_queue: usize,
    /// Bound on sending a batch.
    pub timeout_seconds: f64,
}

impl TraceSettings {
    /// Whether there are spans at all.
    pub fn is_on(&self) -> bool {
        self.enabled && !self.endpoint.is_empty()
    }
}

/// `[[groups]]`
#[derive(Clone, Debug, Deserialize)]
pub struct GroupSettings {
    /// Its name.
    pub name: String,
    /// Time to live; 0: no expiry.
    pub ttl_seconds: f64,
    /// How long a missing key is kept in mind.
    pub negative_ttl_seconds: f64,
    /// Bytes of the largest value.
    #[serde(deserialize_with = "bytes")]
    pub max_value: u64,
    /// `[groups.origin]`
    pub origin: OriginSettings,
}

/// Which origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginKind {
    /// An HTTP service.
    Http,
    /// A folder of files.
    File,
}

/// `[groups.origin]`
#[derive(Clone, Debug, Deserialize)]
pub struct OriginSettings {
    /// Which.
    pub kind: OriginKind,
    /// For `http`: the URL with `{key}` in its path or query.
    pub url: String,
    /// For `file`: the folder.
    pub path: PathBuf,
    /// Seconds in which the concurrency grows to its bound after the start; 0: at once.
    pub ramp_seconds: f64,
    /// Bound on one attempt.
    pub timeout_seconds: f64,
    /// Further attempts after a failure that may pass.
    pub retries: usize,
    /// Loads at the same time.
    pub max_concurrency: usize,
    /// Loads that may wait for their turn.
    pub max_queue: usize,
    /// Whether the origin's `Cache-Control` decides on the time to live.
    pub honour_cache_control: bool,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
}

/// A setting in seconds as a duration. The check has seen that it is in range.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(serde::de::Error::custom)
}
