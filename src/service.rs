//! What the doors (gRPC, HTTP) share: finding the group, measuring, and logging what went wrong.
//!
//! It must never know how a request came in.

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use crate::{
    core::group::{Answer, Group, Groups, Source},
    error::{Error, ErrorKind, Result},
    ports::{Clock, PeerAnswer, Timestamp},
    telemetry::{
        metrics::{GroupMetrics, Metrics},
        throttle::Throttle,
    },
};

/// The node's groups as the doors serve them. Cheap to clone.
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
    throttle: Throttle,
}

impl Service {
    /// Serves these groups.
    pub fn new(groups: Groups, metrics: &Metrics, clock: Arc<dyn Clock>) -> Self {
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
                throttle: Throttle::default(),
            }),
        }
    }

    /// The time, for what is left of an answer's life.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// A client's get.
    ///
    /// # Errors
    /// As [`Group::get`], or [`ErrorKind::UnknownGroup`].
    pub async fn get(&self, group: &str, key: &str) -> Result<Answer> {
        let started = Instant::now();
        let answer = match self.inner.groups.get(group) {
            Ok(group) => group.get(key).await,
            Err(error) => Err(error),
        };
        let outcome = answer.as_ref().map(|it| it.source).map_err(Error::kind);
        self.metrics(group).request(started.elapsed(), outcome);
        if let Err(error) = &answer {
            self.log(group, error);
        }
        answer
    }

    /// Another node's fetch.
    ///
    /// # Errors
    /// As [`Group::answer_peer`], or [`ErrorKind::UnknownGroup`].
    pub async fn answer_peer(&self, group: &str, key: &str) -> Result<PeerAnswer> {
        let answer = match self.inner.groups.get(group) {
            Ok(group) => group.answer_peer(key).await,
            Err(error) => Err(error),
        };
        let outcome = match &answer {
            Ok(answer) if answer.was_hit => Ok(Source::Hit),
            Ok(_) => Ok(Source::Origin),
            Err(error) => Err(error.kind()),
        };
        self.metrics(group).peer_request(outcome);
        answer
    }

    /// Another node's look; never loads.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`].
    pub fn look_for_peer(&self, group: &str, key: &str) -> Result<Option<PeerAnswer>> {
        Ok(self.inner.groups.get(group)?.look_for_peer(key))
    }

    /// Another node's invalidation: here only. Returns how many entries went.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`].
    pub fn invalidate_here(&self, group: &str, key: Option<&str>) -> Result<u64> {
        Ok(self.inner.groups.get(group)?.invalidate_here(key))
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

    /// A client's removal of a whole group; returns how many entries went.
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
        // The origin's failures were logged by the load itself; a missing key is an answer.
        if matches!(
            kind,
            ErrorKind::NotFound
                | ErrorKind::OriginFailed
                | ErrorKind::OriginTimeout
                | ErrorKind::ValueTooLarge
        ) {
            return;
        }
        if let Some(left_out) = self.inner.throttle.due(kind.name()) {
            let group: String = group.chars().take(64).collect();
            tracing::warn!(group, kind = kind.name(), %error, left_out, "a request failed");
        }
    }
}
