//! What the listeners for clients share: finding the group, metrics, traces, and logging
//! failures.
//!
//! It must not depend on the protocol of a request.

mod many;
mod measured;
mod plain;
mod removals;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt};
use http::HeaderMap;
use tokio::time::Instant;

#[cfg(feature = "cli")]
use crate::fairness::Quota;
use crate::{
    fairness::{ClientId, Permit, Quotas},
    telemetry::{
        metrics::{self, GroupMetrics, HandoffMetrics, Metrics},
        requests,
        throttle::Throttle,
        trace::{self, Call, Sampling, Scope, SpanAttributes},
    },
    traffic::Budget,
};
use gaocache_core::{
    askers::Asker,
    error::{Error, Result},
    group::{Answer, Groups, Query, Source},
    ports::{Clock, Fetched, Parcel, Peeked, PeerAnswer, Reading, Receipt, Sender, Timestamp},
    standing::Standing,
};
pub(crate) use many::{HELD_BYTES, flight_bytes};

/// How requests are measured.
#[derive(Clone, Copy, Debug)]
pub struct Measuring {
    /// Whether requests are counted and timed.
    pub requests: bool,
    /// Which requests have spans.
    pub sampling: Sampling,
}

/// When gets of a client begin, for what may be served from memory. Of many that come at once, the
/// clock is read once for all.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the node's clock.
    pub now: Timestamp,
}

/// The node's groups as the listeners serve them. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
    /// Who asks.
    client: ClientId,
}

struct Inner {
    groups: Groups,
    /// Of each group that there ever was.
    metrics: ArcSwap<HashMap<Arc<str>, Arc<GroupMetrics>, foldhash::fast::RandomState>>,
    /// For groups that don't exist.
    unknown: Arc<GroupMetrics>,
    clock: Arc<dyn Clock>,
    handoff_metrics: Arc<HandoffMetrics>,
    measuring: Measuring,
    quotas: Arc<Quotas>,
    /// For values that are decompressed.
    budget: Arc<Budget>,
    throttle: Throttle,
}

impl Service {
    /// Serves these groups, within these quotas.
    pub(crate) fn new(
        groups: Groups,
        metrics: &Metrics,
        clock: Arc<dyn Clock>,
        measuring: Measuring,
        quotas: Arc<Quotas>,
        budget: Arc<Budget>,
    ) -> Self {
        let by_name = groups
            .iter()
            .map(|group| (group.name().clone(), metrics.group(group.name())))
            .collect();
        Self {
            inner: Arc::new(Inner {
                groups,
                metrics: ArcSwap::from_pointee(by_name),
                unknown: metrics.group(""),
                clock,
                handoff_metrics: metrics.handoff(),
                measuring,
                quotas,
                budget,
                throttle: Throttle::default(),
            }),
            client: ClientId::NOBODY,
        }
    }

    /// The same, for this client.
    pub(crate) fn asked_by(&self, client: ClientId) -> Self {
        Self {
            inner: self.inner.clone(),
            client,
        }
    }

    /// From now on, clients may ask for this.
    #[cfg(feature = "cli")]
    pub(crate) fn limit(&self, quota: Quota) {
        self.inner.quotas.set(quota);
    }

    /// Whether requests have to be admitted.
    pub(crate) fn limits_requests(&self) -> bool {
        self.inner.quotas.limits_requests()
    }

    /// Admits a request of the client, for so many keys.
    ///
    /// # Errors
    /// [`ErrorKind::TooManyRequests`](crate::ErrorKind::TooManyRequests).
    pub(crate) fn admit(&self, keys: usize) -> Result<()> {
        let count = u32::try_from(keys.max(1)).unwrap_or(u32::MAX);
        Ok(self.inner.quotas.request(self.client, count)?)
    }

