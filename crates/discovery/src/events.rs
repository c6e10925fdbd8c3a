//! What a registration reports about itself.

use std::{sync::Arc, time::Duration};

use crate::endpoint::Endpoint;

/// How a registration fares.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// What is stored in etcd, as far as we know. `None` if nothing of ours is.
    pub registered: Option<Endpoint>,
    /// The revision at which it was last written.
    pub revision: u64,
    /// The lease under which it stands; 0 if nothing was written yet.
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
        /// The lease under which it stands.
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
