//! The origin, and what it knows of each load and each removal.

use std::{collections::HashMap, sync::atomic::AtomicU64};

use parking_lot::Mutex;
use tokio::{sync::watch, task::yield_now};

use super::*;
use crate::{
    metadata::Metadata,
    ports::{Clock, Reloaded},
};

pub(super) const KEYS: [&str; 3] = ["alice", "bob", "carol"];

/// What a load brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brought {
    Value,
    /// The value that was named is the one that it has.
    Same,
    Nothing,
    Failure,
}

/// A load, with its place in the order of all events.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// That of the value that it brought or renewed.
    number: u64,
    began: u64,
    /// When the origin was asked.
    asked: Timestamp,
    /// When it ended.
    at: Timestamp,
    brought: Brought,
}

#[derive(Default)]
pub(super) struct Key {
    pub(super) will_bring: Option<Brought>,
    /// When the loads under way began.
    under_way: Vec<u64>,
    loads: Vec<Load>,
    /// A removal began, and what it met may still be under way.
    disturbed: bool,
    /// When the last such time ended.
    calm_since: u64,
    /// When the last removal began that was acknowledged.
    removed: u64,
}

impl Key {
    /// Whether no removal can have met a load that began then, its flight, or what it brought.
    fn is_untouched(&self, began: u64) -> bool {
        !self.disturbed && began > self.calm_since
    }
}

/// The origin, and all that is known of it.
pub(super) struct Model {
    keys: Mutex<HashMap<&'static str, Key>>,
    events: AtomicU64,
    pub(super) clock: Arc<HandClock>,
    pub(super) open: watch::Sender<bool>,
    rules: GroupRules,
    pub(super) seen: Mutex<HashMap<&'static str, usize>>,
}

impl Model {
    pub(super) fn new(rules: GroupRules, clock: Arc<HandClock>) -> Self {
        Self {
            keys: Mutex::default(),
            events: AtomicU64::new(0),
            clock,
            open: watch::Sender::new(true),
            rules,
            seen: Mutex::default(),
        }
    }

    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn with<R>(&self, key: &str, work: impl FnOnce(&mut Key) -> R) -> R {
        let known = KEYS.iter().find(|known| **known == key);
        let known = known.expect("one of the keys");
        work(self.keys.lock().entry(known).or_default())
    }

    pub(super) fn saw(&self, what: &'static str) {
        *self.seen.lock().entry(what).or_default() += 1;
    }
}

impl Model {
    /// A load, to its end; `kept` is the number of the value that is named to the origin.
    async fn load_over(&self, key: &str, kept: Option<u64>) -> Load {
        let began = self.event();
        self.with(key, |key| {
            let doubled = key.under_way.iter().any(|began| key.is_untouched(*began));
            assert!(!doubled, "two loads that nothing was removed between");
            key.under_way.push(began);
        });
        let asked = self.clock.now();
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("kept");
        self.with(key, |key| {
            key.under_way.retain(|it| *it != began);
            let brought = match (key.will_bring.unwrap_or(Brought::Value), kept) {
                (Brought::Same, None) => Brought::Value,
                (brought, _) => brought,
            };
            let load = Load {
                number: kept.filter(|_| brought == Brought::Same).unwrap_or(began),
                began,
                asked,
                at: self.clock.now(),
                brought,
            };
            key.loads.push(load);
            load
        })
    }
}

#[async_trait]
impl Origin for Model {
    async fn load(&self, key: &str) -> Result<Loaded, crate::error::BoxError> {
        loaded(self.load_over(key, None).await)
    }

    async fn reload(&self, key: &str, kept: &Metadata) -> Result<Reloaded, crate::error::BoxError> {
        let kept = kept.get("etag").expect("each value has one");
        let kept = kept.trim_matches('"').parse().expect("digits");
        let load = self.load_over(key, Some(kept)).await;
        if load.brought != Brought::Same {
            return loaded(load).map(Reloaded::Changed);
        }
        Ok(Reloaded::Unchanged {
            freshness: Freshness::Unsaid,
            metadata: Metadata::NONE,
        })
    }
}

fn loaded(load: Load) -> Result<Loaded, crate::error::BoxError> {
    let number = load.number.to_string();
    match load.brought {
        Brought::Value | Brought::Same => {
            let tag = format!("\"{number}\"");
            let metadata = Metadata::new([("etag", tag.as_str())])?;
            Ok(Loaded::from(number).with_metadata(metadata))
        }
        Brought::Nothing => Err(Error::not_found("gone").into()),
        Brought::Failure => Err(Error::origin_failed("down").into()),
    }
}

/// A get, as it was when it began.
pub(super) struct Get {
    key: &'static str,
    /// What was acknowledged as removed.
    floor: u64,
}

