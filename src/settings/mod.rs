//! How a node behaves, as plain values. Its defaults are those of the program too.

mod identity;
mod limits;

pub use identity::{ClientCertificates, ListenerTls, PeerIdentity};
pub use limits::ClientLimits;
#[cfg(feature = "cli")]
pub(crate) use limits::SHORTEST_LIMIT;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::{
    auth::{Action, AuthRules},
    telemetry::trace::Sampling,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    hot,
    membership::DEFAULT_WEIGHT,
    store,
};

/// Default maximum size of a group's values, in bytes.
pub(crate) const MAX_VALUE: u64 = 8 << 20;

/// The most members that hold a key.
pub(crate) const MAX_REPLICAS: usize = 2;

/// The ports of the listeners, where nothing else is said.
pub(crate) const GRPC_PORT: u16 = 7070;
pub(crate) const HTTP_PORT: u16 = 8080;
pub(crate) const ADMIN_PORT: u16 = 9090;
pub(crate) const PEER_PORT: u16 = 7071;

/// Whether values of this size can be kept in a cache of this capacity.
///
/// # Errors
/// Why not.
pub(crate) fn largest_value(max_value: u64, capacity: u64) -> Result<(), String> {
    if max_value > store::MOST_VALUE_BYTES {
        return Err("must be less than 4 GiB".to_owned());
    }
    let (owned, _) = hot::divide(capacity);
    let fits = store::charge(0, max_value) <= owned;
    let reason = || format!("must fit into seven eighths of the capacity ({capacity} bytes)");
    fits.then_some(()).ok_or_else(reason)
}

/// What [`is_id`] asks for.
pub(crate) const ID_RULE: &str = "must not be empty or contain '/'";

/// Whether a node may have this id.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && !id.contains('/')
}

/// Why everybody can't have the role `admin`, if so.
pub(crate) fn open_administration(
    anonymous: &[Action],
    admin: Option<SocketAddr>,
    insecure: bool,
) -> Option<&'static str> {
    let reachable = admin.is_some_and(|admin| !admin.ip().is_loopback());
    (anonymous.contains(&Action::Admin) && reachable && !insecure).then_some(
        "anonymous callers can't have the role admin while the admin listener can be reached from \
         other machines",
    )
}

