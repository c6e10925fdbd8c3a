//! Nodes of the tests that register in a real etcd.

use gaocache::internal::Config;
use gaocache_discovery::EtcdConfig;
pub use gaocache_testing::{Etcd, SecuredEtcd, TTL, certificates, free_port, signal};

use super::{CountingOrigin, settings};

pub fn config(urls: &[&str]) -> EtcdConfig {
    EtcdConfig::new(urls.iter().copied()).with_lease_ttl(TTL)
}

/// Settings of a node of the tests that registers in etcd.
pub fn node_settings(id: &str, etcd: &str, origin: &CountingOrigin, further: &[&str]) -> Config {
    let endpoints = format!("registry.etcd.endpoints={etcd}");
    let mut given = vec![
        "registry.kind=etcd",
        &endpoints,
        "registry.etcd.lease_ttl_seconds=2",
        "node.worker_threads=1",
    ];
    given.extend(further);
    settings(id, &origin.url(), &given)
}
