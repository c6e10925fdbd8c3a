//! What a cluster of the test looks like.

/// A group of keys.
#[derive(Clone, Debug)]
pub struct GroupSetup {
    pub name: &'static str,
    /// Seconds; 0: values don't expire.
    pub ttl: u64,
    /// Seconds past their life for which values are served while they are loaded anew.
    pub while_revalidating: u64,
    /// Seconds past their life for which values are served if the origin fails.
    pub if_error: u64,
    /// Bytes of a value.
    pub value: usize,
    pub max_value: &'static str,
}

impl GroupSetup {
    /// Values that don't expire.
    pub fn forever(value: usize) -> Self {
        Self {
            name: "forever",
            ttl: 0,
            while_revalidating: 0,
            if_error: 0,
            value,
            max_value: "8MiB",
        }
    }

    /// Values that live for four seconds.
    pub fn short() -> Self {
        Self {
            name: "short",
            ttl: 4,
            ..Self::forever(200)
        }
    }

    /// Values that live for two seconds, and are served for longer: never once they are removed.
    pub fn stale() -> Self {
        Self {
            name: "stale",
            ttl: 2,
            while_revalidating: 3,
            if_error: 8,
            ..Self::forever(200)
        }
    }

    /// How long a value may be served, in seconds: one that is said to be stale, or any other. 0:
    /// for ever.
    pub fn life(&self, stale: bool) -> u64 {
        match stale {
            true => self.ttl + self.while_revalidating.max(self.if_error),
            false => self.ttl,
        }
    }

    /// Big values.
    pub fn big(value: usize) -> Self {
        Self {
            name: "big",
            ..Self::forever(value)
        }
    }
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes that run from the beginning.
    pub nodes: usize,
    /// Further nodes that may be started.
    pub spare: usize,
    /// Seconds of a lease.
    pub lease: u64,
    pub replicas: u64,
    pub capacity: &'static str,
    /// Misses after which a node keeps a copy of another's key.
    pub hot_after: u64,
    /// Seconds.
    pub peers_timeout: u64,
    /// Whether wall clocks can be set, with libfaketime.
    pub clocks: bool,
    pub groups: Vec<GroupSetup>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 3,
            spare: 0,
            lease: 3,
            replicas: 1,
            capacity: "64MiB",
            hot_after: 2,
            peers_timeout: 3,
            clocks: false,
            groups: vec![GroupSetup::forever(200)],
        }
    }
}

/// Seconds that the origin may take for one attempt.
pub const ORIGIN_TIMEOUT: u64 = 5;

impl Setup {
    /// The settings of node `id` at `ip` as arguments of `gaocache`.
    pub fn arguments(&self, id: &str, ip: &str, etcd: &str, origin: &str) -> Vec<String> {
        let settings = [
            format!("node.id={id}"),
            format!("node.advertise_host={ip}"),
            "node.worker_threads=1".into(),
            "node.drain_timeout_seconds=5".into(),
            "node.shutdown_timeout_seconds=3".into(),
            format!("registry.etcd.endpoints={etcd}"),
            format!("registry.etcd.lease_ttl_seconds={}", self.lease),
            format!("peer.timeout_seconds={}", self.peers_timeout),
            format!("cache.capacity={}", self.capacity),
            format!("cache.replicas={}", self.replicas),
            format!("cache.hot_after_requests={}", self.hot_after),
            "auth.anonymous=read,remove,purge".into(),
            format!("groups={}", self.groups(origin)),
        ];
        let settings = settings.into_iter().flat_map(|it| ["--set".into(), it]);
        ["serve".to_owned()].into_iter().chain(settings).collect()
    }

    fn groups(&self, origin: &str) -> String {
        let groups = self.groups.iter().map(|group| {
            let GroupSetup {
                name,
                ttl,
                while_revalidating,
                if_error,
                max_value,
                ..
            } = group;
            format!(
                "{{ name = \"{name}\", ttl_seconds = {ttl}, \
                 stale_while_revalidate_seconds = {while_revalidating}, \
                 stale_if_error_seconds = {if_error}, max_value = \"{max_value}\", origin = \
                 {{ kind = \"http\", url = \"http://{origin}/{name}/{{key}}\", \
                 timeout_seconds = {ORIGIN_TIMEOUT} }} }}"
            )
        });
        format!("[{}]", groups.collect::<Vec<_>>().join(", "))
    }
}
