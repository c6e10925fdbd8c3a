//! What is told of a request once it has been answered: counts, times and failures in the log.

use std::time::Duration;

use super::Service;
use crate::telemetry::{metrics::GroupMetrics, requests};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Answer, Source},
};

impl Service {
    pub(super) fn measure(&self, group: &str, key: &str, took: Duration, answer: &Result<Answer>) {
        let outcome = answer.as_ref().map(|it| it.source);
        self.count(group, |metrics| {
            metrics.request(took, outcome.map_err(Error::kind));
            match outcome {
                // That there is no such key is mostly known from memory, too.
                Ok(Source::Hit) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                outcome => metrics.misses.add(key, took, outcome.map(Source::name)),
            }
        });
        requests::log(group, key, took, answer);
    }

    /// Counts for a group. Hands out no clone: all workers would write to its count of references
    /// at each hit.
    pub(super) fn count<R>(&self, group: &str, count: impl FnOnce(&GroupMetrics) -> R) -> R {
        let known = self.inner.metrics.load();
        count(known.get(group).unwrap_or(&self.inner.unknown))
    }

    pub(super) fn log(&self, group: &str, error: &Error) {
        let kind = error.kind();
        // The load itself has already logged failures of the origin, and who refused a client has
        // logged that. A missing key is not a failure.
        if matches!(
            kind,
            ErrorKind::NotFound
                | ErrorKind::OriginFailed
                | ErrorKind::OriginTimeout
                | ErrorKind::BreakerOpen
                | ErrorKind::ValueTooLarge
                | ErrorKind::TooManyRequests
        ) {
            return;
        }
        if let Some(suppressed) = self.inner.throttle.due(kind.name()) {
            let group: String = group.chars().take(64).collect();
            tracing::warn!(group, kind = kind.name(), %error, suppressed, "a request failed");
        }
    }
}
