//! Every setting: its name, accepted values, default and purpose.
//!
//! Validation, defaults and the reference in `docs/configuration.md` all come from this one table.

use std::{fmt::Write, net::SocketAddr, time::Duration};

use gaocache_discovery::EtcdConfig;

use crate::{
    origin::{bounds::Bounds, breaker::BreakerRules},
    settings::{MAX_REPLICAS, MAX_VALUE, SHORTEST_LIMIT, Settings},
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
    /// A size such as `"512MiB"`, or a number of bytes.
    Bytes,
    /// A size, or `"0B"` where that has a meaning of its own.
    BytesOrZero,
    /// `address:port`.
    Socket,
    /// The same, or nothing.
    SocketOrNone,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A URL that starts with `http://` or `https://`, or nothing. It may contain a password.
    Url,
    /// A list of such URLs.
    Urls,
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
            Self::Bytes | Self::BytesOrZero => {
                "size such as \"64MiB\" or \"2GB\", or a number of bytes".into()
            }
            Self::Socket => "address:port such as \"0.0.0.0:7070\"".into(),
            Self::SocketOrNone => "address:port such as \"0.0.0.0:7070\", or \"\" for none".into(),
            Self::OneOf(words) => format!("one of \"{}\"", words.join("\", \"")),
            Self::Url => "URL that starts with http:// or https://".into(),
            Self::Urls => "list of URLs that start with http:// or https://".into(),
            Self::Texts => "list of strings".into(),
            Self::Table => "table of strings".into(),
        }
    }
}

/// Prefix of the environment variables that are settings. It ends with two underscores, so that the
/// variables that Kubernetes adds for a service named gaocache (`GAOCACHE_PORT=tcp://…`) are
/// ignored.
pub const VARIABLE_PREFIX: &str = "GAOCACHE__";

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Full name; `groups[]` means each group.
    pub name: &'static str,
    /// Its type.
    pub takes: Takes,
    /// As a TOML literal. `None` if the setting is required, or the platform supplies it.
    pub default: Option<fn() -> String>,
    /// Its purpose.
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

/// Node defaults are defined in [`Settings::default`].
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

/// In the largest unit that divides it evenly.
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
const SHORTEST: f64 = SHORTEST_LIMIT.as_secs_f64();

/// The name under which nodes find each other, where nothing else is said.
pub(crate) const DEFAULT_SERVICE: &str = "gaocache";

/// A setting of the TLS of a listener for clients: the same for all of them.
#[rustfmt::skip]
macro_rules! listener_tls {
    (cert, $section:literal, $listener:literal) => {
        setting(concat!($section, ".tls.cert"), Takes::Text, Some(|| text("")), concat!("PEM file with the certificate of ", $listener, ", and those between it and its CA. With it, the listener speaks TLS 1.3 and no plaintext. The files of `", $section, ".tls` are read again every second, and changes take effect for new connections; files that can't be used change nothing."))
    };
    (key, $section:literal) => {
        setting(concat!($section, ".tls.key"), Takes::Text, Some(|| text("")), concat!("PEM file with the key of `", $section, ".tls.cert`."))
    };
    (client_ca, $section:literal) => {
        setting(concat!($section, ".tls.client_ca"), Takes::Text, Some(|| text("")), "PEM file with the CA certificates that clients' certificates are verified against: list both while replacing one.")
    };
    (client_auth, $section:literal $(, $more:literal)?) => {
        setting(concat!($section, ".tls.client_auth"), Takes::OneOf(&["none", "optional", "required"]), Some(|| text("none")), concat!("Whether clients show certificates of `", $section, ".tls.client_ca`: they are not asked, they may, or they have to. An invalid certificate is always refused." $(, $more)?))
    };
}

