//! From settings and parts to a bound node.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{Node, SystemClock, listeners::Listeners};
use crate::{
    admin::{Admin, Changes},
    config::{EtcdSettings, GroupSettings, OriginKind, RegistryKind, Replicate, Settings, seconds},
    origin::{
        file::FileOrigin,
        guarded::{Bounds, Guarded},
        http::{HttpOrigin, HttpRules},
    },
    registry::{
        etcd::EtcdRegistry,
        fixed::{self, FixedRegistry},
        memory::MemoryRegistry,
    },
    rpc::peers::{GrpcPeers, PeerRules},
    service::{Measuring, Service},
    telemetry::{
        metrics::Metrics,
        trace::{self, Sampling},
    },
};
use gaocache_core::{
    cluster::{Cluster, Topology},
    error::{Error, ErrorKind, Result},
    fence::Fence,
    group::{Group, GroupRules, Groups, Shared},
    handoff::{CopyQueue, Handoff, HandoffParts, HandoffRules},
    hot::HotKeys,
    membership::{IdHash, Member},
    ports::{Clock, Origin, Registry},
    store::{GroupId, Store},
};
use gaocache_discovery::{Credentials, EtcdConfig, TlsFiles};

/// The part of the capacity that is kept for hot copies: one in this many bytes, as in groupcache.
const HOT_PART: u64 = 8;

/// A group that a program brings along, with its own loader.
pub struct GroupDefinition {
    /// Name, times to live, largest value.
    pub rules: GroupRules,
    /// Where values come from.
    pub origin: Arc<dyn Origin>,
    /// How much the origin is asked at once.
    pub bounds: Bounds,
}

impl GroupDefinition {
    /// A group whose values live for `ttl`, of at most 8 MiB, loaded 64 at a time.
    pub fn new(name: &str, ttl: Duration, origin: Arc<dyn Origin>) -> Self {
        Self {
            rules: GroupRules {
                name: name.into(),
                ttl: Some(ttl),
                negative_ttl: Duration::ZERO,
                max_value: 8 << 20,
            },
            origin,
            bounds: Bounds {
                max_concurrency: 64,
                max_queue: 10_000,
                ramp: Duration::ZERO,
            },
        }
    }
}

/// Collects what a node is made of.
pub struct NodeBuilder {
    settings: Settings,
    groups: Vec<GroupDefinition>,
    registry: Option<Arc<dyn Registry>>,
    clock: Arc<dyn Clock>,
    measured: bool,
}

impl NodeBuilder {
    /// A node of these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: Vec::new(),
            registry: None,
            clock: Arc::new(SystemClock),
            measured: true,
        }
    }

    /// Adds a group beside those of the settings.
    #[must_use]
    pub fn group(mut self, group: GroupDefinition) -> Self {
        self.groups.push(group);
        self
    }

    /// Uses this registry instead of the settings' one.
    #[must_use]
    pub fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Uses this clock instead of the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Neither counts nor times requests: for the benchmark that tells what that costs.
    #[must_use]
    pub fn unmeasured(mut self) -> Self {
        self.measured = false;
        self
    }

    /// Opens the listeners. Call it on the runtime that is to run membership, admin and probes.
    ///
    /// # Errors
    /// A port in use, an origin that can't work, two groups of one name. Nothing has been announced
    /// then.
    pub async fn bind(self) -> Result<Node> {
        let Self {
            settings,
            mut groups,
            registry,
            clock,
            measured,
        } = self;
        for group in &settings.groups {
            groups.push(definition(group)?);
        }
        let listeners = Listeners::bind(&settings)?;
        let addresses = listeners.addresses();
        let id: Arc<str> = settings.node.id.as_str().into();
        let me = member(
            &settings,
            addresses.grpc.ip(),
            addresses.grpc.port(),
            addresses.admin.port(),
        );
        let workers = match settings.node.worker_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let metrics = Metrics::new()?;
        let registry = match registry {
            Some(registry) => registry,
            None => configured_registry(&settings, &metrics, &clock)?,
        };
        let cluster = Arc::new(Cluster::new(id.clone()));
        let max_value = groups
            .iter()
            .map(|group| group.rules.max_value)
            .max()
            .unwrap_or(0);
        let peers = GrpcPeers::new(
            IdHash::of(&id),
            PeerRules {
                connect_timeout: seconds(settings.peers.connect_timeout_seconds),
                timeout: seconds(settings.peers.timeout_seconds),
                max_value,
                workers,
            },
            metrics.clone(),
        );
        let (copies, queued_copies) = if settings.cache.replicas > 1 {
            CopyQueue::channel()
        } else {
            CopyQueue::nobody()
        };
        let hot_capacity = settings.cache.capacity / HOT_PART;
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
            owned: store(settings.cache.capacity - hot_capacity),
            hot: store(hot_capacity),
            hot_keys: Arc::new(HotKeys::new(settings.cache.hot_after_requests)),
            replicas: settings.cache.replicas,
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
                    sampling: Sampling::new(&settings.trace),
                },
            ),
            cluster,
            rings,
            readiness,
            metrics,
            admin,
            workers,
            drain_timeout: seconds(settings.node.drain_timeout_seconds),
            shutdown_timeout: seconds(settings.node.shutdown_timeout_seconds),
        })
    }
}

