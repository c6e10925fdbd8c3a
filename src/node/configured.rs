//! A node of the program: its groups, their origins and its registry as the settings have them.

use std::{path::Path, sync::Arc, time::Duration};

use super::NodeBuilder;
use crate::{
    config::{Config, EtcdSettings, GroupSettings, OriginKind, RegistryKind, seconds},
    group::GroupDefinition,
    origin::{
        file::FileOrigin,
        guarded::Bounds,
        http::{HttpOrigin, HttpRules},
    },
    registry::Registry,
    settings::Settings,
};
use gaocache_core::{error::Result, group::GroupRules, ports::Origin};
use gaocache_discovery::{Credentials, EtcdConfig, TlsFiles};

impl NodeBuilder {
    /// A node as the program's settings want it.
    ///
    /// # Errors
    /// An origin that can't work.
    pub(crate) fn configured(config: &Config) -> Result<Self> {
        let mut builder = Self::new(Settings::from(config)).registry(registry(config));
        for group in &config.groups {
            builder = builder.group(definition(group)?);
        }
        Ok(builder)
    }
}

fn registry(config: &Config) -> Registry {
    let registry = &config.registry;
    match registry.kind {
        RegistryKind::Memory => Registry::memory(),
        RegistryKind::Static => Registry::fixed(&registry.fixed.peers),
        RegistryKind::Etcd => Registry::etcd(etcd_config(&registry.etcd), &registry.service),
    }
}

/// How etcd is reached, from its settings.
pub(crate) fn etcd_config(settings: &EtcdSettings) -> EtcdConfig {
    let file = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    let lease_ttl = Duration::from_secs(settings.lease_ttl_seconds);
    let mut tls = TlsFiles::default();
    tls.ca = file(&settings.tls.ca);
    tls.identity = file(&settings.tls.cert).zip(file(&settings.tls.key));
    let mut config = EtcdConfig::new(settings.endpoints.clone()).with_tls(tls);
    config.credentials = file(&settings.password_file)
        .map(|password_file| Credentials::new(&settings.username, password_file));
    config.with_lease_ttl(lease_ttl)
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
