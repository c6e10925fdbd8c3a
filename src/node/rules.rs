//! From settings to the plain rules that edges and core take. Only this room knows both.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Addresses, GroupDefinition, Limits};
use crate::{
    config::{
        EtcdSettings, GroupSettings, LogFormat, LogSettings, NodeSettings, OriginKind,
        RegistryKind, Replicate, Sampler, Settings, TraceSettings, fixed_members, seconds,
    },
    origin::{
        file::FileOrigin,
        guarded::Bounds,
        http::{HttpOrigin, HttpRules},
    },
    registry::{
        etcd::{EtcdRegistry, new_instance},
        fixed::FixedRegistry,
        memory::MemoryRegistry,
    },
    rpc::peers::PeerRules,
    telemetry::{
        self, Telemetry, exporter::ExporterRules, log::LogRules, metrics::Metrics, trace::Sampling,
    },
};
use gaocache_core::{
    error::Result,
    group::GroupRules,
    handoff::HandoffRules,
    membership::Member,
    ports::{Clock, Origin, Registry},
};
use gaocache_discovery::{Credentials, EtcdConfig, TlsFiles};

/// Where the node is to listen.
pub(super) fn listen(settings: &Settings) -> Addresses {
    Addresses {
        grpc: settings.grpc.listen,
        http: settings.http.listen,
        admin: settings.admin.listen,
    }
}

/// What the node may take: threads, and time to stop.
pub(super) fn limits(settings: &NodeSettings) -> Limits {
    Limits {
        workers: workers(settings),
        drain: seconds(settings.drain_timeout_seconds),
        shutdown: seconds(settings.shutdown_timeout_seconds),
    }
}

fn workers(settings: &NodeSettings) -> usize {
    match settings.worker_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// How peers are called.
pub(super) fn peers(settings: &Settings, max_value: u64) -> PeerRules {
    PeerRules {
        connect_timeout: seconds(settings.peers.connect_timeout_seconds),
        timeout: seconds(settings.peers.timeout_seconds),
        max_value,
        workers: workers(&settings.node),
    }
}

/// What the log shows.
fn log(settings: &LogSettings) -> LogRules {
    LogRules {
        level: settings.level.clone(),
        json: settings.format == LogFormat::Json,
    }
}

/// Where spans are sent; `None`: there are none.
fn exporter(settings: &TraceSettings, instance: &str) -> Option<ExporterRules> {
    settings.is_on().then(|| ExporterRules {
        endpoint: settings.endpoint.clone(),
        ca: file(&settings.ca),
        service_name: settings.service_name.clone(),
        instance: instance.to_owned(),
        max_queue: settings.max_queue,
        timeout: seconds(settings.timeout_seconds),
    })
}

/// Which requests have spans.
pub(super) fn sampling(settings: &TraceSettings) -> Sampling {
    let (ratio, parent_based) = match settings.sampler {
        Sampler::ParentBasedRatio => (settings.sample_ratio, true),
        Sampler::ParentBasedAlwaysOn => (1.0, true),
        Sampler::ParentBasedAlwaysOff => (0.0, true),
        Sampler::Ratio => (settings.sample_ratio, false),
        Sampler::AlwaysOn => (1.0, false),
        Sampler::AlwaysOff => (0.0, false),
    };
    Sampling {
        ratio: settings.is_on().then_some(ratio),
        parent_based,
        keys: settings.keys,
    }
}

/// Starts the log, and the exporter of spans where the settings have one, for the whole process.
/// `instance` tells this process from others.
///
/// # Errors
/// As [`telemetry::start`].
pub fn start_telemetry(settings: &Settings, instance: &str) -> Result<Telemetry> {
    let spans = exporter(&settings.trace, instance);
    telemetry::start(&log(&settings.log), spans.as_ref())
}

/// How entries move.
pub(super) fn handoff(settings: &Settings) -> HandoffRules {
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

fn file(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

/// How etcd is reached, from its settings.
pub fn etcd_config(settings: &EtcdSettings) -> EtcdConfig {
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

/// The registry that the settings name.
pub(super) fn registry(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Registry>> {
    let registry = &settings.registry;
    Ok(match registry.kind {
        RegistryKind::Memory => Arc::new(MemoryRegistry::default()),
        RegistryKind::Static => {
            let members = fixed_members(&registry.fixed.peers, &settings.node.id)?;
            Arc::new(FixedRegistry::new(members))
        }
        RegistryKind::Etcd => {
            let config = etcd_config(&registry.etcd);
            let (metrics, clock) = (metrics.clone(), clock.clone());
            Arc::new(EtcdRegistry::new(config, &registry.service, metrics, clock))
        }
    })
}

/// How the others will know this node, which is bound to `bound`.
pub(super) fn member(node: &NodeSettings, bound: Addresses) -> Member {
    let (ip, port) = (bound.grpc.ip(), bound.grpc.port());
    let host = if !node.advertise_host.is_empty() {
        node.advertise_host.clone()
    } else if !ip.is_unspecified() {
        ip.to_string()
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
        admin_port: bound.admin.port(),
        instance: new_instance().into(),
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

/// A group of the settings, with its origin.
pub(super) fn group(settings: &GroupSettings) -> Result<GroupDefinition> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::loopback;

    #[test]
    fn samplers_are_shares_with_or_without_the_caller_s_say() {
        let on = "trace.endpoint=http://127.0.0.1:4317";
        let of = |further: &[&str]| {
            let settings = loopback("n", further).expect("good settings");
            let sampling = sampling(&settings.trace);
            (sampling.ratio, sampling.parent_based)
        };
        for (sampler, wanted) in [
            ("parentbased_traceidratio", (Some(0.25), true)),
            ("parentbased_always_on", (Some(1.0), true)),
            ("parentbased_always_off", (Some(0.0), true)),
            ("traceidratio", (Some(0.25), false)),
            ("always_on", (Some(1.0), false)),
            ("always_off", (Some(0.0), false)),
        ] {
            let sampler = format!("trace.sampler={sampler}");
            let given = of(&[on, "trace.sample_ratio=0.25", &sampler]);
            assert_eq!(given, wanted, "{sampler}");
        }
        let always = "trace.sampler=always_on";
        assert_eq!(of(&[always]), (None, false), "no endpoint");
        let off = of(&[on, always, "trace.enabled=false"]);
        assert_eq!(off, (None, false), "switched off");
    }
}
