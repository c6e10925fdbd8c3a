//! From settings and parts to a bound node.

#[cfg(feature = "etcd")]
use crate::registry::etcd::EtcdRegistry;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{Addresses, Node, SystemClock, listeners::Listeners};
use crate::{
    admin::{Admin, Changes},
    group::GroupDefinition,
    origin::guarded::Guarded,
    registry::{
        Choice, Registry,
        fixed::{self, FixedRegistry},
    },
    rpc::peers::{GrpcPeers, PeerRules},
    service::{Measuring, Service},
    settings::{Replicate, Settings},
    telemetry::{metrics::Metrics, trace},
};
use gaocache_core::{
    cluster::{Cluster, Topology},
    error::{Error, ErrorKind, Result},
    fence::Fence,
    group::{Group, Groups, Shared},
    handoff::{CopyQueue, Handoff, HandoffParts, HandoffRules},
    hot::HotKeys,
    membership::{IdHash, Member},
    ports::{self, Clock},
    store::{GroupId, Store},
};

/// The part of the capacity that is kept for hot copies: one in this many bytes, as in groupcache.
const HOT_PART: u64 = 8;

/// Collects what a node is made of.
///
/// ```
/// use std::time::Duration;
/// use gaocache::{Error, GroupDefinition, NodeBuilder, Settings, loader};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let shout = loader(async |key: String| Ok::<_, Error>(key.to_uppercase()));
/// let node = NodeBuilder::new(Settings::loopback("node-0"))
///     .group(GroupDefinition::new("shout", shout).ttl(Duration::from_secs(60)))
///     .without_http()
///     .bind()
///     .await?;
/// assert!(node.addresses().grpc.is_some());
/// assert_eq!(node.addresses().http, None);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct NodeBuilder {
    settings: Settings,
    groups: Vec<GroupDefinition>,
    registry: Option<Registry>,
    measured: bool,
}

impl NodeBuilder {
    /// A node of these settings, without groups, and alone until it has a registry.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: Vec::new(),
            registry: None,
            measured: true,
        }
    }

    /// Adds a group.
    pub fn group(mut self, group: GroupDefinition) -> Self {
        self.groups.push(group);
        self
    }

    /// Finds other nodes there.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Serves no clients over HTTP; gRPC and admin stay as the settings have them.
    pub fn without_http(mut self) -> Self {
        self.settings.http = None;
        self
    }

    /// Neither counts nor times requests: for the benchmark that tells what that costs.
    pub(crate) fn unmeasured(mut self) -> Self {
        self.measured = false;
        self
    }

    /// Opens the listeners. Call it on the runtime that is to run membership, admin and probes.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: settings that can't work, two groups of one name; a port in
    /// use. Nothing has been announced then.
    pub async fn bind(self) -> Result<Node> {
        let Self {
            settings,
            groups,
            registry,
            measured,
        } = self;
        settings.check()?;
        if registry.is_some() && settings.grpc.is_none() {
            let what = "other nodes can't reach a node that has no gRPC listener";
            return Err(Error::new(ErrorKind::Configuration, what));
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let listeners = Listeners::bind(&settings)?;
        let addresses = listeners.addresses();
        let id: Arc<str> = settings.id.as_str().into();
        let me = member(&settings, addresses);
        let workers = workers(&settings);
        let metrics = Metrics::new()?;
        let registry = made(registry, &id, &metrics, &clock)?;
        let cluster = Arc::new(Cluster::new(id.clone()));
        let max_value = groups
            .iter()
            .map(|group| group.rules.max_value)
            .max()
            .unwrap_or(0);
        let peers = GrpcPeers::new(
            IdHash::of(&id),
            PeerRules {
                connect_timeout: settings.peer_connect_timeout,
                timeout: settings.peer_timeout,
                max_value,
                workers,
            },
            metrics.clone(),
        );
        let (copies, queued_copies) = if settings.replicas > 1 {
            CopyQueue::channel()
        } else {
            CopyQueue::nobody()
        };
        let hot_capacity = settings.capacity / HOT_PART;
        let lease = registry.lease();
        let fence = Arc::new(Fence::new(lease.unwrap_or(Duration::ZERO)));
        let store = |capacity| {
            let store = Store::new(capacity, max_value, groups.len());
            Arc::new(store.under(fence.clone()))
        };
        let shared = Shared {
            cluster: cluster.clone(),
            peers: Arc::new(peers.clone()),
            clock: clock.clone(),
            owned: store(settings.capacity - hot_capacity),
            hot: store(hot_capacity),
            hot_keys: Arc::new(HotKeys::new(settings.hot_after_requests)),
            replicas: settings.replicas,
            copies,
            wrap_task: trace::wrap_task,
        };
        let groups = assemble(groups, &metrics, &shared)?;
        let handoff = Handoff::new(
            HandoffParts {
                groups: groups.clone(),
                cluster: cluster.clone(),
                peers: shared.peers.clone(),
                clock: clock.clone(),
                store: shared.owned.clone(),
                observer: metrics.handoff(),
            },
            handoff_rules(&settings),
        );
        let (rings, _) = watch::channel(Arc::new(Topology::default()));
        let (readiness, _) = watch::channel("starting".into());
        let admin = Admin {
            id,
            readiness: readiness.subscribe(),
            rings: rings.subscribe(),
            groups: groups.clone(),
            metrics: metrics.clone(),
            changes: Changes::default(),
            clock: clock.clone(),
            stores: Arc::new([("owned", shared.owned), ("hot", shared.hot)]),
        };
        Ok(Node {
            me,
            listeners,
            registry,
            peers,
            max_value,
            handoff: Arc::new(handoff),
            lease,
            fence,
            queued_copies,
            clock: clock.clone(),
            service: Service::new(
                groups,
                &metrics,
                clock,
                Measuring {
                    requests: measured,
                    sampling: settings.sampling,
                },
            ),
            cluster,
            rings,
            readiness,
            metrics,
            admin,
            workers,
            drain_timeout: settings.drain_timeout,
            shutdown_timeout: settings.shutdown_timeout,
        })
    }
}

