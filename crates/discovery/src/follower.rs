//! The task behind a discovery.
//!
//! A session lists all prefixes at one revision, then watches what comes after it. If anything
//! breaks the session (a closed or silent stream, a compaction, a member without a leader), a new
//! session follows, and its listing *replaces* what was known. Bursts of changes are published
//! together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use etcd_client::{
    Client, EventType, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, WatchOptions,
    WatchResponse, WatchStream,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    connector::{Connector, EtcdConfig},
    endpoint::Endpoint,
    snapshot::{DiscoveryEvent, KeyRange, Snapshot},
};
use crate::{
    backoff::{FIRST_PAUSE, Pauses, at, last_pause},
    error::{Error, ErrorKind},
    history::{Seen, mark_young},
    lease::doubt,
    reconcile::{Event, History, Reconciler},
};

/// Minimum time to the next publication, after one with a single change and after one with several.
/// Single changes reach every ring within milliseconds; a hundred changes in a second become seven
/// rings.
const PAUSE_AFTER_ONE: Duration = Duration::from_millis(30);
const PAUSE_AFTER_SEVERAL: Duration = Duration::from_millis(200);
/// How often etcd is asked for progress on the watch, and the time limit for its answer. etcd's own
/// progress reports come only every ten minutes, and a stream that was silently dropped looks just
/// like an idle one.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The id with which etcd answers for all watches of a stream.
const ALL_WATCHES: i64 = -1;

pub(super) type Listener = Box<dyn Fn(&DiscoveryEvent) + Send + Sync>;

/// The task behind a discovery.
pub(super) struct Follower {
    connector: Arc<Connector>,
    ranges: Vec<KeyRange>,
    /// The key that marks the history as young.
    young: Option<String>,
    publish: watch::Sender<Snapshot>,
    listener: Listener,
    reconciler: Reconciler<Endpoint>,
    epoch: Instant,
    seen: Option<Seen>,
    /// The revision of the session's listing.
    listed: i64,
    /// The earliest time of the next publication.
    publish_from: Option<Instant>,
    /// Changes since the last publication.
    changes: usize,
}