/// How a node behaves. `docs/configuration.md` says more about each; the program has the same
/// settings.
///
/// ```
/// use gaocache::Settings;
///
/// let mut settings = Settings::loopback("node-0");
/// settings.capacity = 64 << 20;
/// settings.zone = "a".into();
/// settings.http = None;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Unique, and stable across restarts; the ring hashes it.
    pub id: String,
    /// Host or address at which clients and the other nodes reach this one. Empty: the address that
    /// `peer` names, else that of a network interface.
    pub advertise_host: String,
    /// Where the node runs, such as a cloud zone.
    pub zone: String,
    /// Share of the keys relative to the other nodes' weights.
    pub weight: u32,
    /// Threads that serve clients and other nodes; 0: one per core.
    pub worker_threads: usize,
    /// At the end: bound on leaving the ring and handing entries over.
    pub drain_timeout: Duration,
    /// After the drain: bound on requests that are still open.
    pub shutdown_timeout: Duration,
    /// Listener for clients over gRPC. Port 0 takes a free one. `None`: there is none.
    pub grpc: Option<SocketAddr>,
    /// Listener for clients over HTTP; `None`: there is none.
    pub http: Option<SocketAddr>,
    /// Listener for Redis clients; `None`: there is none.
    pub redis: Option<SocketAddr>,
    /// Listener for probes, metrics and the ring; `None`: there is none.
    pub admin: Option<SocketAddr>,
    /// TLS of the gRPC listener; `None`: plaintext.
    pub grpc_tls: Option<ListenerTls>,
    /// TLS of the HTTP listener; `None`: plaintext.
    pub http_tls: Option<ListenerTls>,
    /// TLS of the listener for Redis clients; `None`: plaintext.
    pub redis_tls: Option<ListenerTls>,
    /// TLS of the admin listener; `None`: plaintext.
    pub admin_tls: Option<ListenerTls>,
    /// Listener for other nodes. `None`: the node is alone.
    pub peer: Option<SocketAddr>,
    /// How nodes know each other. All nodes need the same.
    pub peer_identity: PeerIdentity,
    /// Bound on connecting to another node.
    pub peer_connect_timeout: Duration,
    /// Bound on another node's answer. What its load from the origin may take, by the group's
    /// limits, is added.
    pub peer_timeout: Duration,
    /// Memory for entries of all groups in bytes, overhead included.
    pub capacity: u64,
    /// Requests within five to ten seconds that make a key of another node hot, so that a copy is
    /// kept here; 0: never.
    pub hot_after_requests: u32,
    /// Nodes that hold each key: 1 or 2.
    pub replicas: usize,
    /// With two replicas: which entries are copied.
    pub replicate: Replicate,
    /// Bound on what is sent in the background to nodes that own it now.
    pub handoff_bytes_per_second: u64,
    /// Limit on bytes in flight beside the entries: requests, loads, and answers until they have
    /// been sent. 0: one eighth of `capacity`, or enough for one value of the largest `max_value`,
    /// whichever is more.
    pub in_flight: u64,
    /// What clients may take of the listeners.
    pub limits: ClientLimits,
    /// Who may do what on the listeners.
    pub auth: AuthRules,
    /// Unix socket through which anyone who can open it may do everything. Its file is made anew,
    /// and only its owner can open it. `None`: there is none.
    pub admin_socket: Option<PathBuf>,
    /// Whether everybody may have the role `admin` although the admin listener can be reached from
    /// other machines.
    pub admin_insecure: bool,
    /// Host names that the HTTP listener answers for, in addition to addresses, names without a
    /// dot, those of Kubernetes' services, and the node's id and advertised host. `*.` before a
    /// name stands for all names below it, and `*` alone for any name.
    pub http_allowed_hosts: Vec<String>,
    /// The same for the admin listener.
    pub admin_allowed_hosts: Vec<String>,
    /// Whether the gRPC listener tells what services it has.
    pub grpc_reflection: bool,
    /// Which requests of clients have spans. They go to the program's own `tracing` subscriber,
    /// with the target `gaocache::trace`.
    pub sampling: Sampling,
}

/// Which entries a second node holds.
///
/// ```
/// use gaocache::{Replicate, Settings};
///
/// let mut settings = Settings::loopback("node-0");
/// settings.replicas = 2;
/// // Memory for a second copy of what is in use, and of nothing else.
/// settings.replicate = Replicate::Hot;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Deserialize))]
#[cfg_attr(feature = "cli", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum Replicate {
    /// Each.
    All,
    /// Entries that were requested several times.
    Hot,
}

impl Default for Settings {
    /// Listens on all interfaces, ports 7070 (gRPC), 7071 (other nodes), 8080 (HTTP) and 9090
    /// (admin); keeps up to 512 MiB.
    fn default() -> Self {
        let anywhere = |port| Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
        Self {
            id: "node".into(),
            advertise_host: String::new(),
            zone: String::new(),
            weight: DEFAULT_WEIGHT,
            worker_threads: 0,
            drain_timeout: Duration::from_secs(20),
            shutdown_timeout: Duration::from_secs(10),
            grpc: anywhere(GRPC_PORT),
            http: anywhere(HTTP_PORT),
            redis: None,
            admin: anywhere(ADMIN_PORT),
            grpc_tls: None,
            http_tls: None,
            redis_tls: None,
            admin_tls: None,
            peer: anywhere(PEER_PORT),
            peer_identity: PeerIdentity::RegisteredKeys,
            peer_connect_timeout: Duration::from_secs(1),
            peer_timeout: Duration::from_secs(5),
            capacity: 512 << 20,
            hot_after_requests: 16,
            replicas: 1,
            replicate: Replicate::All,
            handoff_bytes_per_second: 64 << 20,
            in_flight: 0,
            limits: ClientLimits::default(),
            auth: AuthRules::default(),
            admin_socket: None,
            admin_insecure: false,
            http_allowed_hosts: Vec::new(),
            admin_allowed_hosts: Vec::new(),
            grpc_reflection: true,
            sampling: Sampling::off(),
        }
    }
}

