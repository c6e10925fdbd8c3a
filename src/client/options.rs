//! The options of a client. A call is limited as a whole; `gaocache_discovery::ChannelOptions`
//! limits the wait for an endpoint, and leaves the call to its caller.

use std::time::Duration;

use crate::{tls::ClientTls, wire::bearer::Bearer};
use gaocache_core::error::Result;

/// The options of a client.
///
/// ```
/// use std::time::Duration;
/// use gaocache::ClientOptions;
///
/// # fn main() -> gaocache::Result<()> {
/// let options = ClientOptions::default()
///     .with_deadline(Duration::from_secs(5))
///     .with_try_timeout(Duration::from_secs(2))
///     .with_connect_timeout(Duration::from_millis(500))
///     .with_token("2f6c1a")?;
/// assert_eq!(options.deadline, Duration::from_secs(5));
/// assert!(ClientOptions::default().with_token("two\nlines").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Time limit for a call, including all retries.
    pub deadline: Duration,
    /// Time limit for connecting to a node.
    pub connect_timeout: Duration,
    /// Time limit for one attempt. It must be long enough for a load from the origin.
    pub try_timeout: Duration,
    /// The token that each call carries.
    pub(crate) bearer: Bearer,
    /// TLS. `None`: with nodes that registered that they speak it, trusting the authorities of the
    /// system. Otherwise with all nodes, so that none of them can be asked in plaintext.
    pub tls: Option<ClientTls>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(1),
            try_timeout: Duration::from_secs(15),
            bearer: Bearer::default(),
            tls: None,
        }
    }
}

impl ClientOptions {
    /// With this bound on a call, all its retries included.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// With this bound on connecting to a node.
    #[must_use]
    pub fn with_connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// With this bearer token in each call. Nodes need it for what not everybody may do.
    ///
    /// # Errors
    /// [`InvalidRequest`](crate::ErrorKind::InvalidRequest) if no header can carry it.
    pub fn with_token(mut self, token: &str) -> Result<Self> {
        self.bearer = Bearer::new(token)?;
        Ok(self)
    }

    /// With TLS to all nodes.
    #[must_use]
    pub fn with_tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With this bound on one try.
    #[must_use]
    pub fn with_try_timeout(mut self, try_timeout: Duration) -> Self {
        self.try_timeout = try_timeout;
        self
    }
}
