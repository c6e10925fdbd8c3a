//! A node of the program: its groups, their origins and its registry as the settings have them.

mod telemetry;

use std::{sync::Arc, time::Duration};

use super::{NodeBuilder, descriptors, rules};
use crate::{
    auth::{Action, AuditTo, AuthRules, JwtRules, KeysFrom},
    config::{
        ClientAuth, Config, EtcdSettings, GroupSettings, JwtSettings, LimitSettings,
        ListenerTlsSettings, OriginKind, OriginSettings, PeerSettings, QueryRule, RegistryKind,
        file, seconds, zone,
    },
    group::GroupDefinition,
    http_client::{Proxies, template::kept_headers},
    origin::{
        bounds::Bounds,
        breaker::BreakerRules,
        file::FileOrigin,
        http::{HttpOrigin, HttpRules},
    },
    registry::{Choice, Registry},
    settings::{ClientCertificates, ClientLimits, ListenerTls, PeerIdentity, Settings},
    traffic::Budget,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{GroupRules, Query},
    ports::Origin,
};
use gaocache_discovery::{Credentials, EtcdConfig, TlsFiles};
pub(super) use telemetry::request_log;
pub use telemetry::start_telemetry;

impl NodeBuilder {
    /// A node as the program's settings want it.
    ///
    /// # Errors
    /// An origin that can't work, or too small a budget.
    pub(crate) fn configured(config: &Config) -> Result<Self> {
        descriptors::raise();
        let settings = settings(config)?;
        let largest = config.groups.iter().map(|group| group.max_value).max();
        let budget = rules::in_flight(&settings, largest.unwrap_or(0))?;
        let mut builder = Self::new(settings).registry(registry(config));
        for group in &config.groups {
            builder = builder.group(definition(group, proxies(config), &budget)?);
        }
        Ok(builder.budget(budget))
    }
}

/// What the program's settings say of the node.
fn settings(config: &Config) -> Result<Settings> {
    let Config { node, cache, .. } = config;
    let wrong = |why| Error::new(ErrorKind::Configuration, format!("node.zone_file: {why}"));
    Ok(Settings {
        id: node.id.clone(),
        advertise_host: node.advertise_host.clone(),
        zone: zone::of(node).map_err(wrong)?,
        weight: node.weight,
        worker_threads: node.worker_threads,
        drain_timeout: seconds(node.drain_timeout_seconds),
        shutdown_timeout: seconds(node.shutdown_timeout_seconds),
        grpc: Some(config.grpc.listen),
        http: config.http.enabled.then_some(config.http.listen),
        redis: config.redis.listen,
        admin: Some(config.admin.listen),
        grpc_tls: listener_tls(&config.grpc.tls),
        http_tls: listener_tls(&config.http.tls),
        redis_tls: listener_tls(&config.redis.tls),
        admin_tls: listener_tls(&config.admin.tls),
        peer: Some(config.peer.listen),
        peer_identity: peer_identity(&config.peer),
        peer_connect_timeout: seconds(config.peer.connect_timeout_seconds),
        peer_timeout: seconds(config.peer.timeout_seconds),
        capacity: cache.capacity,
        hot_after_requests: cache.hot_after_requests,
        replicas: cache.replicas,
        replicate: cache.replicate,
        handoff_bytes_per_second: config.handoff.max_bytes_per_second,
        in_flight: cache.in_flight,
        limits: client_limits(&config.limits),
        auth: auth_rules(config, proxies(config)),
        admin_socket: file(&config.admin.socket),
        admin_insecure: config.admin.insecure,
        http_allowed_hosts: config.http.allowed_hosts.clone(),
        admin_allowed_hosts: config.admin.allowed_hosts.clone(),
        grpc_reflection: config.grpc.reflection,
        sampling: telemetry::sampling(&config.trace),
    })
}