    /// Counts the requests of these groups by name, before they take effect.
    #[cfg(feature = "cli")]
    pub fn know<'a>(&self, groups: impl Iterator<Item = &'a Arc<str>>, metrics: &Metrics) {
        let mut by_name = HashMap::clone(&self.inner.metrics.load());
        for name in groups {
            let of_group = || metrics.group(name);
            by_name.entry(name.clone()).or_insert_with(of_group);
        }
        self.inner.metrics.store(Arc::new(by_name));
    }

    /// The largest value that any group takes, in bytes.
    pub fn largest_value(&self) -> u64 {
        let values = self
            .inner
            .groups
            .iter()
            .map(|group| group.rules().max_value);
        values.max().unwrap_or(0)
    }

    /// What a query string means that comes with a key of that group.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`](crate::ErrorKind::UnknownGroup).
    pub fn query(&self, group: &str) -> Result<Query> {
        Ok(self.inner.groups.get(group)?.rules().query)
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

    /// The moment at which gets begin that have come just now.
    pub fn moment(&self) -> Moment {
        Moment { now: self.now() }
    }

    /// A client's get that has begun at this moment, if this node's memory has the answer, and it
    /// can be given at once: a large value that is kept compressed can't.
    pub fn get_held(&self, group: &str, key: &str, moment: &Moment) -> Option<Result<Answer>> {
        let started = self.begin_held();
        let answer = self.inner.groups.held(group, key, moment.now)?;
        if answer
            .as_ref()
            .is_ok_and(|it| !Self::can_be_plain_at_once(it))
        {
            return None;
        }
        self.has_held(group, key, started, &answer);
        Some(answer.and_then(|answer| self.plain_at_once(answer)))
    }

    /// The same with whatever value memory has; it may be compressed.
    pub fn get_held_as_stored(
        &self,
        group: &str,
        key: &str,
        moment: &Moment,
    ) -> Option<Result<Answer>> {
        let started = self.begin_held();
        let answer = self.inner.groups.held(group, key, moment.now)?;
        self.has_held(group, key, started, &answer);
        Some(answer)
    }

    /// When a get from memory begins, if it is one that is timed.
    fn begin_held(&self) -> Option<Instant> {
        let timed = self.inner.measuring.requests && (requests::is_on() || metrics::is_timed());
        timed.then(Instant::now)
    }

    fn has_held(&self, group: &str, key: &str, started: Option<Instant>, answer: &Result<Answer>) {
        if self.inner.measuring.requests {
            let took = started.map(|it| it.elapsed());
            self.count(group, |metrics| {
                metrics.answered_from_memory(took, answer.is_ok())
            });
            if let Some(took) = took {
                requests::log(group, key, took, answer);
            }
        }
        self.record_get(group, key, answer);
    }

    /// A client's get, after [`Service::get_held`] has found nothing.
    ///
    /// # Errors
    /// As [`gaocache_core::group::Group::get`], or
    /// [`UnknownGroup`](gaocache_core::ErrorKind::UnknownGroup).
    pub async fn get_elsewhere(&self, group: &str, key: &str) -> Result<Answer> {
        let answer = self.get_elsewhere_as_stored(group, key).await?;
        self.plain(answer).await
    }

    /// The same with a value that may be compressed.
    ///
    /// # Errors
    /// As [`Service::get_elsewhere`].
    pub async fn get_elsewhere_as_stored(&self, group: &str, key: &str) -> Result<Answer> {
        let started = self.inner.measuring.requests.then(Instant::now);
        let answer = match (self.inner.groups.get(group), self.miss()) {
            (Ok(group), Ok(_miss)) => self.client.scope(group.get(key)).await,
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if let Some(started) = started {
            self.measure(group, key, started.elapsed(), &answer);
        }
        self.record_get(group, key, &answer);
        answer
    }

    fn miss(&self) -> Result<Permit> {
        Ok(self.inner.quotas.miss(self.client)?)
    }

    /// Traces and logs a client's get.
    fn record_get(&self, group: &str, key: &str, answer: &Result<Answer>) {
        if self.inner.measuring.sampling.is_on() {
            trace::ended(
                answer.as_ref().map(|it| it.source.name()),
                SpanAttributes {
                    group,
                    key: self.inner.measuring.sampling.key(key),
                    owner: answer.as_ref().ok().map(|it| &*it.owner),
                    bytes: answer.as_ref().ok().map(|it| it.value.len()),
                },
            );
        }
        if let Err(error) = answer {
            self.log(group, error);
        }
    }

    /// Another node's fetch.
    ///
    /// # Errors
    /// As [`gaocache_core::group::Group::answer_peer`], or
    /// [`ErrorKind::UnknownGroup`](crate::ErrorKind::UnknownGroup).
    pub async fn answer_peer(&self, group: &str, key: &str) -> Result<PeerAnswer> {
        let answer = match self.inner.groups.get(group) {
            Ok(group) => group.answer_peer(key).await,
            Err(error) => Err(error),
        };
        self.record_fetch(group, key, answer.as_ref());
        answer
    }

    /// Another node's fetch of several keys: answers as they come, each with the place of its key.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`](crate::ErrorKind::UnknownGroup).
    pub fn answer_peer_many(
        &self,
        group: &str,
        keys: Vec<String>,
    ) -> Result<impl Stream<Item = (usize, Result<Fetched>)> + Send + use<>> {
        let known = self.inner.groups.get(group)?;
        let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
        let answers = known.answer_peer_many(&asked);
        let service = self.clone();
        Ok(answers.map(move |(place, answer)| {
            match &answer {
                Ok(Fetched::Answer(answer)) => {
                    service.record_fetch(known.name(), &keys[place], Ok(answer));
                }
                // It is fetched once more.
                Ok(Fetched::Large) => {}
                Err(error) => service.record_fetch(known.name(), &keys[place], Err(error)),
            }
            (place, answer)
        }))
    }

    /// Counts and traces the answer to another node's fetch.
    fn record_fetch(&self, group: &str, key: &str, answer: Result<&PeerAnswer, &Error>) {
        let source = answer.map(|it| it.source);
        let outcome = source.map_err(Error::kind);
        self.count(group, |metrics| metrics.peer_request(outcome));
        let value = answer.ok().and_then(|it| it.record.value.as_ref());
        trace::ended(
            source.map(Source::name),
            SpanAttributes {
                group,
                key: self.inner.measuring.sampling.key(key),
                owner: None,
                bytes: value.map(|it| it.len()),
            },
        );
    }

    /// As [`gaocache_core::group::Group::also_wanted`].
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`](crate::ErrorKind::UnknownGroup).
    pub fn also_wanted(&self, group: &str, key: &str, askers: &[Asker]) -> Result<bool> {
        Ok(self.inner.groups.get(group)?.also_wanted(key, askers))
    }

    /// Another node's peek. It never loads.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`](crate::ErrorKind::UnknownGroup).
    pub fn peek_for_peer(&self, group: &str, key: &str) -> Result<Peeked> {
        Ok(self.inner.groups.get(group)?.peek_for_peer(key))
    }

    /// Takes entries that another node hands over; `read_at` is the earliest moment at which it can
    /// have read them.
    ///
    /// # Errors
    /// As [`Groups::accept`].
    pub fn accept(
        &self,
        standing: &Standing,
        parcels: &[Parcel],
        sender: Sender,
        read_at: Timestamp,
    ) -> Result<Receipt> {
        let groups = &self.inner.groups;
        let reading = Reading {
            read_at,
            now: self.now(),
        };
        let receipt = groups.accept(standing, parcels, sender, reading)?;
        let metrics = &self.inner.handoff_metrics;
        metrics.received(&receipt);
        let topology = standing.cluster().topology();
        let (here, there) = (topology.me(), topology.by_incarnation(sender.member));
        let bytes = parcels.iter().map(Parcel::value_bytes).sum();
        metrics.received_bytes.add(here, there, bytes);
        Ok(receipt)
    }
}
