//! How peers are called, as plain values.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::slots::LoadBounds;
use crate::{tls::PeerTls, traffic::Budget};

/// What a message holds beside its largest value: key, numbers, and in a handoff the smaller
/// entries of the same batch.
const MESSAGE_OVERHEAD_BYTES: u64 = 1024 * 1024;

/// How peers are called.
#[derive(Clone, Debug)]
pub struct PeerRules {
    /// Bound on connecting.
    pub connect_timeout: Duration,
    /// Bound on an answer, besides what a load from the origin may take.
    pub timeout: Duration,
    /// How long a connection is kept without a call.
    pub idle: Duration,
    /// The largest value of any group, in bytes.
    pub max_value: u64,
    /// Counts answers while they arrive.
    pub budget: Arc<Budget>,
    /// Worker threads.
    pub workers: usize,
    /// How this node and its peers know each other.
    pub tls: PeerTls,
    /// What bounds the loads of each group at first; see `GrpcPeers::bound_loads`.
    pub loads: HashMap<Arc<str>, LoadBounds>,
}

/// The largest message between nodes, in bytes: one that carries a value of `max_value`, or a batch
/// of smaller ones with it.
pub(in crate::rpc) fn message_limit(max_value: u64) -> usize {
    usize::try_from(max_value.saturating_add(MESSAGE_OVERHEAD_BYTES)).unwrap_or(usize::MAX)
}