fn handoff_rules(settings: &Settings) -> HandoffRules {
    /// Uses that make an entry worth a copy where only the hot ones are copied.
    const HOT: u32 = 4;
    HandoffRules {
        replicas: settings.replicas,
        copy_from_use_count: match settings.replicate {
            Replicate::All => 0,
            Replicate::Hot => HOT,
        },
        bytes_per_second: settings.handoff_bytes_per_second,
    }
}

/// Threads for the listeners, if there are any that need them.
fn workers(settings: &Settings) -> usize {
    if settings.grpc.is_none() && settings.http.is_none() {
        return 0;
    }
    match settings.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

#[cfg_attr(not(feature = "etcd"), allow(unused_variables))]
fn made(
    registry: Option<Registry>,
    id: &str,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn ports::Registry>> {
    Ok(match registry.unwrap_or_else(Registry::memory).0 {
        Choice::Made(registry) => registry,
        Choice::Fixed(peers) => Arc::new(FixedRegistry::new(fixed::parse(&peers, id)?)),
        #[cfg(feature = "etcd")]
        Choice::Etcd { config, service } => {
            let (metrics, clock) = (metrics.clone(), clock.clone());
            Arc::new(EtcdRegistry::new(config, &service, metrics, clock))
        }
    })
}

fn member(settings: &Settings, addresses: Addresses) -> Member {
    let port = |address: Option<SocketAddr>| address.map_or(0, |it| it.port());
    let bound = addresses.grpc.map(|it| it.ip());
    let host = match bound {
        _ if !settings.advertise_host.is_empty() => settings.advertise_host.clone(),
        Some(bound) if !bound.is_unspecified() => bound.to_string(),
        Some(_) => found_host(),
        // Nobody asks a node that is alone.
        None => Ipv4Addr::LOCALHOST.to_string(),
    };
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host,
    };
    Member {
        zone: settings.zone.as_str().into(),
        weight: settings.weight,
        version: env!("CARGO_PKG_VERSION").into(),
        admin_port: port(addresses.admin),
        instance: format!("{:016x}", fastrand::u64(..)).into(),
        ..Member::new(
            settings.id.as_str(),
            format!("{host}:{}", port(addresses.grpc)),
        )
    }
}

/// The address of the first interface that leads out of the machine; loopback if there is none.
fn found_host() -> String {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let address = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| interface.ip())
        // IPv4 first: where both are there, everybody reaches it.
        .min_by_key(|address| !address.is_ipv4());
    address.map_or_else(|| "127.0.0.1".into(), |address| address.to_string())
}

fn assemble(
    definitions: Vec<GroupDefinition>,
    metrics: &Metrics,
    shared: &Shared,
) -> Result<Groups> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, definition) in definitions.into_iter().enumerate() {
        let name = &definition.rules.name;
        if groups.iter().any(|group| group.name() == name) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("two groups have the name '{name}'"),
            ));
        }
        let id = u16::try_from(number).map(GroupId).map_err(|_| {
            Error::new(
                ErrorKind::InvalidRequest,
                "more groups than a node can have",
            )
        })?;
        let observer = metrics.group(name);
        let origin = Guarded::new(definition.origin, observer.clone(), definition.bounds);
        groups.push(Group::new(
            id,
            definition.rules,
            Arc::new(origin),
            observer,
            shared.clone(),
        ));
    }
    Ok(Groups::new(groups))
}
