//! The settings as plain values, section by section. What each means is in the table (`schema`).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use super::{
    access::{AdminSettings, AuthSettings, GrpcSettings, HttpSettings},
    listener_tls::ListenerTlsSettings,
};
use crate::{settings::Replicate, telemetry::requests::Logged};
use gaocache_core::store::MemoryQuota;

/// All settings of the program, as they took effect.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// `[node]`
    pub node: NodeSettings,
    /// `[grpc]`
    pub grpc: GrpcSettings,
    /// `[http]`
    pub http: HttpSettings,
    /// `[redis]`
    pub redis: RedisSettings,
    /// `[admin]`
    pub admin: AdminSettings,
    /// `[auth]`
    pub auth: AuthSettings,
    /// `[registry]`
    pub registry: RegistrySettings,
    /// `[peer]`
    pub peer: PeerSettings,
    /// `[cache]`
    pub cache: CacheSettings,
    /// `[limits]`
    pub limits: LimitSettings,
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
    pub id: String,
    pub advertise_host: String,
    pub zone: String,
    pub zone_file: PathBuf,
    pub weight: u32,
    pub worker_threads: usize,
    pub drain_timeout_seconds: f64,
    pub proxy_from_environment: bool,
    pub shutdown_timeout_seconds: f64,
}

/// `[redis]`
#[derive(Clone, Debug, Deserialize)]
pub struct RedisSettings {
    #[serde(deserialize_with = "socket")]
    pub listen: Option<SocketAddr>,
    pub tls: ListenerTlsSettings,
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
    pub kind: RegistryKind,
    pub service: String,
    pub cluster_id: String,
    #[serde(rename = "static")]
    pub fixed: StaticSettings,
    pub etcd: EtcdSettings,
}

/// `[registry.static]`
#[derive(Clone, Debug, Deserialize)]
pub struct StaticSettings {
    pub peers: Vec<String>,
}

/// `[registry.etcd]`
#[derive(Clone, Debug, Deserialize)]
pub struct EtcdSettings {
    pub endpoints: Vec<String>,
    pub lease_ttl_seconds: u64,
    pub username: String,
    pub password_file: PathBuf,
    pub tls: TlsSettings,
}

/// `[registry.etcd.tls]` and `[peer.tls]`
#[derive(Clone, Debug, Deserialize)]
pub struct TlsSettings {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `[peer]`
#[derive(Clone, Debug, Deserialize)]
pub struct PeerSettings {
    pub listen: SocketAddr,
    pub insecure: bool,
    pub tls: TlsSettings,
    pub allowed_peers: Vec<String>,
    pub connect_timeout_seconds: f64,
    pub timeout_seconds: f64,
}

/// `[cache]`
#[derive(Clone, Debug, Deserialize)]
pub struct CacheSettings {
    #[serde(deserialize_with = "bytes")]
    pub capacity: u64,
    #[serde(deserialize_with = "bytes")]
    pub in_flight: u64,
    pub hot_after_requests: u32,
    pub replicas: usize,
    pub replicate: Replicate,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
pub struct LimitSettings {
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub max_admin_connections: usize,
    pub max_admin_connections_per_address: usize,
    pub reserved_descriptors: usize,
    pub handshake_timeout_seconds: f64,
    pub idle_timeout_seconds: f64,
    pub read_timeout_seconds: f64,
    pub write_timeout_seconds: f64,
    pub untrusted_timeout_seconds: f64,
    pub max_control_frames_per_second: u32,
    pub max_keys_per_request: usize,
    pub max_requests_per_second_per_client: u32,
    pub max_misses_per_client: usize,
}

/// `[handoff]`
#[derive(Clone, Debug, Deserialize)]
pub struct HandoffSettings {
    #[serde(deserialize_with = "bytes")]
    pub max_bytes_per_second: u64,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
pub struct LogSettings {
    pub level: String,
    pub format: LogFormat,
    pub keys: bool,
    pub requests: Logged,
    pub slow_seconds: f64,
    pub max_requests_per_second: u64,
    pub audit: String,
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

/// Which requests are sampled: the values of `OTEL_TRACES_SAMPLER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Sampler {
    /// As the caller decided; without a caller's decision, a ratio.
    #[serde(rename = "parentbased_traceidratio")]
    ParentBasedRatio,
    /// As the caller decided; otherwise all.
    #[serde(rename = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As the caller decided; otherwise none.
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
    pub enabled: bool,
    pub endpoint: String,
    pub ca: PathBuf,
    pub sampler: Sampler,
    pub sample_ratio: f64,
    pub service_name: String,
    pub keys: bool,
    pub trust_clients: bool,
    pub max_queue: usize,
    pub timeout_seconds: f64,
}

impl TraceSettings {
    /// Whether any spans are recorded.
    pub fn is_on(&self) -> bool {
        self.enabled && !self.endpoint.is_empty()
    }
}

/// `[[groups]]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GroupSettings {
    pub name: String,
    pub ttl_seconds: f64,
    pub negative_ttl_seconds: f64,
    pub max_ttl_seconds: f64,
    pub ttl_jitter: f64,
    pub stale_while_revalidate_seconds: f64,
    pub stale_if_error_seconds: f64,
    pub error_ttl_seconds: f64,
    pub soft_timeout_seconds: f64,
    pub refresh_ahead: bool,
    pub query: QueryRule,
    #[serde(deserialize_with = "bytes")]
    pub max_value: u64,
    pub memory_share: f64,
    pub memory_limit: f64,
    pub origin: OriginSettings,
}

impl GroupSettings {
    /// What the group may have of the memory.
    pub fn memory(&self) -> MemoryQuota {
        MemoryQuota {
            share: self.memory_share,
            limit: match self.memory_limit {
                0.0 => MemoryQuota::NONE.limit,
                limit => limit,
            },
        }
    }
}

/// What a query string after a key means over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryRule {
    /// The request is refused.
    Refuse,
    /// It belongs to the key.
    Append,
    /// Nothing.
    Ignore,
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
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct OriginSettings {
    pub kind: OriginKind,
    pub url: String,
    pub ca: PathBuf,
    pub path: PathBuf,
    pub ramp_seconds: f64,
    pub timeout_seconds: f64,
    pub retries: usize,
    pub max_concurrency: usize,
    pub max_queue: usize,
    pub breaker_failure_ratio: f64,
    pub breaker_slow_ratio: f64,
    pub breaker_slow_seconds: f64,
    pub breaker_min_loads: u32,
    pub breaker_open_seconds: f64,
    pub cancel_abandoned: bool,
    pub hedge: bool,
    #[serde(deserialize_with = "bytes")]
    pub compress_min_bytes: u64,
    pub honour_cache_control: bool,
    pub keep_headers: Vec<String>,
    pub keep_not_found_body: bool,
    pub headers: BTreeMap<String, String>,
    pub header_files: BTreeMap<String, PathBuf>,
}

/// Converts a setting in seconds to a duration. Validation has already checked its range.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

/// Converts a setting that names a file; `None` if it is empty.
pub fn file(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

fn socket<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let given = (!text.is_empty()).then(|| text.parse());
    given.transpose().map_err(serde::de::Error::custom)
}

fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(serde::de::Error::custom)
}
