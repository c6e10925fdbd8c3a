//! The peers that are out of reach, and the probes that find them back.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::runtime::Handle;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::links::Route;
use crate::backoff::pauses;
use gaocache_core::membership::{Contact, Member, View};

/// Pauses between probes.
const FIRST_PROBE: Duration = Duration::from_millis(100);
const LAST_PROBE: Duration = Duration::from_secs(5);

/// Members that are not called until a probe finds them healthy.
pub(super) struct Ejected {
    /// By their ids. A member that has moved or has another key doesn't match.
    members: Mutex<HashMap<Arc<str>, Contact>>,
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
            members: Mutex::default(),
            count: AtomicUsize::new(0),
            gauge,
            runtime,
            probe_timeout,
        })
    }

    pub(super) fn contains(&self, member: &Member) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.members.lock().get(&member.id) == Some(&member.contact)
    }

    /// Ejects a member until a call by that route finds it healthy; false if it is ejected already.
    pub(super) fn add(self: &Arc<Self>, member: &Member, route: Route) -> bool {
        let mut members = self.members.lock();
        let before = members.insert(member.id.clone(), member.contact.clone());
        if before.as_ref() == Some(&member.contact) {
            return false;
        }
        self.publish(&members);
        drop(members);
        let (this, member) = (self.clone(), member.clone());
        self.runtime
            .spawn(async move { this.probe(&member, route).await });
        true
    }

    /// Forgets those that are no longer members.
    pub(super) fn keep_only(&self, view: &View) {
        let mut members = self.members.lock();
        members.retain(|id, contact| view.member(id).is_some_and(|it| it.contact == *contact));
        self.publish(&members);
    }

    fn publish(&self, members: &HashMap<Arc<str>, Contact>) {
        self.count.store(members.len(), Ordering::Release);
        let count = i64::try_from(members.len()).unwrap_or(i64::MAX);
        self.gauge.set(count);
    }

    /// Tries the member until it serves, or is no longer a member.
    async fn probe(self: Arc<Self>, member: &Member, route: Route) {
        for pause in pauses(FIRST_PROBE, LAST_PROBE) {
            tokio::time::sleep(pause).await;
            if !self.contains(member) {
                return;
            }
            let check = tokio::time::timeout(self.probe_timeout, serves(&route));
            if check.await.unwrap_or(false) {
                let mut members = self.members.lock();
                members.remove(&member.id);
                self.publish(&members);
                let address = &member.contact.address;
                tracing::info!(peer = %member.id, %address, "an ejected peer answers again");
                return;
            }
        }
    }
}

async fn serves(route: &Route) -> bool {
    let request = HealthCheckRequest::default();
    let answer = HealthClient::new(route.channel()).check(request).await;
    answer.is_ok_and(|it| it.into_inner().status() == ServingStatus::Serving)
}