impl Follower {
    pub(super) fn new(
        config: EtcdConfig,
        ranges: Vec<KeyRange>,
        young: Option<String>,
        publish: watch::Sender<Snapshot>,
        listener: Listener,
    ) -> Self {
        let hold = doubt(config.lease_ttl).as_millis();
        let hold = u64::try_from(hold).unwrap_or(u64::MAX);
        Self {
            connector: Connector::new(config),
            ranges: KeyRange::outermost(ranges),
            young,
            publish,
            listener,
            reconciler: Reconciler::new(hold),
            epoch: Instant::now(),
            seen: None,
            listed: 0,
            publish_from: None,
            changes: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let last_pause = last_pause(self.connector.config().lease_ttl);
        let mut pauses = Pauses::new(FIRST_PAUSE, last_pause);
        loop {
            let began = Instant::now();
            let error = self.session().await.at(self.connector.chosen());
            if began.elapsed() > last_pause {
                pauses.reset();
            }
            (self.listener)(&DiscoveryEvent::Disconnected {
                cause: error.to_string(),
            });
            // The last list stays, marked as possibly stale.
            self.publish
                .send_modify(|snapshot| snapshot.problem = error.message().into());
            // Held members are not released during this wait, because we could not see them
            // register again.
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Lists, watches, and returns what ended it.
    async fn session(&mut self) -> Error {
        let mut watch = match self.open().await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        progress.reset();
        let mut heard = true;
        loop {
            let publish_at = self.publish_at();
            let release_at = self.release_at();
            tokio::select! {
                answer = watch.message() => {
                    heard = true;
                    if let Err(error) = self.take(answer) {
                        return error;
                    }
                }
                () = at(publish_at) => self.publish_now(),
                () = at(release_at) => self.release(),
                _ = progress.tick() => {
                    if !heard {
                        return Error::unavailable("no answer on the watch");
                    }
                    heard = false;
                    if let Err(error) = watch.request_progress().await {
                        return Error::of_etcd(error);
                    }
                }
            }
        }
    }

    async fn open(&mut self) -> Result<WatchStream, Error> {
        let mut client = self.connector.connect().await?;
        self.listed = self.list(&mut client).await?;
        // Not from the next revision: etcd answers no request for progress while one of the
        // stream's watches begins after its current revision. With nothing new in etcd, the stream
        // would be taken for a dead one.
        let from = self.listed;
        let options = |range: &KeyRange| {
            let options = WatchOptions::new().with_range(range.end.clone());
            options.with_start_revision(from).with_progress_notify()
        };
        let Some((first, others)) = self.ranges.split_first() else {
            return Err(Error::new(ErrorKind::Configuration, "nothing to follow"));
        };
        let opened = client.watch(first.from.clone(), Some(options(first)));
        let mut watch = self.connector.bounded(opened).await?;
        for range in others {
            let added = watch.watch(range.from.clone(), Some(options(range)));
            self.connector.bounded(added).await?;
        }
        Ok(watch)
    }

    /// Lists all prefixes at one revision, and returns that revision.
    async fn list(&mut self, client: &mut Client) -> Result<i64, Error> {
        let gets = self.ranges.iter().map(|range| {
            let options = GetOptions::new().with_range(range.end.clone());
            TxnOp::get(range.from.clone(), Some(options))
        });
        let listing = Txn::new().and_then(gets.collect::<Vec<_>>());
        let listing = self.connector.bounded(client.txn(listing)).await?;
        let header = listing.header();
        let listed = header.map_or(0, |it| it.revision());
        let now = Seen {
            cluster: header.map_or(0, |it| it.cluster_id()),
            revision: listed,
            complete: vec![listed; self.ranges.len()],
        };
        let mut members = BTreeMap::new();
        let mut newest = 0;
        for part in listing.op_responses() {
            let TxnOpResponse::Get(part) = part else {
                continue;
            };
            for key in part.kvs() {
                newest = newest.max(key.mod_revision());
                if let Some((name, endpoint)) = self.read(key) {
                    members.insert(name, endpoint);
                }
            }
        }
        let history = self.history(&now, client).await?;
        self.seen = Some(now);
        let revision = u64::try_from(newest).unwrap_or(0);
        self.reconciler
            .replace(self.now_ms(), revision, members, history);
        (self.listener)(&DiscoveryEvent::Heard);
        self.publish_now();
        Ok(listed)
    }

    /// Whether etcd lost what was seen before. If so, it is marked, before anybody hears of it.
    async fn history(&self, now: &Seen, client: &mut Client) -> Result<History, Error> {
        let Some(before) = &self.seen else {
            return Ok(History::Kept);
        };
        let (connector, ranges) = (&self.connector, &self.ranges);
        let known = self
            .reconciler
            .listed()
            .map(|(name, it)| (name.clone(), it.revision));
        let known = known.collect();
        let found = before
            .goes_on(now, connector, client, ranges, &known)
            .await?;
        if found == History::Lost {
            (self.listener)(&DiscoveryEvent::HistoryLost);
            if let Some(young) = &self.young {
                mark_young(young, connector, client).await?;
            }
        }
        Ok(found)
    }

    fn take(
        &mut self,
        answer: Result<Option<WatchResponse>, etcd_client::Error>,
    ) -> Result<(), Error> {
        let answer = Error::in_stream(answer, "the watch")?;
        if answer.canceled() {
            let cause = match answer.compact_revision() {
                0 => format!("the watch was cancelled: {}", answer.cancel_reason()),
                revision => format!("the history before revision {revision} was compacted"),
            };
            return Err(Error::unavailable(cause));
        }
        (self.listener)(&DiscoveryEvent::Heard);
        if let (Some(seen), Some(header)) = (&mut self.seen, answer.header()) {
            seen.revision = seen.revision.max(header.revision());
            // An answer without events to a request for progress: nothing else was changed. One
            // that etcd gives unasked is about a single watch.
            let of_all = answer.watch_id() == ALL_WATCHES || self.ranges.len() == 1;
            if answer.events().is_empty() && !answer.created() && of_all {
                for complete in &mut seen.complete {
                    *complete = header.revision().max(*complete);
                }
            }
        }
        for event in answer.events() {
            let Some(key) = event.kv() else { continue };
            if key.mod_revision() <= self.listed {
                continue;
            }
            let revision = u64::try_from(key.mod_revision()).unwrap_or(0);
            let change = match event.event_type() {
                EventType::Put => match self.read(key) {
                    Some((name, endpoint)) => Event::Put(name, endpoint),
                    // The previous value is no longer true.
                    None => Event::Delete(name(key)),
                },
                EventType::Delete => Event::Delete(name(key)),
            };
            self.reconciler.apply(revision, change);
            self.changes += 1;
            let range = self.ranges.iter().position(|it| it.contains(key.key()));
            let seen = self.seen.as_mut();
            let complete = seen.and_then(|seen| seen.complete.get_mut(range?));
            if let Some(complete) = complete {
                *complete = key.mod_revision().max(*complete);
            }
        }
        Ok(())
    }

    fn read(&self, key: &KeyValue) -> Option<(Arc<str>, Endpoint)> {
        let endpoint = Endpoint::from_stored(key.value());
        if endpoint.is_none() {
            (self.listener)(&DiscoveryEvent::Malformed {
                key: name(key).to_string(),
            });
        }
        let endpoint = Endpoint {
            lease: key.lease(),
            revision: key.mod_revision(),
            ..endpoint?
        };
        Some((name(key), endpoint))
    }

    fn publish_at(&self) -> Option<Instant> {
        (self.changes > 0).then(|| self.publish_from.unwrap_or_else(Instant::now))
    }

    fn publish_now(&mut self) {
        let pause = if self.changes > 1 {
            PAUSE_AFTER_SEVERAL
        } else {
            PAUSE_AFTER_ONE
        };
        self.changes = 0;
        self.publish_from = Some(Instant::now() + pause);
        let snapshot = Snapshot {
            known: true,
            revision: self.reconciler.revision(),
            endpoints: Arc::new(self.reconciler.members().clone()),
            held: Arc::new(self.reconciler.held().cloned().collect()),
            problem: "".into(),
        };
        self.publish.send_if_modified(|current| {
            let changed = *current != snapshot;
            *current = snapshot;
            changed
        });
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn release_at(&self) -> Option<Instant> {
        let release = self.reconciler.next_release_ms()?;
        Some(self.epoch + Duration::from_millis(release))
    }

    fn release(&mut self) {
        let now = self.now_ms();
        self.changes += usize::from(self.reconciler.release(now));
    }
}

fn name(key: &KeyValue) -> Arc<str> {
    String::from_utf8_lossy(key.key()).into()
}
