//! From settings to the plain rules that edges and core take.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{Hosts, Limits, admission::Listener, listeners::Addresses, tls::observer};
#[cfg(feature = "etcd")]
use crate::registry::etcd::{EtcdRegistry, check_service};
use crate::{
    auth,
    fairness::{Quota, Quotas},
    group::GroupDefinition,
    members::{FIXED_NEEDS_IDENTITY, fixed_members},
    redis::RedisRules,
    registry::{Choice, Registry, fixed::FixedRegistry},
    rpc::{
        peers::{LoadBounds, PeerRules},
        routed::FrontRules,
    },
    settings::{ClientLimits, PeerIdentity, Replicate, Settings, largest_value},
    telemetry::{metrics::Metrics, throttle::Throttle},
    tls::{PeerFiles, PeerTls},
    traffic::Budget,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{GROUP_NAME_RULE, is_group_name},
    handoff::HandoffRules,
    membership::{Contact, KeyFingerprint, Member, SpeaksTls},
    ports::{self, Clock},
    store::MemoryQuota,
};

/// The part of the capacity that bounds, by default, the bytes in flight: one eighth.
const IN_FLIGHT_PART: u64 = 8;

/// Where the node is to listen.
pub(super) fn listen(settings: &Settings) -> Addresses {
    Addresses {
        grpc: settings.grpc,
        http: settings.http,
        redis: settings.redis,
        peer: settings.peer,
        admin: settings.admin,
    }
}

/// The hosts that the listeners answer for: the node's own names, and what the settings allow.
pub(super) fn hosts(settings: &Settings) -> Hosts {
    let own = [settings.id.as_str(), settings.advertise_host.as_str()];
    let own = own.into_iter().filter(|name| !name.is_empty());
    let of = |allowed| Arc::new(auth::Hosts::new(own.clone(), allowed));
    Hosts {
        http: of(&settings.http_allowed_hosts),
        admin: of(&settings.admin_allowed_hosts),
    }
}

/// What the node may take: threads, and time to stop.
pub(super) fn limits(settings: &Settings) -> Limits {
    Limits {
        workers: workers(settings),
        drain: settings.drain_timeout,
        shutdown: settings.shutdown_timeout,
        clients: settings.limits,
    }
}

/// The budget for bytes in flight. A largest value always fits.
pub(super) fn in_flight(settings: &Settings, max_value: u64) -> Result<Arc<Budget>> {
    let limit = match settings.in_flight {
        0 => Budget::least(max_value).max(settings.capacity / IN_FLIGHT_PART),
        limit => limit,
    };
    Budget::check(limit, max_value).map_err(|reason| {
        let what = format!("the limit on bytes in flight is {limit} bytes: {reason}");
        Error::new(ErrorKind::Configuration, what)
    })?;
    Ok(Budget::new(limit))
}

/// What the gRPC listeners take.
pub(super) fn front(settings: &Settings, max_value: u64) -> FrontRules {
    FrontRules {
        max_value,
        max_keys: settings.limits.max_keys_per_request,
        patience: settings.limits.read_timeout,
    }
}

/// What the listener for Redis clients takes.
pub(super) fn redis(limits: &ClientLimits) -> RedisRules {
    RedisRules {
        max_keys: limits.max_keys_per_request,
        patience: limits.read_timeout,
    }
}

/// What one client may ask for.
pub(super) fn quota(limits: &ClientLimits, budget: &Budget) -> Quota {
    Quota::of(
        budget.requests(),
        limits.max_requests_per_second_per_client,
        limits.max_misses_per_client,
    )
}

/// The same, with what clients have asked for. Refusals are counted and logged.
pub(super) fn quotas(limits: &ClientLimits, budget: &Budget, metrics: &Metrics) -> Arc<Quotas> {
    let refusals = metrics.connections.client_refusals.clone();
    let throttle = Throttle::default();
    Quotas::new(quota(limits, budget), move |client, excess| {
        let reason = excess.reason();
        refusals.with_label_values(&[reason]).inc();
        if let Some(suppressed) = throttle.due(reason) {
            let client = format!("{:016x}", client.0);
            tracing::warn!(client, reason, suppressed, "refused a client's requests");
        }
    })
}

