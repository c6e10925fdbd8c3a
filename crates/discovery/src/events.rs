//! What a registration reports about itself.

use std::{sync::Arc, time::Duration};

use crate::endpoint::Endpoint;

/// How a registration fares.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use gaocache_discovery::{Endpoint, EtcdConfig, Registration};
///
/// let etcd = EtcdConfig::new(["http://127.0.0.1:1"]);
/// let me = Endpoint::new("10.0.0.7:50051");
/// let registration = Registration::start(etcd, "greeter/10.0.0.7:50051", me);
/// let status = registration.status().borrow().clone();
/// assert_eq!(status.registered, None, "nobody has answered yet");
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// What is stored in etcd, as far as we know. `None` if nothing of ours is.
    pub registered: Option<Endpoint>,
    /// The revision at which it was last written.
    pub revision: u64,
    /// The lease under which it is registered; 0 if nothing was written yet.
    pub lease: i64,
    /// Another process holds the key under another lease: a duplicate id, or a successor.
    pub superseded: bool,
    /// Somebody else took the record away while this registration could not be reached: see
    /// [`expulsion`](crate::expulsion).
    pub expelled: bool,
    /// The current problem; empty if there is none.
    pub problem: Arc<str>,
}

/// An event of a registration, for metrics and logs.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use gaocache_discovery::{Endpoint, EtcdConfig, Registration, RegistrationEvent};
///
/// let etcd = EtcdConfig::new(["http://127.0.0.1:1"]);
/// let me = Endpoint::new("10.0.0.7:50051");
/// let at_once = std::future::ready(());
/// let registration = Registration::start_after(etcd, "greeter/1", me, at_once, |event| {
///     if let RegistrationEvent::Registered { reason, .. } = event {
///         println!("registered: {reason}");
///     }
/// });
/// # drop(registration);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationEvent {
    /// A renewal is about to be sent. A listener that tracks the lease's end by a clock of its own
    /// (one that counts suspension, say) reads that clock now.
    Renewing,
    /// The lease under which the key is stored was renewed.
    Renewed {
        /// Its time to live, counted from the last [`Renewing`](RegistrationEvent::Renewing).
        ttl: Duration,
        /// What is left of that by now.
        left: Duration,
    },
    /// A renewal was not acknowledged.
    RenewalFailed,
    /// The lease no longer exists in etcd.
    LeaseLost,
    /// The key was written.
    Registered {
        /// Why: `start`, `lease_lost`, `key_lost` or `changed`.
        reason: &'static str,
        /// The lease under which it is registered.
        lease: i64,
    },
    /// Another process wrote the key.
    Superseded,
    /// Somebody else took the record away.
    Expelled,
    /// A session broke.
    Disconnected {
        /// Why.
        cause: String,
    },
}