/// Who may do what.
pub(super) fn auth_rules(config: &Config, proxies: Proxies) -> AuthRules {
    let auth = &config.auth;
    let audit = match config.log.audit.as_str() {
        "off" | "" => AuditTo::Off,
        "stdout" => AuditTo::Stdout,
        "stderr" => AuditTo::Stderr,
        path => AuditTo::File(path.into()),
    };
    let roles = auth.anonymous.iter();
    AuthRules {
        anonymous: roles.filter_map(|role| Action::of_role(role)).collect(),
        grants: auth.grants.clone(),
        token_file: file(&auth.token_file),
        audit,
        jwt: jwt_rules(&auth.jwt, proxies),
    }
}

/// Which proxies the HTTP clients of the node use.
pub(super) fn proxies(config: &Config) -> Proxies {
    Proxies::from_environment(config.node.proxy_from_environment)
}

/// Which JWTs count, if any do.
fn jwt_rules(jwt: &JwtSettings, proxies: Proxies) -> Option<JwtRules> {
    let keys = match file(&jwt.jwks_file) {
        Some(file) => KeysFrom::File(file),
        None if jwt.jwks_url.is_empty() => return None,
        None => KeysFrom::Url {
            url: jwt.jwks_url.clone(),
            ca: file(&jwt.ca),
            token_file: file(&jwt.bearer_file),
            proxies,
        },
    };
    Some(JwtRules {
        keys,
        issuer: jwt.issuer.clone(),
        audience: jwt.audience.clone(),
    })
}

/// TLS of a listener, if it has any.
fn listener_tls(settings: &ListenerTlsSettings) -> Option<ListenerTls> {
    let ca = settings.client_ca.clone();
    settings.is_on().then(|| {
        let mut tls = ListenerTls::new(&settings.cert, &settings.key);
        tls.clients = match settings.client_auth {
            ClientAuth::None => ClientCertificates::NotAsked,
            ClientAuth::Optional => ClientCertificates::Optional { ca },
            ClientAuth::Required => ClientCertificates::Required { ca },
        };
        tls
    })
}

/// How nodes know each other.
fn peer_identity(settings: &PeerSettings) -> PeerIdentity {
    if settings.insecure {
        return PeerIdentity::Plaintext;
    }
    match file(&settings.tls.ca) {
        None => PeerIdentity::RegisteredKeys,
        Some(ca) => PeerIdentity::Certificates {
            ca,
            cert: settings.tls.cert.clone(),
            key: settings.tls.key.clone(),
            allowed: settings.allowed_peers.clone(),
        },
    }
}

/// What clients may take.
pub(super) fn client_limits(limits: &LimitSettings) -> ClientLimits {
    ClientLimits {
        max_connections: limits.max_connections,
        max_connections_per_address: limits.max_connections_per_address,
        max_admin_connections: limits.max_admin_connections,
        max_admin_connections_per_address: limits.max_admin_connections_per_address,
        reserved_descriptors: limits.reserved_descriptors,
        handshake_timeout: seconds(limits.handshake_timeout_seconds),
        idle_timeout: seconds(limits.idle_timeout_seconds),
        read_timeout: seconds(limits.read_timeout_seconds),
        write_timeout: seconds(limits.write_timeout_seconds),
        untrusted_timeout: seconds(limits.untrusted_timeout_seconds),
        max_control_frames_per_second: limits.max_control_frames_per_second,
        max_keys_per_request: limits.max_keys_per_request,
        max_requests_per_second_per_client: limits.max_requests_per_second_per_client,
        max_misses_per_client: limits.max_misses_per_client,
    }
}

fn registry(config: &Config) -> Registry {
    let registry = &config.registry;
    match registry.kind {
        RegistryKind::Memory => Registry::memory(),
        RegistryKind::Static => Registry::fixed(&registry.fixed.peers),
        RegistryKind::Etcd => Registry(Choice::Etcd {
            config: etcd_config(&registry.etcd),
            service: registry.service.clone(),
            cluster_id: registry.cluster_id.clone(),
        }),
    }
}

/// How etcd is reached, from its settings.
pub(crate) fn etcd_config(settings: &EtcdSettings) -> EtcdConfig {
    let lease_ttl = Duration::from_secs(settings.lease_ttl_seconds);
    let mut tls = TlsFiles::default();
    tls.ca = file(&settings.tls.ca);
    tls.identity = file(&settings.tls.cert).zip(file(&settings.tls.key));
    let mut config = EtcdConfig::new(settings.endpoints.clone()).with_tls(tls);
    config.credentials = file(&settings.password_file)
        .map(|password_file| Credentials::new(&settings.username, password_file));
    config.with_lease_ttl(lease_ttl)
}