impl Settings {
    /// The defaults, with this id.
    ///
    /// ```
    /// let mut settings = gaocache::Settings::new("cache-0");
    /// settings.zone = "eu-1a".into();
    /// settings.capacity = 2 << 30;
    /// assert_eq!(settings.http.map(|it| it.port()), Some(8080));
    /// ```
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }

    /// All listeners on free ports of the loopback interface: for tests, and for several nodes on
    /// one machine.
    ///
    /// ```
    /// let settings = gaocache::Settings::loopback("one");
    /// let http = settings.http.expect("a listener");
    /// assert!(http.ip().is_loopback() && http.port() == 0);
    /// ```
    pub fn loopback(id: impl Into<String>) -> Self {
        let free = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
        Self {
            grpc: free,
            http: free,
            admin: free,
            peer: free,
            ..Self::new(id)
        }
    }

    /// No listener at all: a cache for this process alone.
    ///
    /// ```
    /// let settings = gaocache::Settings::standalone("only");
    /// assert_eq!((settings.grpc, settings.http, settings.peer), (None, None, None));
    /// ```
    pub fn standalone(id: impl Into<String>) -> Self {
        Self {
            grpc: None,
            http: None,
            redis: None,
            admin: None,
            peer: None,
            ..Self::new(id)
        }
    }

    /// Refuses values that the types allow but a node can't work with.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Configuration, what));
        if !is_id(&self.id) {
            return wrong(&format!("the node's id {ID_RULE}"));
        }
        if self.weight == 0 {
            return wrong("a node's weight must not be 0");
        }
        if !(1..=MAX_REPLICAS).contains(&self.replicas) {
            return wrong("a key has 1 or 2 replicas");
        }
        if let Some(what) =
            open_administration(&self.auth.anonymous, self.admin, self.admin_insecure)
        {
            return wrong(what);
        }
        self.limits.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Budget;

    /// All templates of the chart, one behind the other.
    fn templates() -> String {
        let folder = format!("{}/charts/gaocache/templates", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).expect("the chart is there");
        let texts = files.map(|file| {
            let path = file.expect("a file").path();
            std::fs::read_to_string(path).unwrap_or_default()
        });
        texts.collect()
    }

    /// The chart refuses what the node would refuse, so it repeats how the node calculates.
    #[test]
    fn the_chart_calculates_as_the_node_does() {
        let templates = templates();
        let chart_has = |what: &str| assert!(templates.contains(what), "the chart has no {what}");
        let mib = 1 << 20;

        let (owned, hot) = hot::divide(mib);
        let part = mib / hot;
        assert_eq!(
            (owned, part),
            (mib - mib / 8, 8),
            "messages say: seven eighths"
        );
        chart_has(&format!("(sub $capacity (div $capacity {part}))"));

        chart_has("add (mul (div (add $bytes 4127) 4096) 4096) 28");
        chart_has("add (mul (div (add $largest 65536) 7) 8) 8");
        for bytes in [
            mib,
            MAX_VALUE,
            MAX_VALUE + 1,
            MAX_VALUE + 4064,
            MAX_VALUE + 4065,
        ] {
            let charged = (bytes + 4127) / 4096 * 4096 + 28;
            assert_eq!(store::charge(0, bytes), charged, "{bytes}");
            assert_eq!(
                Budget::least(bytes),
                (bytes + 65_536) / 7 * 8 + 8,
                "{bytes}"
            );
        }
        chart_has(&format!("default \"{}MiB\"", MAX_VALUE / mib));
    }

    #[test]
    fn what_no_node_can_be_is_refused() {
        assert!(Settings::default().check().is_ok());
        let wrong: [fn(&mut Settings); 6] = [
            |it| it.id = String::new(),
            |it| it.id = "a/b".into(),
            |it| it.weight = 0,
            |it| it.replicas = 3,
            |it| it.limits.max_connections = 0,
            |it| it.limits.write_timeout = Duration::ZERO,
        ];
        for change in wrong {
            let mut settings = Settings::default();
            change(&mut settings);
            let error = settings.check().expect_err("wrong");
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        }
    }
}
