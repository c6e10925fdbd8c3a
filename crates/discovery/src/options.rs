//! How a balanced channel behaves.

use std::time::Duration;

use super::pick::{Canary, Picker};

/// How a balanced channel behaves.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// How requests are shared out.
    pub picker: Picker,
    /// The zone whose endpoints come first, by their metadata `zone`.
    pub zone: Option<String>,
    /// Requests under way at an endpoint of the own zone from which on other zones help out.
    pub spill_over_at: usize,
    /// A share of the traffic for certain endpoints.
    pub canary: Option<Canary>,
    /// The name asked of the health service.
    pub health_service: String,
    /// Bound on connecting to an endpoint.
    pub connect_timeout: Duration,
    /// How long a request waits for an endpoint to become ready, before it fails as unavailable.
    pub wait_for_ready: Duration,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            picker: Picker::RoundRobin,
            zone: None,
            spill_over_at: 100,
            canary: None,
            health_service: String::new(),
            connect_timeout: Duration::from_secs(1),
            wait_for_ready: Duration::from_secs(5),
        }
    }
}
