//! The metrics of the stores.

use prometheus::{IntCounterVec, IntGaugeVec, Result};

use super::registrar::{Registrar, as_gauge, raise};
use crate::telemetry::names;
use gaocache_core::store::GroupStats;

/// The metrics of the stores, by tier.
pub struct StoreMetrics {
    items: IntGaugeVec,
    bytes: IntGaugeVec,
    capacity: IntGaugeVec,
    share: IntGaugeVec,
    limit: IntGaugeVec,
    purged_tags: IntGaugeVec,
    evictions: IntCounterVec,
    expirations: IntCounterVec,
}

impl StoreMetrics {
    pub(super) fn register(registrar: &Registrar<'_>) -> Result<Self> {
        Ok(Self {
            items: registrar.gauges(names::STORE_ITEMS)?,
            bytes: registrar.gauges(names::STORE_BYTES)?,
            capacity: registrar.gauges(names::STORE_CAPACITY)?,
            share: registrar.gauges(names::STORE_SHARE)?,
            limit: registrar.gauges(names::STORE_LIMIT)?,
            purged_tags: registrar.gauges(names::STORE_PURGED_TAGS)?,
            evictions: registrar.counters(names::STORE_EVICTIONS)?,
            expirations: registrar.counters(names::STORE_EXPIRATIONS)?,
        })
    }

    /// Records the capacity of a store, and how many purged tags it remembers.
    pub fn holds(&self, tier: &str, bytes: u64, purged_tags: usize) {
        self.capacity
            .with_label_values(&[tier])
            .set(as_gauge(bytes));
        self.purged_tags
            .with_label_values(&[tier])
            .set(as_gauge(purged_tags as u64));
    }

    /// Records a store's numbers for a group; called before each scrape.
    pub fn of_group(&self, group: &str, tier: &str, stats: GroupStats) {
        let labels = &[group, tier];
        for (gauges, now) in [
            (&self.items, stats.items),
            (&self.bytes, stats.bytes),
            (&self.share, stats.share),
            (&self.limit, stats.limit),
        ] {
            gauges.with_label_values(labels).set(as_gauge(now));
        }
        for (counters, total) in [
            (&self.evictions, stats.evicted),
            (&self.expirations, stats.expired),
        ] {
            raise(&counters.with_label_values(labels), total);
        }
    }
}
