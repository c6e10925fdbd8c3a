//! What the gRPC and HTTP listeners share: finding the group, metrics, traces, and logging
//! failures.
//!
//! It must not depend on the protocol of a request.

use std::{collections::HashMap, sync::Arc};

use http::HeaderMap;
use tokio::time::Instant;

use crate::telemetry::{
    metrics::{GroupMetrics, HandoffMetrics, Metrics},
    throttle::Throttle,
    trace::{self, Call, Sampling, Scope, Told},
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Accepted, Answer, Group, Groups, Source},
    membership::{Fingerprint, IdHash},
    ports::{Clock, Invalidated, Parcel, PeerAnswer, Receipt, Timestamp},
    store::Offered,
};

/// How requests are measured.
#[derive(Clone, Copy, Debug)]
pub struct Measuring {
    /// Whether requests are counted and timed.
    pub requests: bool,
    /// Which requests have spans.
    pub sampling: Sampling,
}

/// The node's groups as the listeners serve them. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    groups: Groups,
    metrics: HashMap<Arc<str>, Arc<GroupMetrics>>,
    /// For groups that don't exist.
    unknown: Arc<GroupMetrics>,
    clock: Arc<dyn Clock>,
    handoff_metrics: Arc<HandoffMetrics>,
    measuring: Measuring,
    throttle: Throttle,
}

impl Service {
    /// Serves these groups.
    pub fn new(
        groups: Groups,
        metrics: &Metrics,
        clock: Arc<dyn Clock>,
        measuring: Measuring,
    ) -> Self {
        let by_name = groups
            .iter()
            .map(|group| (group.name().clone(), metrics.group(group.name())))
            .collect();
        Self {
            inner: Arc::new(Inner {
                groups,
                metrics: by_name,
                unknown: metrics.group(""),
                clock,
                handoff_metrics: metrics.handoff(),
                measuring,
                throttle: Throttle::default(),
            }),
        }
    }

    /// The current time, for computing the remaining time to live of an answer.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// The trace scope in which a client's call runs.
    pub fn begin(&self, call: Call, headers: &HeaderMap) -> Scope {
        self.inner.measuring.sampling.begin(call, headers)
    }

    /// The trace scope in which another node's call runs.
    pub fn follow(&self, call: Call, headers: &HeaderMap) -> Scope {
        self.inner.measuring.sampling.follow(call, headers)
    }

    /// A client's get.
    ///
    /// # Errors
    /// As [`Group::get`], or [`ErrorKind::UnknownGroup`].
    pub async fn get(&self, group: &str, key: &str) -> Result<Answer> {
        let started = self.inner.measuring.requests.then(Instant::now);
        let answer = match self.inner.groups.get(group) {
            Ok(group) => group.get(key).await,
            Err(error) => Err(error),
        };
        if let Some(started) = started {
            let outcome = answer.as_ref().map(|it| it.source).map_err(Error::kind);
            self.metrics(group).request(started.elapsed(), outcome);
        }
        trace::ended(
            answer.as_ref().map(|it| it.source.name()),
            Told {
                group,
                key: self.inner.measuring.sampling.key(key),
                owner: answer.as_ref().ok().map(|it| &*it.owner),
                bytes: answer.as_ref().ok().map(|it| it.value.len()),
            },
        );
        if let Err(error) = &answer {
            self.log(group, error);
        }
        answer
    }

    /// Another node's fetch.
    ///
    /// # Errors
    /// As [`Group::answer_peer`], or [`ErrorKind::UnknownGroup`].
    pub async fn answer_peer(&self, group: &str, key: &str, asker: IdHash) -> Result<PeerAnswer> {
        let answer = match self.inner.groups.get(group) {
            Ok(group) => group.answer_peer(key, asker).await,
            Err(error) => Err(error),
        };
        let source = answer.as_ref().map(|it| {
            if it.was_hit {
                Source::Hit
            } else {
                Source::Origin
            }
        });
        self.metrics(group)
            .peer_request(source.map_err(Error::kind));
        let value = answer.as_ref().ok().and_then(|it| it.value.as_ref());
        trace::ended(
            source.map(Source::name),
            Told {
                group,
                key: self.inner.measuring.sampling.key(key),
                owner: None,
                bytes: value.map(|it| it.len()),
            },
        );
        answer
    }

