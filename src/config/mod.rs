//! Settings: plain values, validated once, before anything starts.
//!
//! Sources, each overriding the ones before it: defaults, platform (`POD_NAME`, `POD_IP`, host
//! name), TOML file, environment variables `GAOCACHE__SECTION__NAME`, flags
//! `--set section.name=value`. The core must not use any settings struct.

mod check;
pub mod load;
mod read;
pub mod schema;
mod walk;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

pub use load::{ConfigError, Loaded, Sources, load};

/// All settings.
#[derive(Clone, Debug, Deserialize)]
pub struct Settings {
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
    /// Stays the same across restarts.
    pub id: String,
    /// The host at which other nodes reach this node.
    pub advertise_host: String,
    /// Where the node runs.
    pub zone: String,
    /// Share of the keys, relative to the other nodes.
    pub weight: u32,
    /// Threads that serve reads; 0: one per core.
    pub worker_threads: usize,
    /// Time limit for leaving the ring and handing the entries over.
    pub drain_timeout_seconds: f64,
    /// Time limit for requests that are still open after the drain.
    pub shutdown_timeout_seconds: f64,
}

/// A listener.
#[derive(Clone, Debug, Deserialize)]
pub struct ListenSettings {
    /// Address and port; port 0 means any free port.
    pub listen: SocketAddr,
}

/// The kind of registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// Leases in etcd.
    Etcd,
    /// A fixed list.
    Static,
    /// Only the nodes of this process.
    Memory,
}

/// `[registry]`
#[derive(Clone, Debug, Deserialize)]
pub struct RegistrySettings {
    /// Its kind.
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
    /// All nodes, each as `id=host:port`.
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

/// `[registry.etcd.tls]`
#[derive(Clone, Debug, Deserialize)]
pub struct TlsSettings {
    /// File with the CA certificates for etcd's certificate.
    pub ca: PathBuf,
    /// File with this node's certificate.
    pub cert: PathBuf,
    /// File with the certificate's private key.
    pub key: PathBuf,
}

/// `[peers]`
#[derive(Clone, Debug, Deserialize)]
pub struct PeerSettings {
    /// Time limit for connecting.
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
    /// Requests within five to ten seconds that make another member's key hot; 0: never.
    pub hot_after_requests: u32,
    /// Number of members that hold each key: 1 or 2.
    pub replicas: usize,
    /// Which entries the second member holds.
    pub replicate: Replicate,
}

/// Which entries are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replicate {
    /// All entries.
    All,
    /// Entries that were requested several times.
    Hot,
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
    /// Format of log lines.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
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
    /// A ratio.
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
    /// Whether spans contain keys.
    pub keys: bool,
    /// Maximum number of spans that wait to be sent.
    pub max_queue: usize,
    /// Time limit for sending a batch.
    pub timeout_seconds: f64,
}

impl TraceSettings {
    /// Whether any spans are recorded.
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
    /// How long to remember that a key does not exist.
    pub negative_ttl_seconds: f64,
    /// Maximum size of a value, in bytes.
    #[serde(deserialize_with = "bytes")]
    pub max_value: u64,
    /// `[groups.origin]`
    pub origin: OriginSettings,
}

/// The kind of origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginKind {
    /// An HTTP service.
    Http,
    /// A directory of files.
    File,
}

/// `[groups.origin]`
#[derive(Clone, Debug, Deserialize)]
pub struct OriginSettings {
    /// Its kind.
    pub kind: OriginKind,
    /// For `http`: the URL with `{key}` in its path or query.
    pub url: String,
    /// For `file`: the directory.
    pub path: PathBuf,
    /// Time in which the concurrency grows to its limit, from the first load on; 0: no ramp.
    pub ramp_seconds: f64,
    /// Time limit for one attempt.
    pub timeout_seconds: f64,
    /// Further attempts after a transient failure.
    pub retries: usize,
    /// Maximum number of concurrent loads.
    pub max_concurrency: usize,
    /// Maximum number of loads that wait for a free slot.
    pub max_queue: usize,
    /// Whether the origin's `Cache-Control` overrides the group's time to live.
    pub honour_cache_control: bool,
    /// Headers to send with every request.
    pub headers: BTreeMap<String, String>,
}

/// Settings of a node that is embedded in a program or a test: the defaults, the memory registry,
/// and all listeners on free ports of the loopback interface. Each item of `further` is a
/// `section.name=value`.
///
/// # Errors
/// As [`load()`].
pub fn loopback(id: &str, further: &[&str]) -> Result<Settings, ConfigError> {
    let listeners =
        ["grpc", "http", "admin"].map(|listener| format!("{listener}.listen=127.0.0.1:0"));
    let mut overrides = Vec::from(listeners);
    overrides.push("registry.kind=memory".into());
    overrides.push(format!("node.id={id}"));
    overrides.extend(further.iter().map(|&setting| setting.into()));
    let sources = Sources {
        overrides,
        ..Sources::default()
    };
    Ok(load(&sources)?.settings)
}

/// Converts a setting in seconds to a duration. Validation has already checked its range.
pub fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}

fn bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests;
