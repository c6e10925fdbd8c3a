//! The metrics of permissions and the audit.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Result};

use super::registrar::Registrar;
use crate::telemetry::names;

/// The metrics of permissions and the audit.
pub struct AuthMetrics {
    /// Refused calls, by role and reason.
    pub refusals: IntCounterVec,
    /// 1 for each source that could not be used when it was read last.
    pub stale: IntGaugeVec,
    /// Lines of the audit that were not written.
    pub audit_dropped: IntCounter,
}

impl AuthMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        let refusals = registrar.counters(names::AUTH_REFUSALS)?;
        // Prometheus doesn't count the first increase of a series that was absent before.
        for role in ["read", "remove", "purge", "admin"] {
            for reason in ["unauthenticated", "denied"] {
                refusals.with_label_values(&[role, reason]);
            }
        }
        refusals.with_label_values(&["login", "unauthenticated"]);
        let stale = registrar.gauges(names::AUTH_STALE)?;
        for source in ["tokens", "jwks"] {
            stale.with_label_values(&[source]);
        }
        Ok(Self {
            refusals,
            stale,
            audit_dropped: registrar.counter(names::AUDIT_DROPPED)?,
        })
    }
}
