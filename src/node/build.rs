//! From settings and parts to a bound node.

use std::{sync::Arc, time::Duration};

use super::{
    GroupDefinition, Node, SystemClock,
    listeners::Listeners,
    parts::{Assembly, Memory, Parts, Stops},
    rules,
};
use crate::{
    config::Settings,
    rpc::{front::Front, peers::GrpcPeers},
    service::{Measuring, Service},
    telemetry::metrics::Metrics,
};
use gaocache_core::{
    cluster::Cluster,
    error::Result,
    ports::{Clock, Registry},
};

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
    pub async fn bind(mut self) -> Result<Node> {
        let mut groups = std::mem::take(&mut self.groups);
        for group in &self.settings.groups {
            groups.push(rules::group(group)?);
        }
        let listeners = Listeners::bind(rules::listen(&self.settings))?;
        let me = rules::member(&self.settings.node, listeners.addresses());
        let metrics = Metrics::new()?;
        let registry = self.registry_or_configured(&metrics)?;
        let lease = registry.lease();
        let (health, health_service) = tonic_health::server::health_reporter();
        drop(health_service);
        let assembly = self.assembly(&groups, lease, metrics, health.clone());
        let max_value = assembly.memory.max_value;
        let (parts, queued_copies) = assembly.parts(groups)?;
        let parts = Arc::new(parts);
        let service = self.service(&parts);
        let health = tonic_health::server::HealthService::from_health_reporter(health);
        let front = Front::new(&service, parts.standing.clone(), max_value, health)?;
        let stops = Stops::default();
        Ok(Node {
            me,
            listeners,
            registry,
            lease,
            admin: parts.admin(stops.admin.clone()),
            parts,
            queued_copies,
            service,
            front,
            stops,
            limits: rules::limits(&self.settings.node),
        })
    }

    fn registry_or_configured(&mut self, metrics: &Arc<Metrics>) -> Result<Arc<dyn Registry>> {
        match self.registry.take() {
            Some(registry) => Ok(registry),
            None => rules::registry(&self.settings, metrics, &self.clock),
        }
    }

    fn assembly(
        &self,
        groups: &[GroupDefinition],
        lease: Option<Duration>,
        metrics: Arc<Metrics>,
        health: tonic_health::server::HealthReporter,
    ) -> Assembly {
        let settings = &self.settings;
        let largest = groups.iter().map(|group| group.rules.max_value).max();
        let memory = Memory {
            capacity: settings.cache.capacity,
            hot_after: settings.cache.hot_after_requests,
            max_value: largest.unwrap_or(0),
            lease,
        };
        let cluster = Arc::new(Cluster::new(settings.node.id.as_str()));
        let peers = GrpcPeers::new(
            cluster.clone(),
            rules::peers(settings, memory.max_value),
            metrics.clone(),
        );
        Assembly {
            cluster,
            peers,
            metrics,
            clock: self.clock.clone(),
            health,
            memory,
            handoff: rules::handoff(settings),
        }
    }

    fn service(&self, parts: &Parts) -> Service {
        let measuring = Measuring {
            requests: self.measured,
            sampling: rules::sampling(&self.settings.trace),
        };
        let groups = parts.groups.clone();
        Service::new(groups, &parts.metrics, self.clock.clone(), measuring)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::config::loopback;
    use gaocache_core::{
        error::{Error, ErrorKind},
        ports::loader,
    };

    fn group(name: &str) -> GroupDefinition {
        let origin = loader(async |key: String| Ok::<_, Error>(key));
        GroupDefinition::new(name, Duration::from_secs(1), origin)
    }

    async fn refused(further: &[&str], groups: &[&str]) -> Error {
        let settings = loopback("n", further).expect("good settings");
        let builder = groups
            .iter()
            .fold(NodeBuilder::new(settings), |it, name| it.group(group(name)));
        let bound = builder.bind().await;
        bound.err().expect("can't be bound")
    }

    #[tokio::test]
    async fn two_groups_of_one_name_are_a_wrong_configuration() {
        let twice = refused(&[], &["a", "a"]).await;
        assert_eq!(twice.kind(), ErrorKind::Configuration, "{twice}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_a_wrong_configuration_with_its_cause() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = holder.local_addr().expect("bound");
        let error = refused(&[&format!("grpc.listen={address}")], &["a"]).await;
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        let cause = error
            .source()
            .and_then(|it| it.downcast_ref::<std::io::Error>());
        let cause = cause.map(std::io::Error::kind);
        assert_eq!(cause, Some(std::io::ErrorKind::AddrInUse));
    }
}
