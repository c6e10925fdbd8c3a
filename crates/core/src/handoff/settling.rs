//! When the entries of a node have to be looked at again: after each ring change, and as long as
//! some could not be sent.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::parts::Moved;
use crate::cluster::Topology;

/// Pause before entries that could not be sent are tried again.
const RETRY: Duration = Duration::from_millis(500);
/// It grows up to this: a member may be out of reach for long.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// How far the background has come with the rings.
#[derive(Default)]
pub(super) struct Settling {
    /// The last ring by which all entries were looked at.
    ring: Arc<Topology>,
    /// The walk over them was broken off by another ring.
    pub(super) broken_off: bool,
    /// When those that could not be sent are tried again; `None`: everything is where it belongs.
    pub(super) retry_at: Option<Instant>,
    pause: Duration,
}

impl Settling {
    pub(super) fn is_due(&self, ring: &Topology) -> bool {
        let retry = self.retry_at.is_some_and(|at| at <= Instant::now());
        self.broken_off || retry || !self.ring.same_ring(ring)
    }

    pub(super) fn walked(&mut self, ring: &Arc<Topology>, moved: Moved) {
        self.pause = if self.ring.same_ring(ring) {
            (self.pause * 2).clamp(RETRY, LONGEST_RETRY)
        } else {
            RETRY
        };
        self.broken_off = moved.interrupted;
        self.ring = ring.clone();
        self.retry_at = (moved.failed > 0).then(|| Instant::now() + self.pause);
        let Moved { sent, failed, .. } = moved;
        if sent + failed > 0 {
            tracing::info!(sent, failed, "handed entries over to their new owners");
        }
    }

    /// Resolves when it is time to try again.
    pub(super) async fn retry(&self) {
        match self.retry_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
