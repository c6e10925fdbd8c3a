//! The options of a balanced channel.

use std::time::Duration;

use super::pick::{Canary, Picker};

/// The options of a balanced channel.
///
/// ```
/// use std::time::Duration;
/// use gaocache_discovery::{ChannelOptions, Picker};
///
/// let options = ChannelOptions::default()
///     .with_picker(Picker::LeastInFlight)
///     // Endpoints of other zones help from fifty requests in flight on.
///     .with_zone("a")
///     .with_spill_over_at(50)
///     .with_health_service("greeter.v1.Greeter")
///     .with_connect_timeout(Duration::from_millis(500))
///     .with_wait_for_ready(Duration::from_secs(2));
/// assert_eq!(options.zone.as_deref(), Some("a"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// How requests are distributed.
    pub picker: Picker,
    /// The zone whose endpoints are preferred, by their metadata `zone`.
    pub zone: Option<String>,
    /// Requests in flight at an endpoint of the preferred zone beyond which other zones are used
    /// too.
    pub spill_over_at: usize,
    /// A fixed share of the traffic for certain endpoints.
    pub canary: Option<Canary>,
    /// The service name to query the health service for.
    pub health_service: String,
    /// Time limit for connecting to an endpoint.
    pub connect_timeout: Duration,
    /// How long a request waits for an endpoint to become ready before it fails as unavailable.
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

impl ChannelOptions {
    /// Shares requests out like this.
    #[must_use]
    pub fn with_picker(mut self, picker: Picker) -> Self {
        self.picker = picker;
        self
    }

    /// Prefers endpoints of this zone.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Lets other zones help out from so many requests under way on.
    #[must_use]
    pub fn with_spill_over_at(mut self, spill_over_at: usize) -> Self {
        self.spill_over_at = spill_over_at;
        self
    }

    /// Sends a share of the traffic to certain endpoints.
    #[must_use]
    pub fn with_canary(mut self, canary: Canary) -> Self {
        self.canary = Some(canary);
        self
    }

    /// Asks the health service for this name.
    #[must_use]
    pub fn with_health_service(mut self, health_service: impl Into<String>) -> Self {
        self.health_service = health_service.into();
        self
    }

    /// With this bound on connecting to an endpoint.
    #[must_use]
    pub fn with_connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// With this bound on waiting for an endpoint that is ready.
    #[must_use]
    pub fn with_wait_for_ready(mut self, wait_for_ready: Duration) -> Self {
        self.wait_for_ready = wait_for_ready;
        self
    }
}
