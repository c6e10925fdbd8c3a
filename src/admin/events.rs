//! The state of the admin page as server-sent events: immediately when the ring changes, and once
//! per second for the numbers. The members are sent only when they changed, or an open page would
//! cost a large cluster's nodes more than all else while nothing happens.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::{IntervalStream, WatchStream};

use super::{
    changes::{Changes, RingChange},
    report::{RingReport, report},
    state::Admin,
};
use crate::{clock, telemetry::metrics::GroupSummary};
use gaocache_core::{cluster::Topology, group::Group};

/// Maximum number of open pages. Each costs one report per second.
static VIEWERS: Semaphore = Semaphore::const_new(64);
/// Interval between events.
const BEAT: Duration = Duration::from_secs(1);
/// What one page has received already.
#[derive(Default)]
struct Told {
    ring: Option<Arc<Topology>>,
    changes: Option<u64>,
}

impl Told {
    /// The ring, if it is not the one that the page received last.
    fn ring(&mut self, node: &str, topology: &Arc<Topology>) -> Option<RingReport> {
        let known = self.ring.replace(topology.clone());
        let is_known = known.is_some_and(|known| Arc::ptr_eq(&known, topology));
        (!is_known).then(|| report(node, topology, Vec::new()))
    }

    /// The latest changes, if there are any that the page has not received.
    fn changes(&mut self, changes: &Changes) -> Option<Vec<RingChange>> {
        changes.unlike(&mut self.changes)
    }
}

/// Everything the page shows.
#[derive(Serialize)]
struct Shown {
    now_seconds: f64,
    /// Why the node is not ready; empty if it is ready.
    not_ready: String,
    /// As before if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    ring: Option<RingReport>,
    /// As before if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<RingChange>>,
    groups: Vec<GroupShown>,
    stores: Vec<StoreShown>,
    /// 0 if there is no lease.
    lease_expires_at_seconds: f64,
    handoff_waiting: i64,
}

#[derive(Serialize)]
struct GroupShown {
    #[serde(flatten)]
    summary: GroupSummary,
    /// Bytes in this node's memory, including copies of entries that other members own.
    bytes: u64,
}

#[derive(Serialize)]
struct StoreShown {
    tier: &'static str,
    items: usize,
    bytes: u64,
    capacity: u64,
}

impl Admin {
    fn shown(&self, topology: &Arc<Topology>, told: &mut Told) -> Shown {
        let store = |(tier, store): &(&'static str, Arc<gaocache_core::store::Store>)| StoreShown {
            tier,
            items: store.len(),
            bytes: store.bytes(),
            capacity: store.capacity(),
        };
        let group = |group: Arc<Group>| GroupShown {
            summary: self.metrics.group(group.name()).summary(),
            bytes: self
                .stores
                .iter()
                .map(|(_, it)| it.stats(group.id()).bytes)
                .sum(),
        };
        let mut groups: Vec<_> = self.groups.iter().map(group).collect();
        groups.sort_by(|a, b| a.summary.name.cmp(&b.summary.name));
        Shown {
            now_seconds: clock::unix_seconds(),
            not_ready: self.readiness.borrow().to_string(),
            ring: told.ring(&self.id, topology),
            changes: told.changes(&self.changes),
            groups,
            stores: self.stores.iter().map(store).collect(),
            lease_expires_at_seconds: self.metrics.membership.lease_expires_at(),
            handoff_waiting: self.metrics.handoff_waiting(),
        }
    }
}

/// `/events`.
pub(super) async fn stream(State(admin): State<Admin>) -> Response {
    let Ok(viewer) = VIEWERS.try_acquire() else {
        let text = "too many admin pages are open on this node\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let states = states(admin).map(move |event| {
        // Keeps the permit as long as the stream lives.
        let _ = &viewer;
        Ok::<_, Infallible>(event)
    });
    Sse::new(states)
        .keep_alive(KeepAlive::default())
        .into_response()
}

fn states(admin: Admin) -> impl Stream<Item = Event> {
    let rings = WatchStream::new(admin.cluster.rings()).map(|_| ());
    let beats = IntervalStream::new(tokio::time::interval(BEAT)).map(|_| ());
    let mut told = Told::default();
    futures::stream::select(rings, beats).map(move |()| {
        let topology = admin.cluster.snapshot();
        let event = Event::default().event("state");
        let shown = admin.shown(&topology, &mut told);
        event
            .json_data(shown)
            .unwrap_or_else(|error| Event::default().event("failed").data(error.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaocache_core::membership::{Member, View};

    #[test]
    fn a_page_is_told_of_a_thousand_members_once_for_each_ring() {
        let ring = |revision| {
            let members = (0..1000).map(|n| Member::new(format!("n{n}"), format!("h:{n}")));
            Arc::new(Topology::new("n0", View::new(revision, members)))
        };
        let changes = Changes::default();
        let mut told = Told::default();
        let mut members_sent = 0;
        let mut changes_sent = 0;
        let mut beats = |topology: &Arc<Topology>, told: &mut Told| {
            for _ in 0..60 {
                let report = told.ring("n0", topology);
                members_sent += report.map_or(0, |report| report.members.len());
                changes_sent += usize::from(told.changes(&changes).is_some());
            }
            (members_sent, changes_sent)
        };
        let first = ring(1);
        assert_eq!(beats(&first, &mut told), (1000, 1));
        // The change is noted a moment after the ring has become current.
        let second = ring(2);
        assert_eq!(beats(&second, &mut told), (2000, 1));
        let change = RingChange::between(&first.view, &second.view);
        changes.add(change);
        assert_eq!(beats(&second, &mut told), (2000, 2));
    }
}