fn handoff_rules(settings: &Settings) -> HandoffRules {
    /// Uses that make an entry worth a copy where only the hot ones are copied.
    const HOT: u32 = 4;
    HandoffRules {
        replicas: settings.cache.replicas,
        copy_from_use_count: match settings.cache.replicate {
            Replicate::All => 0,
            Replicate::Hot => HOT,
        },
        bytes_per_second: settings.handoff.max_bytes_per_second,
    }
}

/// How etcd is reached, from its settings.
pub fn etcd_config(settings: &EtcdSettings) -> EtcdConfig {
    let file = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    let tls = &settings.tls;
    EtcdConfig {
        credentials: file(&settings.password_file).map(|password_file| Credentials {
            username: settings.username.clone(),
            password_file,
        }),
        tls: Some(TlsFiles {
            ca: file(&tls.ca),
            identity: file(&tls.cert).zip(file(&tls.key)),
        }),
        lease_ttl: Duration::from_secs(settings.lease_ttl_seconds),
        ..EtcdConfig::new(settings.endpoints.clone())
    }
}

fn configured_registry(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Registry>> {
    let registry = &settings.registry;
    Ok(match registry.kind {
        RegistryKind::Memory => Arc::new(MemoryRegistry::default()),
        RegistryKind::Static => {
            let members = fixed::parse(&registry.fixed.peers, &settings.node.id)?;
            Arc::new(FixedRegistry::new(members))
        }
        RegistryKind::Etcd => {
            let config = etcd_config(&registry.etcd);
            let (metrics, clock) = (metrics.clone(), clock.clone());
            Arc::new(EtcdRegistry::new(config, &registry.service, metrics, clock))
        }
    })
}

fn member(settings: &Settings, bound: IpAddr, port: u16, admin_port: u16) -> Member {
    let node = &settings.node;
    let host = if !node.advertise_host.is_empty() {
        node.advertise_host.clone()
    } else if !bound.is_unspecified() {
        bound.to_string()
    } else {
        found_host()
    };
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host,
    };
    Member {
        zone: node.zone.as_str().into(),
        weight: node.weight,
        version: env!("CARGO_PKG_VERSION").into(),
        admin_port,
        instance: format!("{:016x}", fastrand::u64(..)).into(),
        ..Member::new(node.id.as_str(), format!("{host}:{port}"))
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

fn definition(settings: &GroupSettings) -> Result<GroupDefinition> {
    let origin = &settings.origin;
    let built: Arc<dyn Origin> = match origin.kind {
        OriginKind::Http => Arc::new(HttpOrigin::new(HttpRules {
            template: origin.url.clone(),
            timeout: seconds(origin.timeout_seconds),
            retries: origin.retries,
            max_value: settings.max_value,
            honour_cache_control: origin.honour_cache_control,
            headers: origin.headers.clone(),
        })?),
        OriginKind::File => Arc::new(FileOrigin::open(&origin.path, settings.max_value)?),
    };
    let ttl = seconds(settings.ttl_seconds);
    Ok(GroupDefinition {
        rules: GroupRules {
            name: settings.name.as_str().into(),
            ttl: (!ttl.is_zero()).then_some(ttl),
            negative_ttl: seconds(settings.negative_ttl_seconds),
            max_value: settings.max_value,
        },
        origin: built,
        bounds: Bounds {
            max_concurrency: origin.max_concurrency,
            max_queue: origin.max_queue,
            ramp: seconds(origin.ramp_seconds),
        },
    })
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
        let id = u16::try_from(number)
            .map(GroupId)
            .map_err(|_| Error::new(ErrorKind::InvalidRequest, "too many groups"))?;
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