impl Model {
    pub(super) fn begin(&self, key: &'static str) -> Get {
        let floor = self.with(key, |key| key.removed);
        Get { key, floor }
    }

    /// Holds an answer against what is known. No time has passed since the get began.
    pub(super) fn check(&self, get: &Get, answer: &Result<Answer>) {
        let now = self.clock.now();
        self.with(get.key, |key| match answer {
            Ok(answer) => {
                let number = std::str::from_utf8(&answer.value).expect("digits");
                let number: u64 = number.parse().expect("digits");
                // The one that brought it, and the last that renewed it.
                assert!(number > get.floor, "removed before: {number}");
                // A stale answer is from before this moment, in which it may have been renewed,
                // unless the new life was over before it came.
                let is_over = |load: &Load| load.at < now || now.since(load.asked) >= self.ttl();
                let counts = |load: &&Load| answer.source != Source::Stale || is_over(load);
                let mut of_value = key.loads.iter().filter(|load| load.number == number);
                let load = of_value.rfind(counts);
                let load = load.expect("a load that ended");
                if load.brought == Brought::Same {
                    self.saw("renewed");
                }
                self.check_age(get, key, *load, answer.source);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let known = key.loads.iter().any(|load| {
                    let lasts = now.since(load.asked) < self.rules.negative_ttl;
                    let recent = load.at == now || lasts;
                    load.brought == Brought::Nothing && load.began > get.floor && recent
                });
                assert!(known, "nobody said so");
                self.saw("not found");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OriginFailed, "{error}");
                assert!(self.failing(get, key, now), "the origin is well");
                let stood_in = self.must_stand_in(key, now);
                assert!(!stood_in, "an old value was allowed");
                self.saw("failed");
            }
        });
    }

    fn ttl(&self) -> Duration {
        self.rules.ttl.expect("they expire")
    }

    fn check_age(&self, get: &Get, key: &Key, load: Load, source: Source) {
        let now = self.clock.now();
        let (age, ttl) = (now.since(load.asked), self.ttl());
        match source {
            Source::Hit | Source::Peer => {
                assert!(age < ttl, "{source:?} of {age:?}");
                self.saw("fresh");
            }
            Source::Origin => assert_eq!(load.at, now),
            Source::Stale => {
                // It may share a flight of this moment, but of no earlier one.
                let newer = key.loads.iter().find(|it| {
                    it.brought != Brought::Failure && it.at < now && it.began > load.began
                });
                assert!(newer.is_none(), "{load:?} though {newer:?}");
                assert!(age >= ttl, "it is fresh");
                let past = age - ttl;
                if past < self.rules.stale_while_revalidate {
                    return self.saw("stale while revalidating");
                }
                assert!(past < self.rules.stale_if_error, "{past:?} past its life");
                assert!(self.failing(get, key, now), "the origin is well");
                self.saw("stale if error");
            }
        }
    }

    /// Whether a load failed at this moment, or so lately that it is kept in mind.
    fn failing(&self, get: &Get, key: &Key, now: Timestamp) -> bool {
        key.loads.iter().any(|load| {
            let kept = now.since(load.at) < self.rules.error_ttl && load.began > get.floor;
            load.brought == Brought::Failure && (load.at == now || kept)
        })
    }

    /// Whether an old value was there for certain, and young enough.
    fn must_stand_in(&self, key: &Key, now: Timestamp) -> bool {
        let answered = |load: &&Load| load.brought != Brought::Failure;
        let gone_now = |load: &Load| load.brought == Brought::Nothing && load.at == now;
        let mut earlier = key.loads.iter().filter(|load| load.at < now);
        let last = earlier.rfind(answered);
        last.is_some_and(|load| {
            matches!(load.brought, Brought::Value | Brought::Same)
                && !key.loads.iter().any(gone_now)
                && key.is_untouched(load.began)
                && now.since(load.asked) < self.ttl() + self.rules.stale_if_error
        })
    }

    pub(super) fn removing(&self, keys: &[&'static str]) -> u64 {
        let began = self.event();
        for key in keys {
            self.with(key, |key| key.disturbed = true);
        }
        began
    }

    pub(super) fn removed(&self, keys: &[&'static str], began: u64) {
        for key in keys {
            self.with(key, |key| key.removed = key.removed.max(began));
        }
        self.saw("removed");
    }

    /// Ends what removals met, if there were any: flights that departed before them may load later.
    pub(super) async fn calm_down(&self) {
        if !self.keys.lock().values().any(|key| key.disturbed) {
            return;
        }
        for _ in 0..1_000 {
            yield_now().await;
        }
        let now = self.event();
        for key in self.keys.lock().values_mut() {
            assert!(key.under_way.is_empty(), "a load takes long");
            (key.disturbed, key.calm_since) = (false, now);
        }
    }
}