    /// Another node's peek. It never loads.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`].
    pub fn peek_for_peer(
        &self,
        group: &str,
        key: &str,
        asker: IdHash,
    ) -> Result<Option<PeerAnswer>> {
        Ok(self.inner.groups.get(group)?.peek_for_peer(key, asker))
    }

    /// Accepts entries that another node hands over.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] if this node is leaving. The sender will learn of the new owner from
    /// its next ring.
    pub fn accept(&self, parcels: &[Parcel], sender: IdHash) -> Result<Receipt> {
        let mut receipt = Receipt::default();
        for parcel in parcels {
            let taken = match self.inner.groups.get(&parcel.group) {
                Ok(group) if group.is_leaving() => {
                    return Err(Error::new(ErrorKind::NotReady, "this node is leaving"));
                }
                Ok(group) => group.accept(parcel, sender),
                Err(_) => Accepted::Refused,
            };
            *match taken {
                Accepted::Offered(Offered::Kept) => &mut receipt.kept,
                Accepted::Offered(Offered::Known) => &mut receipt.known,
                Accepted::Offered(Offered::Full) => &mut receipt.full,
                Accepted::Refused => &mut receipt.refused,
            } += 1;
        }
        self.inner.handoff_metrics.received(receipt);
        Ok(receipt)
    }

    /// Another node's invalidation, which applies to this node only. `known` is the fingerprint of
    /// the members that the sender tells.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`].
    pub fn invalidate_for_peer(
        &self,
        group: &str,
        key: Option<&str>,
        known: Fingerprint,
    ) -> Result<Invalidated> {
        let group = self.inner.groups.get(group)?;
        Ok(group.invalidate_for_peer(key, known))
    }

    /// A client's removal of a key.
    ///
    /// # Errors
    /// As [`Group::remove`], or [`ErrorKind::UnknownGroup`].
    pub async fn remove(&self, group: &str, key: &str) -> Result<()> {
        self.invalidate(group, async |group| group.remove(key).await.map(|()| 0))
            .await
            .map(|_| ())
    }

    /// A client's removal of a whole group. Returns the number of removed entries.
    ///
    /// # Errors
    /// As [`Group::purge`], or [`ErrorKind::UnknownGroup`].
    pub async fn purge(&self, group: &str) -> Result<u64> {
        self.invalidate(group, async |group| group.purge().await)
            .await
    }

    async fn invalidate(
        &self,
        group: &str,
        work: impl AsyncFnOnce(Arc<Group>) -> Result<u64>,
    ) -> Result<u64> {
        let result = match self.inner.groups.get(group) {
            Ok(group) => work(group.clone()).await,
            Err(error) => Err(error),
        };
        let outcome = result.as_ref().map(|_| ()).map_err(Error::kind);
        self.metrics(group).invalidation(outcome);
        trace::ended(
            result.as_ref().map(|_| "ok"),
            Told {
                group,
                ..Told::default()
            },
        );
        if let Err(error) = &result {
            self.log(group, error);
        }
        result
    }

    fn metrics(&self, group: &str) -> &GroupMetrics {
        self.inner.metrics.get(group).unwrap_or(&self.inner.unknown)
    }

    fn log(&self, group: &str, error: &Error) {
        let kind = error.kind();
        // The load itself has already logged failures of the origin. A missing key is not a
        // failure.
        if matches!(
            kind,
            ErrorKind::NotFound
                | ErrorKind::OriginFailed
                | ErrorKind::OriginTimeout
                | ErrorKind::ValueTooLarge
        ) {
            return;
        }
        if let Some(suppressed) = self.inner.throttle.due(kind.name()) {
            let group: String = group.chars().take(64).collect();
            tracing::warn!(group, kind = kind.name(), %error, suppressed, "a request failed");
        }
    }
}
