//! Checks that involve more than one setting.

use std::collections::BTreeSet;

use super::{
    problem::Problem,
    settings::{Config, GroupSettings, OriginKind, RegistryKind},
};
use crate::{
    http_client::template::{self, UrlTemplate},
    members::fixed_members,
};
use gaocache_core::store::ENTRY_OVERHEAD_BYTES;

/// Every inconsistency between settings.
pub(super) fn together(settings: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |name: &str, reason: String| {
        problems.push(Problem {
            name: name.into(),
            value: None,
            source: None,
            reason,
        });
    };
    if settings.node.id.is_empty() || settings.node.id.contains('/') {
        wrong("node.id", "must not be empty or contain '/'".into());
    }
    registry(settings, &mut wrong);
    listeners(settings, &mut wrong);
    trace(settings, &mut wrong);
    groups(settings, &mut wrong);
    problems
}

fn registry(settings: &Config, wrong: &mut impl FnMut(&str, String)) {
    let registry = &settings.registry;
    if registry.service.is_empty() || registry.service.ends_with('/') {
        wrong(
            "registry.service",
            "must not be empty or end with '/'".into(),
        );
    }
    match registry.kind {
        RegistryKind::Etcd => {
            if registry.etcd.endpoints.is_empty() {
                wrong(
                    "registry.etcd.endpoints",
                    "registry.kind \"etcd\" needs at least one URL such as \"http://127.0.0.1:2379\"".into(),
                );
            }
            for url in &registry.etcd.endpoints {
                if !is_http(url) {
                    wrong(
                        "registry.etcd.endpoints",
                        format!("'{url}' must be a URL that starts with http:// or https://"),
                    );
                }
            }
        }
        RegistryKind::Static => {
            if let Err(error) = fixed_members(&registry.fixed.peers, &settings.node.id) {
                wrong("registry.static.peers", error.message().into());
            }
        }
        RegistryKind::Memory => {}
    }
    let tls = &registry.etcd.tls;
    if tls.cert.as_os_str().is_empty() != tls.key.as_os_str().is_empty() {
        wrong(
            "registry.etcd.tls.cert",
            "cert and key must be set together".into(),
        );
    }
    if registry.etcd.username.is_empty() != registry.etcd.password_file.as_os_str().is_empty() {
        wrong(
            "registry.etcd.username",
            "username and password_file must be set together".into(),
        );
    }
}

fn listeners(settings: &Config, wrong: &mut impl FnMut(&str, String)) {
    let listeners = [
        ("grpc.listen", settings.grpc.listen),
        ("http.listen", settings.http.listen),
        ("admin.listen", settings.admin.listen),
    ];
    let mut ports = BTreeSet::new();
    for (name, address) in listeners {
        if address.port() != 0 && !ports.insert(address.port()) {
            wrong(name, "another listener already uses this port".into());
        }
    }
}

fn trace(settings: &Config, wrong: &mut impl FnMut(&str, String)) {
    let endpoint = &settings.trace.endpoint;
    if !endpoint.is_empty() && !is_http(endpoint) {
        wrong(
            "trace.endpoint",
            "must start with http:// or https://".into(),
        );
    }
}

fn groups(settings: &Config, wrong: &mut impl FnMut(&str, String)) {
    let mut names = BTreeSet::new();
    if settings.groups.len() > usize::from(u16::MAX) {
        wrong("groups", format!("at most {} groups", u16::MAX));
    }
    for (number, group) in settings.groups.iter().enumerate() {
        let name = |rest: &str| format!("groups[{number}].{rest}");
        if !names.insert(&group.name) {
            wrong(&name("name"), "another group already has this name".into());
        }
        if !is_group_name(&group.name) {
            wrong(
                &name("name"),
                "must be 1 to 64 letters, digits, '.', '_' or '-'".into(),
            );
        }
        // Seven eighths of the capacity are for owned entries; see `node::parts`.
        if group.max_value + ENTRY_OVERHEAD_BYTES > settings.cache.capacity / 8 * 7 {
            wrong(
                &name("max_value"),
                format!(
                    "must fit into seven eighths of cache.capacity ({} bytes)",
                    settings.cache.capacity
                ),
            );
        }
        origin(group, &name, wrong);
    }
}

fn origin(
    group: &GroupSettings,
    name: &impl Fn(&str) -> String,
    wrong: &mut impl FnMut(&str, String),
) {
    match group.origin.kind {
        OriginKind::Http => {
            if let Err(error) = UrlTemplate::new(group.origin.url.as_str()) {
                wrong(&name("origin.url"), error.message().into());
            }
            if let Err(error) = template::headers(&group.origin.headers) {
                wrong(&name("origin.headers"), error.message().into());
            }
        }
        OriginKind::File => {
            if !group.origin.path.is_dir() {
                wrong(&name("origin.path"), "not a readable directory".into());
            }
        }
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

fn is_group_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