/// A group of the settings, with its origin.
pub(super) fn definition(
    settings: &GroupSettings,
    proxies: Proxies,
    budget: &Arc<Budget>,
) -> Result<GroupDefinition> {
    let origin = &settings.origin;
    let (built, load_timeout): (Arc<dyn Origin>, _) = match origin.kind {
        OriginKind::Http => {
            let rules = HttpRules {
                template: origin.url.clone(),
                timeout: seconds(origin.timeout_seconds),
                retries: origin.retries,
                max_value: settings.max_value,
                honour_cache_control: origin.honour_cache_control,
                keep_not_found_body: origin.keep_not_found_body,
                keep_headers: kept_headers(&origin.keep_headers)?,
                headers: origin.headers.clone(),
                proxies,
                ca: file(&origin.ca),
                budget: budget.clone(),
            };
            let longest = rules.longest_load();
            (Arc::new(HttpOrigin::new(rules)?), longest)
        }
        OriginKind::File => {
            let origin_timeout = seconds(origin.timeout_seconds);
            let opened = FileOrigin::open(
                &origin.path,
                settings.max_value,
                budget.clone(),
                origin.max_concurrency,
            )?;
            (Arc::new(opened), origin_timeout)
        }
    };
    let unless_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
    Ok(GroupDefinition {
        rules: GroupRules {
            name: settings.name.as_str().into(),
            ttl: unless_zero(seconds(settings.ttl_seconds)),
            max_ttl: unless_zero(seconds(settings.max_ttl_seconds)),
            ttl_jitter: settings.ttl_jitter,
            stale_while_revalidate: seconds(settings.stale_while_revalidate_seconds),
            stale_if_error: seconds(settings.stale_if_error_seconds),
            negative_ttl: seconds(settings.negative_ttl_seconds),
            error_ttl: seconds(settings.error_ttl_seconds),
            max_value: settings.max_value,
            origin_decides: origin.honour_cache_control,
            soft_timeout: seconds(settings.soft_timeout_seconds),
            refresh_ahead: settings.refresh_ahead,
            query: match settings.query {
                QueryRule::Refuse => Query::Refuse,
                QueryRule::Append => Query::Append,
                QueryRule::Ignore => Query::Ignore,
            },
            memory: settings.memory(),
        },
        origin: built,
        bounds: bounds(origin, load_timeout),
    })
}

/// What bounds the loads from an origin, of which one takes no longer than that.
fn bounds(origin: &OriginSettings, load_timeout: Duration) -> Bounds {
    Bounds {
        max_concurrency: origin.max_concurrency,
        max_queue: origin.max_queue,
        load_timeout,
        ramp: seconds(origin.ramp_seconds),
        breaker: breaker(origin),
        cancel_abandoned: origin.cancel_abandoned,
        hedge: origin.hedge,
        compress_min_bytes: origin.compress_min_bytes,
    }
}

/// The circuit breaker, if either of its ratios is set.
fn breaker(origin: &OriginSettings) -> Option<BreakerRules> {
    let ratio = |ratio: f64| (ratio > 0.0).then_some(ratio);
    let rules = BreakerRules {
        failure_ratio: ratio(origin.breaker_failure_ratio),
        slow_ratio: ratio(origin.breaker_slow_ratio),
        slow: seconds(origin.breaker_slow_seconds),
        min_loads: origin.breaker_min_loads,
        open: seconds(origin.breaker_open_seconds),
    };
    (rules.failure_ratio.is_some() || rules.slow_ratio.is_some()).then_some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::loopback;

    #[test]
    fn a_node_is_in_the_zone_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("zone");
        std::fs::write(&file, "eu-1a\n").expect("written");
        let setting = format!("node.zone_file={}", file.display());
        let config = loopback("n", &[&setting]).expect("good settings");
        let settings = settings(&config).expect("good settings");
        assert_eq!(settings.zone, "eu-1a");
    }
}
