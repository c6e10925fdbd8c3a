//! From settings and parts to a bound node.

use std::{fmt, sync::Arc, time::Duration};

use tonic_health::server::{HealthReporter, HealthService};

#[cfg(feature = "cli")]
use super::parts::Fixed;
use super::{
    Node,
    admission::Admission,
    connection::Carrier,
    descriptors,
    listeners::Listeners,
    parts::{Assembly, Memory, Parts, Stops},
    rules,
    tls::ListenersTls,
};
use crate::{
    auth::Permissions,
    clock::MonotonicClock,
    fairness::Quotas,
    group::GroupDefinition,
    redis,
    registry::Registry,
    rpc::{
        front::Front,
        gate::Gate,
        peer_front::PeerFront,
        peers::{GrpcPeers, PeerRules},
        routed::LiveRules,
    },
    service::{Measuring, Service},
    settings::{MAX_VALUE, Settings},
    telemetry::metrics::Metrics,
    traffic::Budget,
};
use gaocache_core::{
    cluster::Cluster,
    error::{Error, ErrorKind, Result},
    ports::Clock,
};

/// Configures a node.
///
/// ```
/// use std::time::Duration;
/// use gaocache::{Error, GroupDefinition, NodeBuilder, Settings, loader};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let shout = loader(async |key: String| Ok::<_, Error>(key.to_uppercase()));
/// let mut settings = Settings::loopback("node-0");
/// settings.http = None;
/// let node = NodeBuilder::new(settings)
///     .group(GroupDefinition::new("shout", shout).ttl(Duration::from_secs(60)))
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
    clock: Arc<dyn Clock>,
    measured: bool,
    budget: Option<Arc<Budget>>,
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("settings", &self.settings)
            .field("groups", &self.groups)
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl NodeBuilder {
    /// A node of these settings, without groups, and alone until it has a registry.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            groups: Vec::new(),
            registry: None,
            clock: Arc::new(MonotonicClock),
            measured: true,
            budget: None,
        }
    }

    /// Adds a group.
    pub fn group(mut self, group: GroupDefinition) -> Self {
        self.groups.push(group);
        self
    }

    /// Sets the registry through which nodes find each other.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// The budget that the groups' origins count against already.
    #[cfg(feature = "cli")]
    pub(super) fn budget(mut self, budget: Arc<Budget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Neither counts nor times requests: for the benchmark that measures what that costs.
    pub(crate) fn unmeasured(mut self) -> Self {
        self.measured = false;
        self
    }

    /// Opens the listeners. Call it on the runtime that is to run membership, admin and probes.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: a port in use, settings that can't work, two groups of one
    /// name. Nothing has been announced then.
    pub async fn bind(mut self) -> Result<Node> {
        self.check()?;
        let groups = std::mem::take(&mut self.groups);
        let metrics = Metrics::new()?;
        let peer_tls = rules::peer_tls(&self.settings, self.registry.as_ref(), &metrics)?;
        let tls = ListenersTls::start(&self.settings, &metrics)?;
        let socket = self.settings.admin_socket.as_deref();
        let listeners = Listeners::bind(rules::listen(&self.settings), socket)?;
        let key = peer_tls.fingerprint();
        let me = rules::member(&self.settings, listeners.addresses(), key);
        let registry = rules::registry(self.registry.take(), &me.id, &metrics, &self.clock)?;
        let lease = registry.lease();
        let health = tonic_health::server::health_reporter().0;
        let largest = largest(&groups);
        let budget = self.chosen_budget(largest)?;
        let counted = budget.clone();
        let peers = rules::peers(&self.settings, &groups, largest, counted, peer_tls.clone());
        let assembly = self.assembly(peers, lease, metrics, health.clone());
        let max_value = assembly.memory.max_value;
        let (parts, queued_copies) = assembly.parts(groups)?;
        let parts = Arc::new(parts);
        let quotas = rules::quotas(&self.settings.limits, &budget, &parts.metrics);
        let service = self.service(&parts, quotas.clone(), budget.clone());
        let rules = LiveRules::new(rules::front(&self.settings, max_value));
        let permissions = Permissions::new(&self.settings.auth, &me.id, parts.metrics.clone())?;
        let shown = (&health, self.settings.grpc_reflection);
        let (front, peer_front) = fronts(&service, &permissions, &parts, &rules, shown)?;
        let stops = Stops::default();
        let limits = rules::limits(&self.settings);
        let (metrics, files) = (parts.metrics.clone(), descriptors::limit());
        Ok(Node {
            admission: Admission::new(&limits.clients, files, metrics.clone()),
            carrier: Carrier::new(budget.clone(), quotas, &limits.clients, metrics),
            #[cfg(feature = "cli")]
            fixed: Fixed {
                budget: budget.clone(),
                capacity: self.settings.capacity,
                largest: max_value,
            },
            redis: self.redis(&service, &permissions, &parts),
            me,
            listeners,
            registry,
            lease,
            admin: parts.admin(permissions.clone(), budget, stops.admin.clone()),
            hosts: rules::hosts(&self.settings),
            permissions,
            parts,
            queued_copies,
            service,
            front,
            peer_front,
            #[cfg(feature = "cli")]
            rules,
            peer_tls,
            tls,
            stops,
            limits,
        })
    }

    fn chosen_budget(&mut self, largest: u64) -> Result<Arc<Budget>> {
        let chosen = self.budget.take().map(Ok);
        chosen.unwrap_or_else(|| rules::in_flight(&self.settings, largest))
    }

    fn redis(&self, service: &Service, permissions: &Permissions, parts: &Parts) -> redis::Front {
        let taken = rules::redis(&self.settings.limits);
        redis::Front::new(service.clone(), permissions.clone(), taken, &parts.metrics)
    }

    fn check(&self) -> Result<()> {
        if self.registry.is_some() && self.settings.peer.is_none() {
            let what = "other nodes can't reach a node that has no listener for peers";
            return Err(Error::new(ErrorKind::Configuration, what));
        }
        rules::check(&self.groups, self.settings.capacity)?;
        self.settings.check()
    }

    fn assembly(
        &self,
        peers: PeerRules,
        lease: Option<Duration>,
        metrics: Arc<Metrics>,
        health: HealthReporter,
    ) -> Assembly {
        let settings = &self.settings;
        let memory = Memory {
            capacity: settings.capacity,
            hot_after: settings.hot_after_requests,
            max_value: peers.max_value,
            lease,
        };
        let cluster = Arc::new(Cluster::new(settings.id.as_str()));
        let peers = GrpcPeers::new(cluster.clone(), peers, metrics.clone(), self.clock.clone());
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

    fn service(&self, parts: &Parts, quotas: Arc<Quotas>, budget: Arc<Budget>) -> Service {
        let measuring = Measuring {
            requests: self.measured,
            sampling: self.settings.sampling,
        };
        let groups = parts.groups.clone();
        Service::new(
            groups,
            &parts.metrics,
            self.clock.clone(),
            measuring,
            quotas,
            budget,
        )
    }
}

/// The largest value of any group, in bytes. Groups may come later.
fn largest(groups: &[GroupDefinition]) -> u64 {
    let largest = groups.iter().map(|group| group.rules.max_value).max();
    largest.unwrap_or(MAX_VALUE)
}

/// What serves clients, and what serves other nodes.
fn fronts(
    service: &Service,
    permissions: &Permissions,
    parts: &Parts,
    rules: &LiveRules,
    (health, reflected): (&HealthReporter, bool),
) -> Result<(Front, PeerFront)> {
    let health = || HealthService::from_health_reporter(health.clone());
    let front = Front::new(
        service,
        permissions.clone(),
        rules.clone(),
        health(),
        reflected,
    )?;
    let peer_front = PeerFront::new(
        service,
        parts.standing.clone(),
        Gate::new(parts.cluster.clone(), parts.metrics.clone()),
        rules.clone(),
        health(),
    );
    Ok((front, peer_front))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use gaocache_core::ports::loader;

    fn group(name: &str) -> GroupDefinition {
        let origin = loader(async |key: String| Ok::<_, Error>(key));
        GroupDefinition::new(name, origin).ttl(Duration::from_secs(1))
    }

    async fn refused(settings: Settings, groups: &[&str]) -> Error {
        let builder = groups
            .iter()
            .fold(NodeBuilder::new(settings), |it, name| it.group(group(name)));
        let bound = builder.bind().await;
        bound.expect_err("can't be bound")
    }

    #[tokio::test]
    async fn two_groups_of_one_name_are_a_wrong_configuration() {
        let twice = refused(Settings::loopback("n"), &["a", "a"]).await;
        assert_eq!(twice.kind(), ErrorKind::Configuration, "{twice}");
    }

    #[tokio::test]
    async fn a_node_that_others_are_to_find_needs_a_listener_for_them() {
        let builder = NodeBuilder::new(Settings::standalone("n")).registry(Registry::memory());
        let error = builder.bind().await.expect_err("can't be bound");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }

    #[tokio::test]
    async fn nodes_of_a_fixed_list_can_t_know_each_other_by_registered_keys() {
        let builder = NodeBuilder::new(Settings::loopback("n"));
        let builder = builder.registry(Registry::fixed(["n=127.0.0.1:1"]));
        let error = builder.bind().await.expect_err("can't be bound");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.message().contains("certificates"), "{error}");
    }

    #[tokio::test]
    async fn a_group_whose_loads_could_never_begin_or_end_is_a_wrong_configuration() {
        let wrong: [fn(GroupDefinition) -> GroupDefinition; 2] = [
            |group| group.max_concurrency(0),
            |group| group.load_timeout(Duration::ZERO),
        ];
        for change in wrong {
            let builder = NodeBuilder::new(Settings::loopback("n")).group(change(group("a")));
            let error = builder.bind().await.expect_err("can't be bound");
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
            assert!(error.message().contains("group 'a'"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_group_that_no_path_can_name_or_no_store_can_hold_is_a_wrong_configuration() {
        for name in ["", "a/b", "a b", "ä"] {
            let error = refused(Settings::loopback("n"), &[name]).await;
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
            assert!(error.message().contains("its name must be"), "{error}");
        }
        let settings = Settings::loopback("n");
        let too_large = group("a").max_value(settings.capacity / 8 * 7);
        let builder = NodeBuilder::new(settings).group(too_large);
        let error = builder.bind().await.expect_err("can't be bound");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.message().contains("max_value"), "{error}");
        for (share, limit, told) in [
            (0.5, 0.4, "group 'a': a share of memory must not be"),
            (0.0, 0.0, "group 'a': a limit of memory must be"),
            (
                0.6,
                1.0,
                "the shares of memory of all groups add up to 1.200",
            ),
        ] {
            let of = |name| group(name).memory_share(share).memory_limit(limit);
            let builder = NodeBuilder::new(Settings::loopback("n"));
            let bound = builder.group(of("a")).group(of("b")).bind().await;
            let error = bound.expect_err("can't be bound");
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
            assert!(error.message().contains(told), "{error}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_a_wrong_configuration_with_its_cause() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = holder.local_addr().expect("bound");
        let mut settings = Settings::loopback("n");
        settings.grpc = Some(address);
        let error = refused(settings, &["a"]).await;
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        let cause = error
            .source()
            .and_then(|it| it.downcast_ref::<std::io::Error>());
        let cause = cause.map(std::io::Error::kind);
        assert_eq!(cause, Some(std::io::ErrorKind::AddrInUse));
    }
}
