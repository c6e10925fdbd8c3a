//! The settings as plain values, section by section.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    access::{AdminSettings, AuthSettings, GrpcSettings, HttpSettings},
    listener_tls::ListenerTlsSettings,
};
use crate::{settings::Replicate, telemetry::requests::Logged};

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
    /// Stable over restarts.
    pub id: String,
    /// The host at which other nodes reach this node.
    pub advertise_host: String,
    /// Where it runs.
    pub zone: String,
    /// Share of the keys, relative to the other nodes.
    pub weight: u32,
    /// Threads that serve reads; 0: one per core.
    pub worker_threads: usize,
    /// Time limit for leaving the ring and handing the entries over.
    pub drain_timeout_seconds: f64,
    /// Whether proxies of the environment are used.
    pub proxy_from_environment: bool,
    /// Time limit for requests that are still open after the drain.
    pub shutdown_timeout_seconds: f64,
}

/// `[redis]`
#[derive(Clone, Debug, Deserialize)]
pub struct RedisSettings {
    /// Address and port; `None`: there is no such listener.
    #[serde(deserialize_with = "socket")]
    pub listen: Option<SocketAddr>,
    /// `[redis.tls]`
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
    /// User name, if etcd requires one.
    pub username: String,
    /// File with the password.
    pub password_file: PathBuf,
    /// `[registry.etcd.tls]`
    pub tls: TlsSettings,
}

/// `[registry.etcd.tls]` and `[peer.tls]`
#[derive(Clone, Debug, Deserialize)]
pub struct TlsSettings {
    /// File with the CA certificates for the other end's certificate.
    pub ca: PathBuf,
    /// File with this node's certificate.
    pub cert: PathBuf,
    /// File with its key.
    pub key: PathBuf,
}

/// `[peer]`
#[derive(Clone, Debug, Deserialize)]
pub struct PeerSettings {
    /// Address and port for other nodes.
    pub listen: SocketAddr,
    /// Whether nodes need not prove who they are.
    pub insecure: bool,
    /// `[peer.tls]`
    pub tls: TlsSettings,
    /// Names that the certificates of nodes may have.
    pub allowed_peers: Vec<String>,
    /// Bound on connecting.
    pub connect_timeout_seconds: f64,
    /// Time limit for a call, including the load from the origin.
    pub timeout_seconds: f64,
}