/// All settings.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting("node.id", Takes::Text, None, "Identifies the node in the ring. Must differ from every other node's, and stay the same across restarts. Default: `POD_NAME`, else the host name."),
    setting("node.advertise_host", Takes::Text, Some(|| text(node().advertise_host)), "Host or address at which clients and other nodes reach this node. Default: `POD_IP`, else the address in `peer.listen`, else the address of a network interface."),
    setting("node.zone", Takes::Text, Some(|| text(node().zone)), "Where the node runs, such as a cloud availability zone. With two replicas, an entry's copy is in a different zone from its owner."),
    setting("node.zone_file", Takes::Text, Some(|| text("")), "File with the zone, in place of `node.zone`, such as an init container writes with `gaocache zone`. An empty file means that the zone is not known."),
    setting("node.weight", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| node().weight.to_string()), "The node's share of the keys, relative to the weights of the other nodes."),
    setting("node.worker_threads", Takes::Integer { min: 0, max: 1024 }, Some(|| node().worker_threads.to_string()), "Number of threads that serve reads. 0: one per core."),
    setting("node.drain_timeout_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| seconds(node().drain_timeout)), "After SIGTERM: time limit for leaving the ring, waiting until the other nodes have seen that, and handing the entries over to them."),
    setting("node.shutdown_timeout_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| seconds(node().shutdown_timeout)), "After the drain: time limit for requests that are still open."),
    setting("node.proxy_from_environment", Takes::Boolean, Some(|| "false".into()), "Whether loads from origins, and fetches of `auth.jwt.jwks_url`, go through the proxies that the environment names (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, except for `NO_PROXY`). A proxy of `http://` URLs sees the headers sent to origins. Calls to nodes and to etcd never use a proxy, nor does the command line."),
    setting("grpc.listen", Takes::Socket, Some(|| socket(node().grpc)), "Listener for clients over gRPC. Port 0: any free port."),
    setting("grpc.reflection", Takes::Boolean, Some(|| node().grpc_reflection.to_string()), "Whether the gRPC listener lists its services (server reflection)."),
    listener_tls!(cert, "grpc", "the gRPC listener"),
    listener_tls!(key, "grpc"),
    listener_tls!(client_ca, "grpc"),
    listener_tls!(client_auth, "grpc"),
    setting("http.enabled", Takes::Boolean, Some(|| "true".into()), "Whether there is a listener for HTTP clients."),
    setting("http.listen", Takes::Socket, Some(|| socket(node().http)), "Listener for HTTP clients."),
    setting("http.allowed_hosts", Takes::Texts, Some(|| "[]".into()), "Host names that the HTTP listener answers for, in addition to addresses, names without a dot, those that end with `.localhost`, `.svc` or `.cluster.local`, `node.id` and `node.advertise_host`. `*.` before a name stands for all names below it, and `*` alone for any name. Requests for other hosts are refused, since a page of another site may make its own host name resolve to the node (DNS rebinding)."),
    listener_tls!(cert, "http", "the HTTP listener"),
    listener_tls!(key, "http"),
    listener_tls!(client_ca, "http"),
    listener_tls!(client_auth, "http"),
    setting("redis.listen", Takes::SocketOrNone, Some(|| socket(node().redis)), "Listener for Redis clients, such as `0.0.0.0:6379`; see `docs/redis.md` for what they can do. Empty: none."),
    listener_tls!(cert, "redis", "the listener for Redis clients"),
    listener_tls!(key, "redis"),
    listener_tls!(client_ca, "redis"),
    listener_tls!(client_auth, "redis"),
    setting("admin.listen", Takes::Socket, Some(|| socket(node().admin)), "Listener for probes, metrics and the admin page. Requests that change something need the role `admin`."),
    setting("admin.allowed_hosts", Takes::Texts, Some(|| "[]".into()), "The same as `http.allowed_hosts`, for the admin listener."),
    setting("admin.insecure", Takes::Boolean, Some(|| node().admin_insecure.to_string()), "Whether `auth.anonymous` may contain `admin` although `admin.listen` can be reached from other machines."),
    setting("admin.socket", Takes::Text, Some(|| text("")), "Unix socket for local administration, such as `/run/gaocache/admin.sock`: the admin paths and the gRPC calls of clients, without authentication. Its directory must exist; only the user that runs the node can open the socket. Empty: there is none."),
    listener_tls!(cert, "admin", "the admin listener"),
    listener_tls!(key, "admin"),
    listener_tls!(client_ca, "admin"),
    listener_tls!(client_auth, "admin", " Kubernetes probes present none, so `required` needs other probes."),
    setting("auth.anonymous", Takes::Texts, Some(|| "[\"read\"]".into()), "Roles, in all groups, of everybody who can reach a listener: `read` (get values), `remove` (remove a key), `purge` (remove all keys of a group), `admin` (change the log level, read the settings again). No role includes another."),
    setting("auth.grants", Takes::Texts, Some(|| "[]".into()), "Roles of authenticated callers, each as `certificate:NAME ROLES [GROUPS]` (a DNS name or URI of a client certificate) or `jwt:SUBJECT ROLES [GROUPS]`, such as `jwt:system:serviceaccount:shop:web remove,purge users`. Without groups: in all."),
    setting("auth.token_file", Takes::Text, Some(|| text("")), "File with bearer tokens, one per line: `NAME SHA256 ROLES [GROUPS]`, with the hash of the token in hexadecimal digits. It is read again every second, and changes take effect at once."),
    setting("auth.jwt.jwks_file", Takes::Text, Some(|| text("")), "File with the public keys (JWKS) of an issuer of JWTs. With it or `jwks_url`, a JWT as the bearer token proves its subject. It must be signed with RS256, ES256 or EdDSA. It is read again every second."),
    setting("auth.jwt.jwks_url", Takes::Url, Some(|| text("")), "URL of such keys, such as `https://kubernetes.default.svc/openid/v1/jwks`. They are fetched every five minutes, and when a JWT names a key that is not among them."),
    setting("auth.jwt.issuer", Takes::Text, Some(|| text("")), "The issuer (`iss`) that a JWT must have."),
    setting("auth.jwt.audience", Takes::Text, Some(|| text("")), "The audience (`aud`) that a JWT must be issued for, such as `gaocache`."),
    setting("auth.jwt.ca", Takes::Text, Some(|| text("")), "PEM file with the CA certificates that the certificate of `jwks_url` is verified against. Empty: those of the system."),
    setting("auth.jwt.bearer_file", Takes::Text, Some(|| text("")), "File with a bearer token to send to `jwks_url`."),
    setting("registry.kind", Takes::OneOf(&["etcd", "static", "memory"]), Some(|| text("etcd")), "How nodes find each other: through leases in etcd, from a fixed list, or within one process."),
    setting("registry.service", Takes::Text, Some(|| text(DEFAULT_SERVICE)), "Name under which the nodes find each other, and the prefix of their keys in etcd. It must not contain '/'."),
    setting("registry.cluster_id", Takes::Text, Some(|| text("")), "For `etcd`: id of the cluster that the node belongs to. If another has this name in etcd, the node does not join it, and says so. Empty: the node joins the cluster that is there, or founds one with a random id."),
    setting("registry.static.peers", Takes::Texts, Some(|| "[]".into()), "For `static`: all nodes, including this one, each as `id=host:port`, with the port of the node's `peer.listen`. The list is the same at every node, and has no keys by which nodes could know each other, so it needs `peer.tls`, or `peer.insecure = true`. No node joins or leaves: to change the list, restart all nodes."),
    setting("registry.etcd.endpoints", Takes::Urls, Some(|| "[]".into()), "For `etcd`: URLs of the etcd members, such as `http://etcd-0.etcd:2379`."),
    setting("registry.etcd.lease_ttl_seconds", Takes::Integer { min: 2, max: 3600 }, Some(|| seconds(EtcdConfig::new([""; 0]).lease_ttl)), "Time to live of the node's lease: how long after its last renewal a node is considered dead."),
    setting("registry.etcd.username", Takes::Text, Some(|| text("")), "User name for etcd. Empty: no authentication."),
    setting("registry.etcd.password_file", Takes::Text, Some(|| text("")), "File that contains the user's password."),
    setting("registry.etcd.tls.ca", Takes::Text, Some(|| text("")), "PEM file with the CA certificates that etcd's certificate is verified against."),
    setting("registry.etcd.tls.cert", Takes::Text, Some(|| text("")), "PEM file with this node's client certificate for etcd."),
    setting("registry.etcd.tls.key", Takes::Text, Some(|| text("")), "PEM file with the private key of that certificate."),
    setting("peer.listen", Takes::Socket, Some(|| socket(node().peer)), "Listener for other nodes. Clients need no access to it."),
    setting("peer.insecure", Takes::Boolean, Some(|| "false".into()), "Whether nodes talk to each other in plaintext and trust every caller that can reach `peer.listen`. All nodes need the same value. By default, each node makes a key at start and registers its fingerprint beside its address: nodes connect over mutual TLS 1.3, and accept only holders of a registered key."),
    setting("peer.tls.ca", Takes::Text, Some(|| text("")), "PEM file with the CA certificates that other nodes' certificates are verified against: list both while replacing one. With it, nodes authenticate each other by certificates instead of registered keys. The files of `peer.tls` are read again every second, and changes take effect for new connections."),
    setting("peer.tls.cert", Takes::Text, Some(|| text("")), "PEM file with this node's certificate, and those between it and the CA. It must be valid for server and client authentication."),
    setting("peer.tls.key", Takes::Text, Some(|| text("")), "PEM file with the key of `peer.tls.cert`."),
    setting("peer.allowed_peers", Takes::Texts, Some(|| "[]".into()), "With `peer.tls`: DNS names or URIs that the certificates of nodes may have, such as `spiffe://cluster.local/ns/cache/sa/gaocache`. `{id}` stands for the id of the node that the certificate belongs to, `*` for any text in one label or segment, and `*` alone for any certificate of the CA."),
    setting("peer.connect_timeout_seconds", Takes::Seconds { min: 0.01, max: 60.0 }, Some(|| seconds(node().peer_connect_timeout)), "Time limit for connecting to another node."),
    setting("peer.timeout_seconds", Takes::Seconds { min: 0.01, max: 3600.0 }, Some(|| seconds(node().peer_timeout)), "Time limit for another node's answer. The time that its load from the origin may take is added, as far as the group's `timeout_seconds`, `retries`, `max_queue`, `max_concurrency` and `ramp_seconds` allow. A call that exceeds it fails as `origin_timeout`; the key is not loaded elsewhere."),
    setting("cache.capacity", Takes::Bytes, Some(|| bytes(node().capacity)), "Memory for the entries of all groups, including overhead. One eighth is reserved for hot copies."),
    setting("cache.in_flight", Takes::BytesOrZero, Some(|| bytes(node().in_flight)), "Memory for bytes in flight beside the entries: requests, loads, and answers until they have been sent. Beyond it, requests are refused as overloaded. 0B: one eighth of `capacity`, or what a value of the largest `max_value` needs, if that is more."),
    setting("cache.hot_after_requests", Takes::Integer { min: 0, max: 1_000_000 }, Some(|| node().hot_after_requests.to_string()), "A key that another node owns becomes hot, and this node keeps a copy of it, after this many misses for it here within five to ten seconds. 0: never."),
    setting("cache.replicas", Takes::Integer { min: 1, max: MAX_REPLICAS as i64 }, Some(|| node().replicas.to_string()), "Number of members that hold each key. 2: the next member in ring order holds a copy, so a crashed node costs the origin almost nothing, but entries take twice the memory."),
    setting("cache.replicate", Takes::OneOf(&["all", "hot"]), Some(|| text(format!("{:?}", node().replicate).to_lowercase())), "With two replicas: whether to copy all entries, or only those requested at least four times."),
    setting("limits.max_connections", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| node().limits.max_connections.to_string()), "Maximum number of connections of the gRPC, HTTP and Redis listeners together; further ones are closed at once. An idle connection takes about 33 KiB. The limit is lower if the process may open fewer files (`RLIMIT_NOFILE`, which is raised to its hard limit at start)."),
    setting("limits.max_connections_per_address", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| node().limits.max_connections_per_address.to_string()), "Maximum number of such connections from one address (IPv6: one /64 network)."),
    setting("limits.max_admin_connections", Takes::Integer { min: 1, max: 65_536 }, Some(|| node().limits.max_admin_connections.to_string()), "Maximum number of connections of the admin listener. When all are taken, a further one gets the place of one that has no request under way, or waits."),
    setting("limits.max_admin_connections_per_address", Takes::Integer { min: 1, max: 65_536 }, Some(|| node().limits.max_admin_connections_per_address.to_string()), "Maximum number of connections of the admin listener from one address (IPv6: one /64 network); further ones are closed at once."),
    setting("limits.reserved_descriptors", Takes::Integer { min: 0, max: 1_000_000 }, Some(|| node().limits.reserved_descriptors.to_string()), "Number of file descriptors that connections of clients never take: they are for other nodes, etcd, origins and probes. At most half of those that the process may open."),
    setting("limits.handshake_timeout_seconds", Takes::Seconds { min: SHORTEST, max: 3600.0 }, Some(|| seconds(node().limits.handshake_timeout)), "Time limit from the connection to the HTTP/2 preface, or to the first byte from a Redis client, and for the head of an HTTP/1 request."),
    setting("limits.idle_timeout_seconds", Takes::Seconds { min: SHORTEST, max: 86_400.0 }, Some(|| seconds(node().limits.idle_timeout)), "A connection is closed if no request is under way on it for this time. One of HTTP/1 is closed earlier: its client has `handshake_timeout_seconds` for the head of the next request."),
    setting("limits.read_timeout_seconds", Takes::Seconds { min: SHORTEST, max: 3600.0 }, Some(|| seconds(node().limits.read_timeout)), "Time limit for the arrival of a request, from its first byte to its last. A Redis client that exceeds it is disconnected."),
    setting("limits.write_timeout_seconds", Takes::Seconds { min: SHORTEST, max: 3600.0 }, Some(|| seconds(node().limits.write_timeout)), "A connection is closed if an answer on it makes no progress for this time (up to a quarter more), because the client does not read."),
    setting("limits.untrusted_timeout_seconds", Takes::Seconds { min: SHORTEST, max: 86_400.0 }, Some(|| seconds(node().limits.untrusted_timeout)), "A connection is closed this time after new certificate files have ceased to accept the certificate that it has shown; that of a node, also after its key has ceased to be a member's."),
    setting("limits.max_control_frames_per_second", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| node().limits.max_control_frames_per_second.to_string()), "A connection is closed if it sends more HTTP/2 control frames without data per second (`PING`, `SETTINGS`, `PRIORITY`, `WINDOW_UPDATE` and so on), beyond those that go with its requests and answers."),
    setting("limits.max_keys_per_request", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| node().limits.max_keys_per_request.to_string()), "Maximum number of keys in one `GetMany`, and of arguments of one Redis command after its name."),
    setting("limits.max_requests_per_second_per_client", Takes::Integer { min: 0, max: 100_000_000 }, Some(|| node().limits.max_requests_per_second_per_client.to_string()), "Maximum number of requests per second of one client: of the holder of a certificate or token, else of an address (IPv6: one /64 network). Each key of a `GetMany` or of a Redis command counts. After a pause, a client may send as many at once as in a second. 0: no limit."),
    setting("limits.max_misses_per_client", Takes::Integer { min: 1, max: 10_000_000 }, Some(|| node().limits.max_misses_per_client.to_string()), "Maximum number of gets of one such client at the same time that are not answered from this node's memory; at most a third of what fits `cache.in_flight`, at one KiB each."),
    setting("handoff.max_bytes_per_second", Takes::Bytes, Some(|| bytes(node().handoff_bytes_per_second)), "Limit on the rate at which a node sends entries to their new owners in the background. A leaving node goes faster if half of its drain timeout would not be enough."),
    setting("log.level", Takes::Text, Some(|| text("info")), "`off`, `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,gaocache::rpc=debug`. `debug` applies to the libraries too; `info,gaocache=debug` shows what the node itself does."),
    setting("log.format", Takes::OneOf(&["text", "json"]), Some(|| text("text")), "Format of log lines."),
    setting("log.keys", Takes::Boolean, Some(|| "false".into()), "Whether warnings about loads from an origin, and lines about requests, name the key, which may be personal data."),
    setting("log.requests", Takes::OneOf(&["off", "errors", "slow", "all"]), Some(|| text("off")), "Which client gets have a log line each, at level `info`: none; those that failed (a missing key is no failure); those and the slow ones; or all."),
    setting("log.slow_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| "1".into()), "From this duration on, a get is slow."),
    setting("log.max_requests_per_second", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| "100".into()), "Maximum number of lines about requests per second. Further ones are counted, and the next line says how many."),
    setting("log.audit", Takes::Text, Some(|| text("off")), "Where to write, as JSON lines, who removed, purged or changed something, and who was refused: `off`, `stdout`, `stderr`, or a file. The lines name keys."),
    setting("trace.trust_clients", Takes::Boolean, Some(|| node().sampling.trusts_clients.to_string()), "Whether the `traceparent` of a client is trusted: its decision whether to sample, and the trace that it belongs to. Otherwise, each request of a client begins a trace of its own."),
    setting("trace.enabled", Takes::Boolean, Some(|| "true".into()), "Whether to record spans if an endpoint is set. Default: false if `OTEL_SDK_DISABLED` is true or `OTEL_TRACES_EXPORTER` is none."),
    setting("trace.endpoint", Takes::Url, Some(|| text("")), "URL of an OTLP receiver over gRPC, such as `http://otel-collector:4317`. Empty: no spans. Default: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, else `OTEL_EXPORTER_OTLP_ENDPOINT`."),
    setting("trace.ca", Takes::Text, Some(|| text("")), "For `https`: PEM file with the CA certificates that the receiver's certificate is verified against. Empty: the system's CA certificates. Default: `OTEL_EXPORTER_OTLP_CERTIFICATE`."),
    setting("trace.sampler", Takes::OneOf(&["parentbased_traceidratio", "parentbased_always_on", "parentbased_always_off", "traceidratio", "always_on", "always_off"]), Some(|| text("parentbased_traceidratio")), "Which client requests are sampled. `parentbased_…`: follow the caller's `traceparent`; without one, follow the rest of the name. Default: `OTEL_TRACES_SAMPLER`."),
    setting("trace.sample_ratio", Takes::Ratio, Some(|| "0.01".into()), "Ratio of sampled requests, for the samplers that use one. Default: `OTEL_TRACES_SAMPLER_ARG`."),
    setting("trace.service_name", Takes::Text, Some(|| text("gaocache")), "The service name in traces. Default: `OTEL_SERVICE_NAME`. `OTEL_RESOURCE_ATTRIBUTES` adds attributes."),
    setting("trace.keys", Takes::Boolean, Some(|| "false".into()), "Whether spans contain keys, which may be personal data."),
    setting("trace.max_queue", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| "2048".into()), "Number of spans that may wait to be sent. Beyond that, spans are dropped and counted; no request waits. Default: `OTEL_BSP_MAX_QUEUE_SIZE`."),
    setting("trace.timeout_seconds", Takes::Seconds { min: 0.01, max: 600.0 }, Some(|| "10".into()), "Time limit for sending a batch of spans. Default: `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, else `OTEL_EXPORTER_OTLP_TIMEOUT`, both in milliseconds."),
    setting("groups[].name", Takes::Text, None, "Name of the group: at most 64 letters, digits, `.`, `_` or `-`."),
    setting("groups[].ttl_seconds", Takes::Seconds { min: 0.0, max: YEAR }, Some(|| "0".into()), "How long to keep a value. 0: until it is evicted or removed."),
    setting("groups[].negative_ttl_seconds", Takes::Seconds { min: 0.0, max: DAY }, Some(|| "0".into()), "How long to remember that a key does not exist. 0: not at all."),
    setting("groups[].max_ttl_seconds", Takes::Seconds { min: 0.0, max: YEAR }, Some(|| "0".into()), "Maximum lifetime of a value, whatever its origin says, even if `ttl_seconds` is 0. 0: no limit."),
    setting("groups[].ttl_jitter", Takes::Ratio, Some(|| "0".into()), "Each value's lifetime is shortened by a random part of it, up to this ratio, so that values that were loaded together do not expire together."),
    setting("groups[].stale_while_revalidate_seconds", Takes::Seconds { min: 0.0, max: DAY }, Some(|| "0".into()), "How long past its lifetime a value is served at once, as stale, while its owner loads it anew. A removed value is never served. 0: not at all."),
    setting("groups[].stale_if_error_seconds", Takes::Seconds { min: 0.0, max: 30.0 * DAY }, Some(|| "0".into()), "How long past its lifetime a value is served, as stale, if its load fails as `origin_failed`, `origin_timeout`, `breaker_open` or `overloaded`. A removed value is never served. 0: not at all."),
    setting("groups[].error_ttl_seconds", Takes::Seconds { min: 0.0, max: 60.0 }, Some(|| "0".into()), "How long the node that loads a key remembers that the load failed (`origin_failed`, `origin_timeout`, `value_too_large`): gets fail at once with the same error, and the origin is not asked. The origin's `Retry-After` prolongs it to up to 60 s. A removal of the key and a purge of the group end it. 0: not at all."),
    setting("groups[].soft_timeout_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| "0".into()), "A get whose load takes longer is answered with the value before, as a stale one, if `stale_if_error_seconds` still allows that; the load goes on. 0: gets wait for the load."),
    setting("groups[].refresh_ahead", Takes::Boolean, Some(|| "false".into()), "Whether the owner of a key loads its value anew shortly before it expires, if it is asked for then: the earlier, the longer loads take (XFetch). Keys that nobody asks for are not loaded."),
    setting("groups[].query", Takes::OneOf(&["refuse", "append", "ignore"]), Some(|| text("refuse")), "What a query string after a key means over HTTP. `refuse`: the request is refused; `append`: the `?` and everything after it belong to the key, byte for byte; `ignore`: nothing."),
    setting("groups[].max_value", Takes::Bytes, Some(|| bytes(MAX_VALUE)), "Maximum size of a value. gRPC clients accept answers of 4 MiB by default and refuse larger ones, so for larger values raise their limit too; gaocache's own client has none."),
    setting("groups[].memory_share", Takes::Ratio, Some(|| "0".into()), "Ratio of `cache.capacity` that the group keeps when other groups want room; those of all groups add up to 1 at most. Until the group needs it, others use it. 0: nothing is guaranteed."),
    setting("groups[].memory_limit", Takes::Ratio, Some(|| "0".into()), "Ratio of `cache.capacity` that the group never exceeds: beyond it, its own entries go. A value that is larger alone is not kept. It must not be less than `memory_share`. 0: no limit."),
    setting("groups[].origin.kind", Takes::OneOf(&["http", "file"]), None, "Where values come from."),
    setting("groups[].origin.url", Takes::Url, Some(|| text("")), "For `http`: the URL, with the placeholder `{key}` in its path or query. `{+key}` leaves the characters of URLs in a key as they are, so that its `/` divides the path and its `?` begins a query."),
    setting("groups[].origin.ca", Takes::Text, Some(|| text("")), "For `http`: PEM file with the CA certificates that the certificate of an `https` URL is verified against. The file is read again every second, and changes take effect for the next load; a file that can't be used changes nothing. Empty: the system's CA certificates."),
    setting("groups[].origin.path", Takes::Text, Some(|| text("")), "For `file`: the directory. A key is a path below it."),
    setting("groups[].origin.timeout_seconds", Takes::Seconds { min: 0.001, max: 3600.0 }, Some(|| "5".into()), "Time limit for one attempt to load. A load ends at the latest after all attempts and the pauses between them."),
    setting("groups[].origin.retries", Takes::Integer { min: 0, max: 100 }, Some(|| "2".into()), "Number of further attempts after a transient failure: a connection that could not be opened or broke, an invalid response, or a status from 500 to 599. A 429 or 503 with `Retry-After` is retried after that time if it is at most 2 s, and otherwise not at all. Any other status, and an attempt that took longer than `timeout_seconds`, is never retried."),
    setting("groups[].origin.max_concurrency", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| Bounds::default().max_concurrency.to_string()), "Maximum number of concurrent loads by this node from this origin."),
    setting("groups[].origin.max_queue", Takes::Integer { min: 0, max: 10_000_000 }, Some(|| Bounds::default().max_queue.to_string()), "Maximum number of loads that wait for a free slot. Beyond that, requests fail as overloaded."),
    setting("groups[].origin.ramp_seconds", Takes::Seconds { min: 0.0, max: 3600.0 }, Some(|| seconds(Bounds::default().ramp)), "Protects a cold origin: from the first load on, the concurrency limit grows from a tenth of `max_concurrency` to all of it within this time. 0: no ramp."),
    setting("groups[].origin.breaker_failure_ratio", Takes::Ratio, Some(|| "0".into()), "Circuit breaker: if at least this ratio of the loads of the last ten to twenty seconds failed (`origin_failed`, `origin_timeout`), the origin is not asked for `breaker_open_seconds`; loads fail at once as `breaker_open`. Then one load finds out whether the origin is back, and if it is, `ramp_seconds` begins anew. 0: never."),
    setting("groups[].origin.breaker_slow_ratio", Takes::Ratio, Some(|| "0".into()), "The same if at least this ratio of the loads took longer than `breaker_slow_seconds`. 0: never."),
    setting("groups[].origin.breaker_slow_seconds", Takes::Seconds { min: 0.001, max: 3600.0 }, Some(|| seconds(BreakerRules::default().slow)), "Circuit breaker: a load that takes longer is slow. The time in the queue does not count."),
    setting("groups[].origin.breaker_min_loads", Takes::Integer { min: 1, max: 1_000_000 }, Some(|| BreakerRules::default().min_loads.to_string()), "Circuit breaker: minimum number of loads before it can open."),
    setting("groups[].origin.breaker_open_seconds", Takes::Seconds { min: 0.01, max: 3600.0 }, Some(|| seconds(BreakerRules::default().open)), "Circuit breaker: how long it stays open before one load finds out whether the origin is back."),
    setting("groups[].origin.cancel_abandoned", Takes::Boolean, Some(|| Bounds::default().cancel_abandoned.to_string()), "Whether a load that runs is cancelled when everybody who waited for it has hung up. A load that still waits for its turn, or pauses before another attempt, always is."),
    setting("groups[].origin.hedge", Takes::Boolean, Some(|| Bounds::default().hedge.to_string()), "Whether a load that takes longer than 95 % of the last loads of this node from this origin is begun a second time, if a slot is free; the first answer counts, and the other request is dropped. At most one more load for twenty, none for a batch, and none while the circuit breaker is not closed."),
    setting("groups[].origin.compress_min_bytes", Takes::BytesOrZero, Some(|| bytes(Bounds::default().compress_min_bytes)), "From this size on, values are kept and sent between nodes compressed (zstd), unless they shrink by less than a tenth or have a `Content-Encoding`. Clients get them as the origin gave them; over HTTP, those that accept `zstd` get the compressed bytes. All nodes must run a release that has this setting. \"0B\": never."),
    setting("groups[].origin.honour_cache_control", Takes::Boolean, Some(|| "false".into()), "For `http`: whether the origin's `Cache-Control`, `Expires`, `Age` and `Vary` override `ttl_seconds`; `docs/http.md` lists the cases."),
    setting("groups[].origin.keep_headers", Takes::Texts, Some(|| "[]".into()), "For `http`: headers of a response that are kept and passed on with its value, beside `Content-Type`, `Content-Encoding`, `Content-Language`, `ETag` and `Last-Modified`; all of them together have at most 2 KiB. With `Cache-Control`, clients get the origin's own, with `Age`, instead of the remaining TTL here."),
    setting("groups[].origin.keep_not_found_body", Takes::Boolean, Some(|| "false".into()), "For `http`: whether the body of a 404 or 410, with its `Content-Type`, is kept for `negative_ttl_seconds` and answered over HTTP. One of more than 64 KiB or `max_value` is left out. Like a value, it takes memory."),
    setting("groups[].origin.headers", Takes::Table, Some(|| "{}".into()), "For `http`: headers to send with every request."),
    setting("groups[].origin.header_files", Takes::Table, Some(|| "{}".into()), "For `http`: files with values of such headers, for example of a mounted Secret; what `headers` has for the same header comes before it, such as `Bearer `. A changed file is applied like changed settings."),
];

