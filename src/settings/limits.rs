//! Limits on clients.

use std::time::Duration;

use gaocache_core::error::{Error, ErrorKind, Result};

/// Time limits of connections are checked in steps, so a limit must be long enough to be divided.
pub(crate) const SHORTEST_LIMIT: Duration = Duration::from_millis(10);

/// Limits on clients: the number of their connections, and the time that they may take.
///
/// ```
/// use std::time::Duration;
/// use gaocache::Settings;
///
/// let mut settings = Settings::loopback("node-0");
/// settings.limits.max_connections = 100;
/// settings.limits.write_timeout = Duration::from_secs(5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClientLimits {
    /// Connections of the gRPC, HTTP and Redis listeners together. It is less if the process may
    /// open fewer files.
    pub max_connections: usize,
    /// Connections from one address (IPv6: one /64 network).
    pub max_connections_per_address: usize,
    /// Connections of the admin listener. Further ones wait.
    pub max_admin_connections: usize,
    /// Those from one address. Further ones are closed.
    pub max_admin_connections_per_address: usize,
    /// File descriptors that are reserved for everything except connections of clients.
    pub reserved_descriptors: usize,
    /// From the connect to the HTTP/2 preface, and for the head of an HTTP/1 request.
    pub handshake_timeout: Duration,
    /// For a connection without any request.
    pub idle_timeout: Duration,
    /// For the arrival of a request.
    pub read_timeout: Duration,
    /// For a client that does not read its answer: how long until its connection is closed.
    pub write_timeout: Duration,
    /// For a connection after its certificate has ceased to be accepted, because the authority was
    /// taken out, or its key to be a member's.
    pub untrusted_timeout: Duration,
    /// HTTP/2 control frames without data (`PING`, `SETTINGS` and so on), beyond those that go with
    /// requests and answers.
    pub max_control_frames_per_second: u32,
    /// Keys of one `GetMany`, or of one command of Redis.
    pub max_keys_per_request: usize,
    /// Requests of one client; each key of a `GetMany` counts. 0: as many as it likes. A client is
    /// who it has proven to be, or else its address (IPv6: one /64 network).
    pub max_requests_per_second_per_client: u32,
    /// Gets of one client that are under way and that memory doesn't answer.
    pub max_misses_per_client: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: 1_000,
            max_admin_connections: 256,
            max_admin_connections_per_address: 64,
            reserved_descriptors: 512,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            read_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
            untrusted_timeout: Duration::from_secs(10),
            max_control_frames_per_second: 1_000,
            max_keys_per_request: 10_000,
            max_requests_per_second_per_client: 0,
            max_misses_per_client: 4096,
        }
    }
}

impl ClientLimits {
    /// Refuses values that the types allow but a node can't work with.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::new(ErrorKind::Configuration, what));
        if [
            self.max_connections,
            self.max_connections_per_address,
            self.max_admin_connections,
            self.max_admin_connections_per_address,
            self.max_keys_per_request,
        ]
        .contains(&0)
        {
            return wrong("a limit on connections or keys must not be 0");
        }
        let times = [
            self.handshake_timeout,
            self.idle_timeout,
            self.read_timeout,
            self.write_timeout,
        ];
        if times.iter().any(|it| *it < SHORTEST_LIMIT) {
            return wrong("a time limit of connections must be at least 10 ms");
        }
        Ok(())
    }
}
