//! The peers that are out of reach, and the probes that find them back.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::runtime::Handle;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::backoff::pauses;

/// Pauses between probes.
const FIRST_PROBE: Duration = Duration::from_millis(100);
const LAST_PROBE: Duration = Duration::from_secs(5);

/// Addresses that are not called until a probe finds them healthy.
pub(super) struct Ejected {
    addresses: Mutex<HashSet<Arc<str>>>,
    /// Their number, to be read without the lock: nearly always zero.
    count: AtomicUsize,
    gauge: IntGauge,
    /// Where probes run, so that they outlive the request that found the failure.
    runtime: Handle,
    probe_timeout: Duration,
}

impl Ejected {
    /// None yet. `probe_timeout` bounds a probe.
    pub(super) fn new(gauge: IntGauge, runtime: Handle, probe_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            addresses: Mutex::default(),
            count: AtomicUsize::new(0),
            gauge,
            runtime,
            probe_timeout,
        })
    }

    pub(super) fn contains(&self, address: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.addresses.lock().contains(address)
    }

    /// Ejects an address until a call by way of `endpoint` finds it healthy.
    pub(super) fn add(self: &Arc<Self>, address: &Arc<str>, endpoint: Endpoint) {
        let mut addresses = self.addresses.lock();
        if !addresses.insert(address.clone()) {
            return;
        }
        self.publish(&addresses);
        drop(addresses);
        let (this, address) = (self.clone(), address.clone());
        self.runtime
            .spawn(async move { this.probe(address, endpoint).await });
    }

    /// Forgets addresses that no member has any more.
    pub(super) fn keep_only(&self, wanted: &HashSet<Arc<str>>) {
        let mut addresses = self.addresses.lock();
        addresses.retain(|address| wanted.contains(address));
        self.publish(&addresses);
    }

    fn publish(&self, addresses: &HashSet<Arc<str>>) {
        self.count.store(addresses.len(), Ordering::Release);
        let count = i64::try_from(addresses.len()).unwrap_or(i64::MAX);
        self.gauge.set(count);
    }

    /// Tries the address until it serves, or until no member has it any more.
    async fn probe(self: Arc<Self>, address: Arc<str>, endpoint: Endpoint) {
        for pause in pauses(FIRST_PROBE, LAST_PROBE) {
            tokio::time::sleep(pause).await;
            if !self.addresses.lock().contains(&address) {
                return;
            }
            let check = tokio::time::timeout(self.probe_timeout, serves(&endpoint));
            if check.await.unwrap_or(false) {
                let mut addresses = self.addresses.lock();
                addresses.remove(&address);
                self.publish(&addresses);
                tracing::info!(%address, "an ejected peer answers again");
                return;
            }
        }
    }
}

async fn serves(endpoint: &Endpoint) -> bool {
    let Ok(channel) = endpoint.connect().await else {
        return false;
    };
    let request = HealthCheckRequest::default();
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|it| it.into_inner().status() == ServingStatus::Serving)
}