/// When a node that runs applies a new value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At once.
    Live,
    /// At the next connection to where the files are needed. What counts is their content: the node
    /// reads them each time.
    Content,
    /// When it is restarted.
    Restart,
}

impl Applies {
    /// For the reference, and `/config`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Content => "restart; content: live",
            Self::Restart => "restart",
        }
    }
}

impl Setting {
    /// When a node that runs applies a new value.
    pub fn applies(&self) -> Applies {
        const LIVE: [&str; 4] = ["groups[].", "limits.", "log.", "auth."];
        const CONTENT: [&str; 15] = [
            "registry.etcd.tls.",
            "registry.etcd.password_file",
            "peer.tls.",
            "grpc.tls.cert",
            "grpc.tls.key",
            "grpc.tls.client_ca",
            "http.tls.cert",
            "http.tls.key",
            "http.tls.client_ca",
            "redis.tls.cert",
            "redis.tls.key",
            "redis.tls.client_ca",
            "admin.tls.cert",
            "admin.tls.key",
            "admin.tls.client_ca",
        ];
        let is_of = |names: &[&str]| names.iter().any(|it| self.name.starts_with(it));
        // The admin listener's places are made at the start.
        const AT_START: [&str; 4] = [
            "limits.max_admin_connections",
            "limits.max_admin_connections_per_address",
            "log.format",
            "log.audit",
        ];
        if AT_START.contains(&self.name) {
            Applies::Restart
        } else if is_of(&LIVE) {
            Applies::Live
        } else if is_of(&CONTENT) {
            Applies::Content
        } else {
            Applies::Restart
        }
    }
}

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

/// The reference of all settings in Markdown, which `docs/configuration.md` contains between
/// markers.
pub fn reference() -> String {
    let mut out =
        String::from("| setting | type | default | change | purpose |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let default = setting
            .default
            .map_or_else(|| "–".to_owned(), |default| format!("`{}`", default()));
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} | {} |",
            setting.name,
            setting.takes.allowed(),
            setting.applies().name(),
            setting.about
        );
    }
    out
}
