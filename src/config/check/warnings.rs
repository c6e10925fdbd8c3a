//! Warnings about settings that are valid, but have no effect or make no sense together with
//! others. A node starts with them all the same.
//!
//! There is never a warning about a setting with its default value: nobody has set it.

use std::path::Path;

use crate::{
    auth,
    config::{
        listener_tls::ClientAuth,
        problem::Problem,
        settings::{Config, GroupSettings, OriginKind, RegistryKind},
        suggest::nearest,
        walk::InForce,
    },
    fairness::Quota,
    telemetry::requests::Logged,
    traffic::Budget,
};

/// So many of the largest values of a group are to fit into the cache, if its `max_value` was said.
const FEW: u64 = 100;
/// And so many if it was not.
const VERY_FEW: u64 = 10;

/// Warnings about settings of which none is wrong.
pub fn warnings(settings: &Config, in_force: &[InForce]) -> Vec<Problem> {
    let mut warnings = Warnings {
        settings,
        in_force,
        found: Vec::new(),
    };
    if settings.groups.is_empty() {
        warnings.found.push(Problem::of(
            "groups",
            "there are none: every get is answered with unknown_group",
        ));
    }
    warnings.sections();
    warnings.limits();
    warnings.capacity();
    warnings.grants();
    for (number, group) in settings.groups.iter().enumerate() {
        warnings.lifetimes(number, group);
        warnings.origin(number, group);
        warnings.size(number, group);
    }
    warnings.found
}

/// The memory that a node may take, and what bounds it.
struct Memory {
    bytes: u64,
    of: &'static str,
}

/// The memory of this process' container, or of its machine; `None`: it is not known.
fn memory() -> Option<Memory> {
    let read = |path| std::fs::read_to_string(path).ok();
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|it| it.trim().parse().ok());
    let limit = limit.map(|bytes| Memory {
        bytes,
        of: "this container",
    });
    let machine = read("/proc/meminfo").and_then(|it| {
        let total = it.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kibibytes: u64 = total.split_whitespace().next()?.parse().ok()?;
        Some(Memory {
            bytes: kibibytes.saturating_mul(1024),
            of: "this machine",
        })
    });
    limit.into_iter().chain(machine).min_by_key(|it| it.bytes)
}

struct Warnings<'a> {
    settings: &'a Config,
    in_force: &'a [InForce],
    found: Vec<Problem>,
}

