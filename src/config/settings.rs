//! What the program's settings say of the node.

use super::{Config, Sampler, Settings, TraceSettings, seconds};
use crate::telemetry::trace::Sampling;

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let Config { node, cache, .. } = config;
        Self {
            id: node.id.clone(),
            advertise_host: node.advertise_host.clone(),
            zone: node.zone.clone(),
            weight: node.weight,
            worker_threads: node.worker_threads,
            drain_timeout: seconds(node.drain_timeout_seconds),
            shutdown_timeout: seconds(node.shutdown_timeout_seconds),
            grpc: Some(config.grpc.listen),
            http: Some(config.http.listen),
            admin: Some(config.admin.listen),
            peer_connect_timeout: seconds(config.peers.connect_timeout_seconds),
            peer_timeout: seconds(config.peers.timeout_seconds),
            capacity: cache.capacity,
            hot_after_requests: cache.hot_after_requests,
            replicas: cache.replicas,
            replicate: cache.replicate,
            handoff_bytes_per_second: config.handoff.max_bytes_per_second,
            sampling: config.trace.sampling(),
        }
    }
}

impl TraceSettings {
    /// Which requests have spans.
    pub(crate) fn sampling(&self) -> Sampling {
        if !self.is_on() {
            return Sampling::off();
        }
        let (share, parent_based) = match self.sampler {
            Sampler::ParentBasedRatio => (self.sample_ratio, true),
            Sampler::ParentBasedAlwaysOn => (1.0, true),
            Sampler::ParentBasedAlwaysOff => (0.0, true),
            Sampler::Ratio => (self.sample_ratio, false),
            Sampler::AlwaysOn => (1.0, false),
            Sampler::AlwaysOff => (0.0, false),
        };
        let mut sampling = Sampling::share(share);
        if parent_based {
            sampling = sampling.parent_based();
        }
        if self.keys {
            sampling = sampling.with_keys();
        }
        sampling
    }
}