/// Threads for the listeners, if there are any that need them.
fn workers(settings: &Settings) -> usize {
    let listeners = [settings.grpc, settings.http, settings.redis, settings.peer];
    if listeners.iter().all(Option::is_none) {
        return 0;
    }
    match settings.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// How peers are called. What a load of another node may take follows from the group's own limits,
/// so that no setting can contradict them.
pub(super) fn peers(
    settings: &Settings,
    groups: &[GroupDefinition],
    max_value: u64,
    budget: Arc<Budget>,
    tls: PeerTls,
) -> PeerRules {
    /// How long a connection to another node is kept without a call.
    const IDLE: Duration = Duration::from_secs(120);
    PeerRules {
        connect_timeout: settings.peer_connect_timeout,
        timeout: settings.peer_timeout,
        idle: IDLE,
        max_value,
        budget,
        workers: workers(settings),
        tls,
        loads: loads(groups),
    }
}

/// What bounds the loads of each group.
pub(super) fn loads(groups: &[GroupDefinition]) -> HashMap<Arc<str>, LoadBounds> {
    let loads = groups.iter().map(|group| {
        let bounds = LoadBounds {
            longest: group.bounds.longest_load(),
            max_concurrency: group.bounds.max_concurrency,
            max_queue: group.bounds.max_queue,
        };
        (group.rules.name.clone(), bounds)
    });
    loads.collect()
}

/// How this node and others know each other.
pub(super) fn peer_tls(
    settings: &Settings,
    registry: Option<&Registry>,
    metrics: &Arc<Metrics>,
) -> Result<PeerTls> {
    match &settings.peer_identity {
        PeerIdentity::Plaintext => Ok(PeerTls::plaintext()),
        PeerIdentity::RegisteredKeys => {
            if let Some(Registry(Choice::Fixed(_))) = registry {
                return Err(Error::new(ErrorKind::Configuration, FIXED_NEEDS_IDENTITY));
            }
            PeerTls::keys()
        }
        PeerIdentity::Certificates {
            ca,
            cert,
            key,
            allowed,
        } => {
            let files = PeerFiles {
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
                allowed: allowed.clone(),
            };
            PeerTls::files(files, observer(Listener::Peer.name(), metrics))
        }
    }
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Configuration, what)
}

/// What the types allow and no group can be.
pub(super) fn check(groups: &[GroupDefinition], capacity: u64) -> Result<()> {
    MemoryQuota::check_all(groups.iter().map(|it| it.rules.memory)).map_err(wrong)?;
    for group in groups {
        let name = &group.rules.name;
        if !is_group_name(name) {
            let what = format!(
                "group '{}': its name {GROUP_NAME_RULE}",
                name.escape_debug()
            );
            return Err(wrong(what));
        }
        largest_value(group.rules.max_value, capacity)
            .map_err(|reason| wrong(format!("group '{name}': max_value {reason}")))?;
        let memory = group.rules.memory.check();
        memory.map_err(|reason| wrong(format!("group '{name}': {reason}")))?;
        group.bounds.check().map_err(|error| {
            let what = format!("group '{}': {error}", group.rules.name);
            Error::new(error.kind(), what).with_source(error)
        })?;
    }
    Ok(())
}

/// How entries move.
pub(super) fn handoff(settings: &Settings) -> HandoffRules {
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

/// The registry that was chosen; without a choice the node is alone.
#[cfg_attr(not(feature = "etcd"), allow(unused_variables))]
pub(super) fn registry(
    chosen: Option<Registry>,
    id: &str,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn ports::Registry>> {
    Ok(match chosen.unwrap_or_else(Registry::memory).0 {
        Choice::Made(registry) => registry,
        Choice::Fixed(peers) => Arc::new(FixedRegistry::new(fixed_members(&peers, id)?)),
        #[cfg(feature = "etcd")]
        Choice::Etcd {
            config,
            service,
            cluster_id,
        } => {
            check_service(&service).map_err(|why| {
                let what = format!("the name of the service '{service}' {why}");
                Error::new(ErrorKind::Configuration, what)
            })?;
            let (metrics, clock) = (metrics.clone(), clock.clone());
            Arc::new(EtcdRegistry::new(
                config,
                &service,
                &cluster_id,
                metrics,
                clock,
            ))
        }
    })
}

/// How the others will know this node, which is bound to `bound`.
pub(super) fn member(settings: &Settings, bound: Addresses, key: Option<KeyFingerprint>) -> Member {
    let port = |address: Option<SocketAddr>| address.map_or(0, |it| it.port());
    let host = match bound.peer.map(|it| it.ip()) {
        _ if !settings.advertise_host.is_empty() => settings.advertise_host.clone(),
        Some(ip) if !ip.is_unspecified() => ip.to_string(),
        Some(_) => found_host(),
        // A node that is alone is not asked by others.
        None => Ipv4Addr::LOCALHOST.to_string(),
    };
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host,
    };
    let at = |address| Arc::<str>::from(format!("{host}:{}", port(address)));
    Member {
        zone: settings.zone.as_str().into(),
        weight: settings.weight,
        version: env!("CARGO_PKG_VERSION").into(),
        tls: SpeaksTls {
            clients: settings.grpc_tls.is_some(),
            admin: settings.admin_tls.is_some(),
        },
        admin_port: port(bound.admin),
        instance: format!("{:016x}", fastrand::u64(..)).into(),
        contact: Contact {
            address: at(bound.peer),
            key,
        },
        // Without a listener for clients, only peers ask it.
        ..Member::new(settings.id.as_str(), at(bound.grpc.or(bound.peer)))
    }
}

/// The address of the first interface that leads out of the machine; loopback if there is none.
fn found_host() -> String {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let address = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(|interface| interface.ip())
        // IPv4 first: where both are there, every client can reach it.
        .min_by_key(|address| !address.is_ipv4());
    address.map_or_else(|| "127.0.0.1".into(), |address| address.to_string())
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::config::schema;

    #[test]
    fn the_reference_names_the_part_of_the_capacity_that_bounds_bytes_in_flight() {
        let mut settings = schema::SETTINGS.iter();
        let setting = settings.find(|it| it.name == "cache.in_flight");
        let about = setting.expect("there is one").about;
        assert_eq!(
            IN_FLIGHT_PART, 8,
            "named below, and in `Settings::in_flight`"
        );
        assert!(about.contains("one eighth of `capacity`"), "{about}");
    }
}
