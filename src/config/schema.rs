//! Every setting: its name, accepted values, default and purpose.
//!
//! Validation, defaults and the reference in `docs/configuration.md` all come from this one table.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use gaocache_discovery::EtcdConfig;

use crate::{
    origin::guarded::Bounds,
    settings::{MAX_VALUE, Settings},
};

/// The type of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Takes {
    /// Any string.
    Text,
    /// A whole number from `min` to `max`.
    #[allow(missing_docs)]
    Integer { min: i64, max: i64 },
    /// Seconds from `min` to `max`, fractions allowed.
    #[allow(missing_docs)]
    Seconds { min: f64, max: f64 },
    /// A ratio from 0 to 1.
    Ratio,
    /// `true` or `false`.
    Boolean,
    /// A size such as `"512MiB"`.
    Bytes,
    /// `address:port`.
    Socket,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of strings.
    Texts,
    /// A table of strings.
    Table,
}

impl Takes {
    /// The allowed values, as a phrase for error messages and the reference.
    pub fn allowed(self) -> String {
        match self {
            Self::Text => "string".into(),
            Self::Integer { min, max } => format!("integer from {min} to {max}"),
            Self::Seconds { min, max } => format!("seconds from {min} to {max}"),
            Self::Ratio => "ratio from 0 to 1".into(),
            Self::Boolean => "true or false".into(),
            Self::Bytes => "size such as \"64MiB\" or \"2GB\"".into(),
            Self::Socket => "address:port such as \"0.0.0.0:7070\"".into(),
            Self::OneOf(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Texts => "list of strings".into(),
            Self::Table => "table of strings".into(),
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Full name; `groups[]` stands for each group.
    pub name: &'static str,
    /// Its type.
    pub takes: Takes,
    /// As a TOML literal; `None`: it must be given, or the platform gives it.
    pub default: Option<fn() -> String>,
    /// What it is for.
    pub about: &'static str,
}

const fn setting(
    name: &'static str,
    takes: Takes,
    default: Option<fn() -> String>,
    about: &'static str,
) -> Setting {
    Setting {
        name,
        takes,
        default,
        about,
    }
}

/// The defaults of what concerns the node alone have their home there.
fn node() -> Settings {
    Settings::default()
}

fn text(text: impl AsRef<str>) -> String {
    format!("{:?}", text.as_ref())
}

fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

fn socket(address: Option<SocketAddr>) -> String {
    text(address.map(|it| it.to_string()).unwrap_or_default())
}

/// In the largest unit that leaves no rest.
fn bytes(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = |shift: u32| bytes != 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(|(_, shift)| whole(*shift)) {
        Some((unit, shift)) => text(format!("{}{unit}", bytes >> shift)),
        None => text(format!("{bytes}B")),
    }
}

const DAY: f64 = 86_400.0;
const YEAR: f64 = 366.0 * DAY;

/// All settings.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("node.id", Takes::Text, None, "Stable over restarts; what the ring hashes. Default: `POD_NAME`, else the host name."),
    setting("node.advertise_host", Takes::Text, Some(|| text(node().advertise_host)), "Host or address at which the other nodes reach this one. Default: `POD_IP`, else the address that `grpc.listen` names, else that of a network interface."),
    setting("node.zone", Takes::Text, Some(|| text(node().zone)), "Where the node runs, such as a cloud zone."),
    setting("node.weight", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| node().weight.to_string()), "Share of the keys relative to the other nodes' weights."),
    setting("node.worker_threads", Takes::Integer { min: 0, max: 1024 }, Some(|| node().worker_threads.to_string()), "Threads that serve reads. 0: one a core."),
    setting("node.drain_timeout_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| seconds(node().drain_timeout)), "On SIGTERM: bound on leaving the ring, waiting until the others have seen it, and handing the entries over to them."),
    setting("node.shutdown_timeout_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| seconds(node().shutdown_timeout)), "After the drain: bound on requests that are still open."),
    setting("grpc.listen", Takes::Socket, Some(|| socket(node().grpc)), "Listener for gRPC: clients and other nodes. Port 0 takes a free one."),
    setting("http.listen", Takes::Socket, Some(|| socket(node().http)), "Listener for HTTP clients."),
    setting("admin.listen", Takes::Socket, Some(|| socket(node().admin)), "Listener for probes, metrics and the ring."),
    setting("registry.kind", Takes::OneOf(&["etcd", "static", "memory"]), Some(|| text("etcd")), "How nodes find each other: leases in etcd, a fixed list, or within one process."),
    setting("registry.service", Takes::Text, Some(|| text("gaocache")), "Name under which the nodes find each other; the prefix of their keys in etcd."),
    setting("registry.static.peers", Takes::Texts, Some(|| "[]".into()), "For `static`: all nodes, this one too, each as `id=host:port`."),
    setting("registry.etcd.endpoints", Takes::Texts, Some(|| "[]".into()), "For `etcd`: URLs of its members, such as `http://etcd-0.etcd:2379`."),
    setting("registry.etcd.lease_ttl_seconds", Takes::Integer { min: 2, max: 3600 }, Some(|| seconds(EtcdConfig::new([""; 0]).lease_ttl)), "How long after its last sign of life a node is taken for dead."),
    setting("registry.etcd.username", Takes::Text, Some(|| text("")), "User at etcd; empty: none."),
    setting("registry.etcd.password_file", Takes::Text, Some(|| text("")), "File with the user's password."),
    setting("registry.etcd.tls.ca", Takes::Text, Some(|| text("")), "File (PEM) with the authorities that sign etcd's certificate."),
    setting("registry.etcd.tls.cert", Takes::Text, Some(|| text("")), "File (PEM) with this node's certificate for etcd."),
    setting("registry.etcd.tls.key", Takes::Text, Some(|| text("")), "File (PEM) with the key of that certificate."),
    setting("peers.connect_timeout_seconds", Takes::Seconds { min: 0.01, max: 60.0 }, Some(|| seconds(node().peer_connect_timeout)), "Bound on connecting to another node."),
    setting("peers.timeout_seconds", Takes::Seconds { min: 0.01, max: 3600.0 }, Some(|| seconds(node().peer_timeout)), "Bound on a call to another node, its load from the origin included."),
    setting("cache.capacity", Takes::Bytes, Some(|| bytes(node().capacity)), "Memory for entries of all groups, overhead included; an eighth of it is for hot copies."),
    setting("cache.hot_after_requests", Takes::Integer { min: 0, max: 1_000_000 }, Some(|| node().hot_after_requests.to_string()), "A key that another node owns is hot, and a copy of it is kept here, after so many requests that missed here within five to ten seconds. 0: never."),
    setting("cache.replicas", Takes::Integer { min: 1, max: 2 }, Some(|| node().replicas.to_string()), "Members that hold each key. 2: the next in ring order holds a copy, so that a node that dies costs the origin next to nothing, and entries take twice the memory."),
    setting("cache.replicate", Takes::OneOf(&["all", "hot"]), Some(|| text(format!("{:?}", node().replicate).to_lowercase())), "With two replicas: copy all entries, or only those asked for at least four times."),
    setting("handoff.max_bytes_per_second", Takes::Bytes, Some(|| bytes(node().handoff_bytes_per_second)), "Bound on what a node sends in the background to members that own it now. A node that leaves is faster where half of its drain timeout would not suffice."),
    setting("log.level", Takes::Text, Some(|| text("info")), "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,gaocache::rpc=debug`."),
    setting("log.format", Takes::OneOf(&["text", "json"]), Some(|| text("text")), "How log lines look."),
    setting("trace.enabled", Takes::Boolean, Some(|| "true".into()), "Whether spans are made where there is an endpoint. Default: not if `OTEL_SDK_DISABLED` is true or `OTEL_TRACES_EXPORTER` is none."),
    setting("trace.endpoint", Takes::Text, Some(|| text("")), "URL of an OTLP receiver that speaks gRPC, such as `http://otel-collector:4317`. Empty: no spans. Default: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else `OTEL_EXPORTER_OTLP_ENDPOINT`."),
    setting("trace.ca", Takes::Text, Some(|| text("")), "For `https`: file (PEM) with the authorities that sign the receiver's certificate; empty: the system's. Default: `OTEL_EXPORTER_OTLP_CERTIFICATE`."),
    setting("trace.sampler", Takes::OneOf(&["parentbased_traceidratio", "parentbased_always_on", "parentbased_always_off", "traceidratio", "always_on", "always_off"]), Some(|| text("parentbased_traceidratio")), "Which requests of clients have spans. `parentbased_…`: as the caller's `traceparent` says, and by the rest of the word where there is none. Default: `OTEL_TRACES_SAMPLER`."),
    setting("trace.sample_ratio", Takes::Ratio, Some(|| "0.01".into()), "The share, for the samplers with a ratio. Default: `OTEL_TRACES_SAMPLER_ARG`."),
    setting("trace.service_name", Takes::Text, Some(|| text("gaocache")), "As what the node appears in traces. Default: `OTEL_SERVICE_NAME`; further attributes: `OTEL_RESOURCE_ATTRIBUTES`."),
    setting("trace.keys", Takes::Boolean, Some(|| "false".into()), "Whether spans tell keys, which may be personal data."),
    setting("trace.max_queue", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| "2048".into()), "Spans that may wait to be sent; past that they are dropped and counted, and no request waits. Default: `OTEL_BSP_MAX_QUEUE_SIZE`."),
    setting("trace.timeout_seconds", Takes::Seconds { min: 0.01, max: 600.0 }, Some(|| "10".into()), "Bound on sending a batch of spans. Default: `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, else `OTEL_EXPORTER_OTLP_TIMEOUT`, both in milliseconds."),
    setting("groups[].name", Takes::Text, None, "Letters, digits, `.`, `_`, `-`; at most 64."),
    setting("groups[].ttl_seconds", Takes::Seconds { min: 0.0, max: YEAR }, Some(|| "0".into()), "How long a value is kept. 0: until it is evicted or removed."),
    setting("groups[].negative_ttl_seconds", Takes::Seconds { min: 0.0, max: DAY }, Some(|| "0".into()), "How long it is kept in mind that a key does not exist. 0: not at all."),
    setting("groups[].max_value", Takes::Bytes, Some(|| bytes(MAX_VALUE)), "The largest value."),
    setting("groups[].origin.kind", Takes::OneOf(&["http", "file"]), None, "Where values come from."),
    setting("groups[].origin.url", Takes::Text, Some(|| text("")), "For `http`: the URL, with `{key}` in its path or query."),
    setting("groups[].origin.path", Takes::Text, Some(|| text("")), "For `file`: the folder; a key is a path below it."),
    setting("groups[].origin.timeout_seconds", Takes::Seconds { min: 0.001, max: 3600.0 }, Some(|| "5".into()), "Bound on one attempt to load."),
    setting("groups[].origin.retries", Takes::Integer { min: 0, max: 100 }, Some(|| "2".into()), "Further attempts after a failure that may pass (5xx, connection)."),
    setting("groups[].origin.max_concurrency", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| Bounds::default().max_concurrency.to_string()), "Loads of this node from this origin at the same time."),
    setting("groups[].origin.max_queue", Takes::Integer { min: 0, max: 10_000_000 }, Some(|| Bounds::default().max_queue.to_string()), "Loads that may wait for their turn; past that a request fails as overloaded."),
    setting("groups[].origin.ramp_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| seconds(Bounds::default().ramp)), "Spares a cold origin: after the start `max_concurrency` grows from a tenth to the whole within this time. 0: the whole at once."),
    setting("groups[].origin.honour_cache_control", Takes::Boolean, Some(|| "false".into()), "Whether the origin's `Cache-Control` (`max-age`, `no-store`) comes before `ttl_seconds`."),
    setting("groups[].origin.headers", Takes::Table, Some(|| "{}".into()), "For `http`: headers sent with every request."),
];

/// The setting with that name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Whether `name` is a section, that is, a prefix of some setting's name.
pub fn is_section(name: &str) -> bool {
    let prefix = format!("{name}.");
    SETTINGS
        .iter()
        .any(|setting| setting.name.starts_with(&prefix))
}

/// The existing name that is closest to an unknown one, if any is close.
pub fn nearest(name: &str) -> Option<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| {
            (
                strsim::damerau_levenshtein(setting.name, name),
                setting.name,
            )
        })
        .filter(|(distance, _)| *distance <= 4)
        .min()
        .map(|(_, name)| name)
}

/// The environment variable that sets `name`. `None` for settings of a group, since all groups are
/// set by one variable.
pub fn variable(name: &str) -> Option<String> {
    (!name.starts_with("groups["))
        .then(|| format!("GAOCACHE__{}", name.to_uppercase().replace('.', "__")))
}

/// The reference of all settings in Markdown, which `docs/configuration.md` contains between
/// markers.
pub fn reference() -> String {
    let mut out = String::from("| setting | type | default | purpose |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let default = setting
            .default
            .map_or_else(|| "–".to_owned(), |default| format!("`{}`", default()));
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} |",
            setting.name,
            setting.takes.allowed(),
            setting.about
        );
    }
    out
}
