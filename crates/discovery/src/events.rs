//! What a registration tells of itself.

use std::{sync::Arc, time::Duration};

use crate::endpoint::Endpoint;

/// How a registration fares.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RegistrationStatus {
    /// What stands in etcd as far as we know; `None`: nothing of ours.
    pub registered: Option<Endpoint>,
    /// The revision at which it was written last.
    pub revision: u64,
    /// Another process holds the key under another lease: two with one id, or a successor.
    pub superseded: bool,
    /// What stands in the way at the moment; empty: nothing.
    pub problem: Arc<str>,
}

/// What happened to a registration, for metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationEvent {
    /// A lease was granted or renewed; it surely lives for that long from now.
    Renewed {
        /// Time to live left.
        left: Duration,
    },
    /// A renewal was not acknowledged.
    RenewalFailed,
    /// The lease is gone at etcd.
    LeaseLost,
    /// The key was written, and why.
    Registered {
        /// `start`, `lease_lost`, `key_lost`, `changed`.
        reason: &'static str,
    },
    /// Another process wrote the key.
    Superseded,
    /// A session broke.
    Disconnected {
        /// Why.
        cause: String,
    },
}