impl Warnings<'_> {
    /// Notes that a setting has no effect, if it was said. A name that ends with a dot stands for
    /// all settings of a section.
    fn idle(&mut self, name: &str, reason: &str) {
        let is_meant = |it: &&InForce| match name.ends_with('.') {
            true => it.name.starts_with(name),
            false => it.name == name,
        };
        // OpenTelemetry's variables are for every program of the machine.
        let is_said = |it: &&InForce| !it.is_default() && !it.source.contains(" OTEL_");
        let said = self.in_force.iter().filter(is_meant).filter(is_said);
        let names: Vec<_> = said.map(|it| it.name.clone()).collect();
        for name in names {
            self.found
                .push(Problem::of(name, format!("has no effect {reason}")));
        }
    }

    /// Notes what is strange about a setting, if it was said.
    fn odd(&mut self, name: &str, reason: impl Into<String>) {
        if self.is_said(name) {
            self.found.push(Problem::of(name, reason));
        }
    }

    fn is_said(&self, name: &str) -> bool {
        let mut in_force = self.in_force.iter();
        in_force.any(|it| it.name == name && !it.is_default())
    }

    /// Settings of what is switched off.
    fn sections(&mut self) {
        let it = self.settings;
        let is_none = |path: &Path| path.as_os_str().is_empty();
        if it.registry.kind != RegistryKind::Etcd {
            for name in ["registry.etcd.", "registry.cluster_id"] {
                self.idle(name, "unless registry.kind is \"etcd\"");
            }
        }
        if it.registry.kind != RegistryKind::Static {
            self.idle("registry.static.", "unless registry.kind is \"static\"");
        }
        if !it.http.enabled {
            for name in ["http.listen", "http.allowed_hosts", "http.tls."] {
                self.idle(name, "while http.enabled is false");
            }
        }
        if it.redis.listen.is_none() {
            self.idle("redis.tls.", "while redis.listen is empty");
        }
        if is_none(&it.peer.tls.ca) {
            let reason = "without peer.tls: nodes then know each other by the keys that they \
                          register";
            self.idle("peer.allowed_peers", reason);
        }
        if it.cache.replicas < 2 {
            self.idle("cache.replicate", "unless cache.replicas is 2");
        }
        if is_none(&it.auth.jwt.jwks_file) && it.auth.jwt.jwks_url.is_empty() {
            let reason = "without auth.jwt.jwks_file or auth.jwt.jwks_url";
            self.idle("auth.jwt.", reason);
        }
        if !it.auth.anonymous.iter().any(|role| role == "admin") {
            self.idle("admin.insecure", "unless auth.anonymous contains \"admin\"");
        }
        if it.log.requests != Logged::Slow {
            self.idle("log.slow_seconds", "unless log.requests is \"slow\"");
        }
        if it.log.requests == Logged::Off {
            self.idle(
                "log.max_requests_per_second",
                "while log.requests is \"off\"",
            );
        }
        if !it.trace.is_on() {
            let reason = "while no spans are recorded (trace.endpoint, trace.enabled)";
            self.idle("trace.", reason);
        }
    }

    /// Limits that forbid everything, or that another one is always reached before.
    fn limits(&mut self) {
        let it = self.settings;
        let limits = &it.limits;
        for (name, limit, other, above) in [
            (
                "limits.max_connections_per_address",
                limits.max_connections_per_address,
                "limits.max_connections",
                limits.max_connections,
            ),
            (
                "limits.max_admin_connections_per_address",
                limits.max_admin_connections_per_address,
                "limits.max_admin_connections",
                limits.max_admin_connections,
            ),
        ] {
            if limit > above {
                self.odd(name, format!("is never reached, since {other} is {above}"));
            }
        }
        let share = Quota::of_open(Budget::new(it.cache.in_flight).requests());
        if it.cache.in_flight > 0 && limits.max_misses_per_client > share {
            let reason = format!(
                "is never reached: one client may fill a third of cache.in_flight, which is \
                 {share} requests"
            );
            self.odd("limits.max_misses_per_client", reason);
        }
        for (name, is_zero, reason) in [
            (
                "node.drain_timeout_seconds",
                it.node.drain_timeout_seconds == 0.0,
                "a node that stops hands no entries over, so the origin is asked for them again",
            ),
            (
                "node.shutdown_timeout_seconds",
                it.node.shutdown_timeout_seconds == 0.0,
                "requests that are open when the node stops are cut off",
            ),
            (
                "limits.reserved_descriptors",
                limits.reserved_descriptors == 0,
                "clients may take all file descriptors, and leave none for other nodes, etcd and \
                 origins",
            ),
        ] {
            if is_zero {
                self.odd(name, reason);
            }
        }
        let (members, replicas) = (it.registry.fixed.peers.len(), it.cache.replicas);
        if it.registry.kind == RegistryKind::Static && replicas > members {
            let reason =
                format!("there are not so many nodes: registry.static.peers has {members}");
            self.odd("cache.replicas", reason);
        }
    }

    fn capacity(&mut self) {
        let capacity = self.settings.cache.capacity;
        if let Some(Memory { bytes, of }) = memory().filter(|it| it.bytes < capacity) {
            let reason = format!("is more than the memory of {of}, which is {bytes} bytes");
            self.odd("cache.capacity", reason);
        }
    }

    /// Grants that nobody can have, or that are for nothing.
    fn grants(&mut self) {
        let it = self.settings;
        let tls = [&it.grpc.tls, &it.redis.tls, &it.admin.tls];
        let http = it.http.enabled.then_some(&it.http.tls);
        let mut tls = tls.into_iter().chain(http);
        let certificates = tls.any(|it| it.client_auth != ClientAuth::None);
        let jwt = &it.auth.jwt;
        let tokens = !jwt.jwks_url.is_empty() || !jwt.jwks_file.as_os_str().is_empty();
        let is_anonymous = it.auth.anonymous.iter().any(|role| role == "read");
        let proofs = !it.auth.grants.is_empty() || !it.auth.token_file.as_os_str().is_empty();
        if !is_anonymous && !proofs {
            let reason = "no client may get a value: without auth.grants and auth.token_file, \
                          nobody else has the role read";
            self.odd("auth.anonymous", reason);
        }
        for grant in &it.auth.grants {
            let whom = grant.split_whitespace().next().unwrap_or_default();
            let missing = match whom.split_once(':') {
                Some(("certificate", _)) if !certificates => {
                    "no listener asks clients for certificates (client_auth)"
                }
                Some(("jwt", _)) if !tokens => {
                    "no JWT is accepted without auth.jwt.jwks_file or auth.jwt.jwks_url"
                }
                _ => continue,
            };
            let reason = format!("nobody can have the grant of '{whom}': {missing}");
            self.odd("auth.grants", reason);
        }
        let granted = auth::granted_groups(&it.auth.grants).into_iter();
        self.groups_of("auth.grants", granted);
        // A node needs no such file, and a file that can't be read has been told.
        let granted = auth::groups_of_tokens(&it.auth.token_file).unwrap_or_default();
        self.groups_of("auth.token_file", granted.into_iter());
    }

    /// `granted`: to whom, and in which group.
    fn groups_of(&mut self, name: &str, granted: impl Iterator<Item = (String, String)>) {
        let groups = &self.settings.groups;
        for (whom, group) in granted {
            if groups.iter().any(|it| it.name == group) {
                continue;
            }
            let meant = nearest(&group, groups.iter().map(|it| it.name.as_str()));
            let meant = meant.map_or_else(String::new, |it| format!("; did you mean '{it}'?"));
            let (whom, group) = (whom.escape_debug(), group.escape_debug());
            self.odd(
                name,
                format!("'{whom}': there is no group '{group}'{meant}"),
            );
        }
    }

    fn lifetimes(&mut self, number: usize, group: &GroupSettings) {
        let name = |rest: &str| format!("groups[{number}].{rest}");
        let most = group.max_ttl_seconds;
        if most > 0.0 && group.ttl_seconds > most {
            let reason = format!("is never reached, since max_ttl_seconds is {most}");
            self.odd(&name("ttl_seconds"), reason);
        }
        let expires = group.ttl_seconds > 0.0 || most > 0.0 || group.origin.honour_cache_control;
        if expires {
            return;
        }
        for rest in [
            "ttl_jitter",
            "refresh_ahead",
            "stale_while_revalidate_seconds",
            "stale_if_error_seconds",
        ] {
            self.idle(&name(rest), "while values never expire (ttl_seconds = 0)");
        }
    }

    fn origin(&mut self, number: usize, group: &GroupSettings) {
        let name = |rest: &str| format!("groups[{number}].origin.{rest}");
        let origin = &group.origin;
        if origin.max_queue == 0 {
            let reason = format!(
                "gets fail as overloaded as soon as {} loads are under way (max_concurrency)",
                origin.max_concurrency
            );
            self.odd(&name("max_queue"), reason);
        }
        let (failing, slow) = (origin.breaker_failure_ratio, origin.breaker_slow_ratio);
        if slow == 0.0 {
            let reason = "while breaker_slow_ratio is 0";
            self.idle(&name("breaker_slow_seconds"), reason);
        }
        if slow == 0.0 && failing == 0.0 {
            let reason = "while breaker_failure_ratio and breaker_slow_ratio are 0";
            self.idle(&name("breaker_min_loads"), reason);
            self.idle(&name("breaker_open_seconds"), reason);
        }
        if origin.hedge && origin.max_concurrency == 1 {
            let reason = "while max_concurrency is 1: there is no slot for a second load";
            self.idle(&name("hedge"), reason);
        }
        if origin.compress_min_bytes > group.max_value {
            let reason = format!(
                "since no value is that large (max_value is {})",
                group.max_value
            );
            self.idle(&name("compress_min_bytes"), &reason);
        }
        if origin.kind == OriginKind::Http && origin.url.starts_with("http://") {
            self.idle(&name("ca"), "on a URL that begins with http://");
        }
    }

    fn size(&mut self, number: usize, group: &GroupSettings) {
        let name = format!("groups[{number}].max_value");
        let fit = self.settings.cache.capacity / group.max_value.max(1);
        if self.is_said(&name) && fit < FEW {
            let reason = format!(
                "only {fit} values of this size fit into cache.capacity, so few keys stay in memory"
            );
            self.odd(&name, reason);
        } else if number == 0 && fit < VERY_FEW {
            let reason = format!(
                "only {fit} values of the size that max_value allows fit, so few keys stay in memory"
            );
            self.odd("cache.capacity", reason);
        }
        let most = self.settings.cache.capacity as f64 * group.memory().limit;
        if group.max_value as f64 > most {
            let reason = format!(
                "is {most:.0} bytes of cache.capacity, and max_value is {}: values beyond that \
                 are not kept",
                group.max_value
            );
            self.odd(&format!("groups[{number}].memory_limit"), reason);
        }
    }
}