/// `[cache]`
#[derive(Clone, Debug, Deserialize)]
pub struct CacheSettings {
    /// Bytes for all entries of all groups.
    #[serde(deserialize_with = "bytes")]
    pub capacity: u64,
    /// Limit on bytes in flight beside the entries; 0: an eighth of the capacity.
    #[serde(deserialize_with = "bytes")]
    pub in_flight: u64,
    /// Requests within five to ten seconds that make another member's key hot; 0: never.
    pub hot_after_requests: u32,
    /// Number of members that hold each key: 1 or 2.
    pub replicas: usize,
    /// Which entries the second member holds.
    pub replicate: Replicate,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
pub struct LimitSettings {
    /// Connections of clients.
    pub max_connections: usize,
    /// Connections from one address.
    pub max_connections_per_address: usize,
    /// Connections of the admin listener.
    pub max_admin_connections: usize,
    /// Those from one address.
    pub max_admin_connections_per_address: usize,
    /// Files that the process may open, of which clients take none.
    pub reserved_descriptors: usize,
    /// Bound on the HTTP/2 preface, and on the head of an HTTP/1 request.
    pub handshake_timeout_seconds: f64,
    /// Bound on a connection without any request.
    pub idle_timeout_seconds: f64,
    /// Bound on the arrival of a request.
    pub read_timeout_seconds: f64,
    /// Bound on an answer without progress.
    pub write_timeout_seconds: f64,
    /// Bound on control frames without data.
    pub max_control_frames_per_second: u32,
    /// Keys of one `GetMany`.
    pub max_keys_per_request: usize,
}

/// `[handoff]`
#[derive(Clone, Debug, Deserialize)]
pub struct HandoffSettings {
    /// Limit on the rate of handoff in the background.
    #[serde(deserialize_with = "bytes")]
    pub max_bytes_per_second: u64,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
pub struct LogSettings {
    /// A filter in the syntax of tracing's `EnvFilter`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Whether lines name keys.
    pub keys: bool,
    /// Which gets have a line of their own.
    pub requests: Logged,
    /// What takes so long is slow.
    pub slow_seconds: f64,
    /// Lines about requests, at most.
    pub max_requests_per_second: u64,
    /// `off`, `stdout`, `stderr`, or a file.
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
    /// If false, there are no spans, even with an endpoint.
    pub enabled: bool,
    /// The OTLP receiver; empty: no spans.
    pub endpoint: String,
    /// File with the CA certificates for the receiver's certificate; empty: the system's.
    pub ca: PathBuf,
    /// Which requests are sampled.
    pub sampler: Sampler,
    /// The ratio, for the samplers that use one.
    pub sample_ratio: f64,
    /// The service name in traces.
    pub service_name: String,
    /// Whether spans tell keys.
    pub keys: bool,
    /// Whether a client's `traceparent` is believed.
    pub trust_clients: bool,
    /// Maximum number of spans that wait to be sent.
    pub max_queue: usize,
    /// Bound on sending a batch.
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
    /// Its name.
    pub name: String,
    /// Time to live; 0: no expiry.
    pub ttl_seconds: f64,
    /// How long to remember that a key does not exist.
    pub negative_ttl_seconds: f64,
    /// Maximum lifetime of a value; 0: no limit.
    pub max_ttl_seconds: f64,
    /// The largest ratio by which a lifetime is shortened.
    pub ttl_jitter: f64,
    /// How long past its lifetime a value is served while it is loaded anew.
    pub stale_while_revalidate_seconds: f64,
    /// How long past its lifetime a value is served if its load fails.
    pub stale_if_error_seconds: f64,
    /// How long to remember that a load failed.
    pub error_ttl_seconds: f64,
    /// How long a get waits for a load before it is answered with the value before; 0: to its end.
    pub soft_timeout_seconds: f64,
    /// Whether values in use are loaded anew before their lives end.
    pub refresh_ahead: bool,
    /// What a query string means over HTTP.
    pub query: QueryRule,
    /// Maximum size of a value, in bytes.
    #[serde(deserialize_with = "bytes")]
    pub max_value: u64,
    /// `[groups.origin]`
    pub origin: OriginSettings,
}

/// What a query string means that comes with a key over HTTP.
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
    /// Which.
    pub kind: OriginKind,
    /// For `http`: the URL with `{key}` in its path or query.
    pub url: String,
    /// For `file`: the folder.
    pub path: PathBuf,
    /// Time in which the concurrency grows to its limit, from the first load on; 0: no ramp.
    pub ramp_seconds: f64,
    /// Bound on one attempt.
    pub timeout_seconds: f64,
    /// Further attempts after a transient failure.
    pub retries: usize,
    /// Loads at the same time.
    pub max_concurrency: usize,
    /// Maximum number of loads that wait for a free slot.
    pub max_queue: usize,
    /// Ratio of failed loads that opens the breaker; 0: none does.
    pub breaker_failure_ratio: f64,
    /// Ratio of slow loads that opens the breaker; 0: none does.
    pub breaker_slow_ratio: f64,
    /// What is slow.
    pub breaker_slow_seconds: f64,
    /// Fewer loads never open the breaker.
    pub breaker_min_loads: u32,
    /// How long the breaker stays open.
    pub breaker_open_seconds: f64,
    /// Whether the origin's `Cache-Control` overrides the group's time to live.
    pub honour_cache_control: bool,
    /// Further headers that are kept with a value.
    pub keep_headers: Vec<String>,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
}

/// Converts a setting in seconds to a duration. Validation has already checked its range.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
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
