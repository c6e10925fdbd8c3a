//! How long a value lives, and what becomes of it past its lifetime: on purpose, and within bounds,
//! it may be served as a stale one, while it is loaded anew or if the origin can't answer.
//!
//! Stale values come from the store of the node that loads the key, and from nowhere else: what a
//! removal took from there is gone. Hot copies are never stale.

use std::{sync::Arc, time::Duration};

use xxhash_rust::xxh3::xxh3_64;

use tokio::time::timeout;

use super::{
    Course, FlightOutcome, Group, GroupRules, Source, abandoned,
    local::{Departure, Purpose, Waiting},
    many::LoadSeat,
};
use crate::{
    error::{ErrorKind, Result},
    key::HashedKey,
    ports::{Freshness, Timestamp},
    record::Stale,
    ring::KeyHash,
    store::Entry,
};

/// How long a value that was loaded may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) expires_at: Timestamp,
    pub(super) stale: Stale,
    /// It must not be kept at all.
    pub(super) uncacheable: bool,
}

impl Life {
    /// So long since the origin was asked, and no longer.
    pub(super) fn without_staleness(ttl: Duration, asked: Timestamp) -> Self {
        Self {
            expires_at: asked.after(ttl),
            stale: Stale::NEVER,
            uncacheable: ttl.is_zero(),
        }
    }

    const FOR_EVER: Self = Self {
        expires_at: Timestamp::NEVER,
        stale: Stale::NEVER,
        uncacheable: false,
    };
}

impl Group {
    /// The lifetime of a value for which the origin was `asked` then, given what it said about it.
    pub(super) fn life(&self, said: Freshness, hash: KeyHash, asked: Timestamp) -> Life {
        let current = self.now.load();
        let rules = &current.rules;
        let ttl = match said {
            Freshness::Uncacheable => Some(Duration::ZERO),
            Freshness::For(ttl) => Some(ttl),
            Freshness::Unsaid => rules.ttl,
        };
        let bounded = ttl.into_iter().chain(rules.max_ttl).min();
        let Some(ttl) = bounded else {
            return Life::FOR_EVER;
        };
        let life = Life::without_staleness(jittered(ttl, rules.ttl_jitter, hash, asked), asked);
        let until = |window: Duration| match window {
            Duration::ZERO => Timestamp(0),
            window => life.expires_at.after(window),
        };
        Life {
            stale: Stale {
                while_revalidating: until(rules.stale_while_revalidate),
                if_error: until(rules.stale_if_error),
            },
            ..life
        }
    }

    /// Gets the value here: at once as a stale one if that is allowed, and it is loaded anew in the
    /// background; else as soon as it is loaded.
    pub(super) async fn get_here(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
    ) -> Result<FlightOutcome> {
        let begun = self.begin_here(key, hash, None);
        self.end_here(key, begun).await
    }

    /// The part of [`Group::get_here`] that waits for nothing; as a part of a batch, if there is a
    /// seat.
    pub(super) fn begin_here(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
        seat: Option<LoadSeat>,
    ) -> Begun {
        if let Some(outcome) = self.find_stale(key, |stale| stale.while_revalidating) {
            if outcome.source == Source::Stale {
                // In the background, unless that is under way already.
                let why = Purpose::Refresh;
                self.join_here(key, hash, Departure { why, seat });
            }
            return Begun::Found(outcome);
        }
        let patience = self.now.load().rules.soft_timeout;
        let has_stale = || self.find_stale(key, Stale::until).is_some();
        let patience = (!patience.is_zero() && has_stale()).then_some(patience);
        let why = patience.map_or(Purpose::Answer, |_| Purpose::Refresh);
        let waiting = self.join_here(key, hash, Departure { why, seat });
        if waiting.collapsed {
            self.observer.waited_for_flight();
        }
        Begun::Waits(waiting, patience)
    }

    /// The rest of it. If the load takes too long, and the value before it may still be served, it
    /// is, and the load continues.
    pub(super) async fn end_here(
        &self,
        key: &HashedKey<'_>,
        begun: Begun,
    ) -> Result<FlightOutcome> {
        let (mut waiting, patience) = match begun {
            Begun::Found(outcome) => return Ok(outcome),
            Begun::Waits(waiting, patience) => (waiting, patience),
        };
        let in_time = match patience {
            Some(patience) => timeout(patience, &mut waiting.waiter).await.ok(),
            None => None,
        };
        let ended = match in_time {
            Some(ended) => ended,
            None => {
                let stale = patience.and_then(|_| self.find_stale(key, Stale::until));
                if let Some(stale) = stale {
                    return Ok(stale.after_asking());
                }
                waiting.waiter.await
            }
        };
        let mut outcome = ended.unwrap_or_else(|_| Err(abandoned(key.text())))?;
        outcome.course.collapsed |= waiting.collapsed;
        Ok(outcome)
    }

    /// A stale value in place of an error of the origin, if there is one that may be served.
    pub(super) fn or_stale(
        &self,
        key: &HashedKey<'_>,
        result: Result<FlightOutcome>,
    ) -> Result<FlightOutcome> {
        let stale = match &result {
            Err(error) if is_away(error.kind()) => self.find_stale(key, |stale| stale.if_error),
            _ => None,
        };
        stale.map_or(result, |stale| Ok(stale.after_asking()))
    }

    /// What the store has of the key, if a get may return it: perhaps as a stale one. Does not
    /// count as a use.
    pub(super) fn peek_servable(&self, key: &HashedKey<'_>, now: Timestamp) -> Option<Entry> {
        if self.now.load().rules.allow_stale() {
            self.shared.owned.peek_usable(key, now)
        } else {
            self.shared.owned.peek(key, now)
        }
    }

    /// What the store has of the key, if it may be served until a moment that has not come yet.
    fn find_stale(
        &self,
        key: &HashedKey<'_>,
        until: impl FnOnce(Stale) -> Timestamp,
    ) -> Option<FlightOutcome> {
        if !self.now.load().rules.allow_stale() {
            return None;
        }
        let now = self.shared.clock.now();
        let entry = self.shared.owned.get_usable(key, now)?;
        if entry.is_fresh(now) {
            // It came in between.
            return Some(FlightOutcome::hit(entry));
        }
        let allowed = now < until(entry.stale());
        allowed.then(|| FlightOutcome::stale(entry))
    }
}

/// A get that has begun here.
pub(super) enum Begun {
    /// It has its answer.
    Found(FlightOutcome),
    /// It waits for a load; the time after which a stale value answers in its place.
    Waits(Waiting, Option<Duration>),
}

impl FlightOutcome {
    pub(super) fn stale(entry: Entry) -> Self {
        Self {
            entry,
            source: Source::Stale,
            course: Course::default(),
            uncacheable: true,
        }
    }

    /// The same, where the origin was asked first.
    fn after_asking(mut self) -> Self {
        self.course.stale = self.source == Source::Stale;
        self
    }
}

impl GroupRules {
    fn allow_stale(&self) -> bool {
        !(self.stale_while_revalidate.is_zero() && self.stale_if_error.is_zero())
    }
}

/// Whether the origin can't answer now.
fn is_away(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::OriginFailed
            | ErrorKind::OriginTimeout
            | ErrorKind::BreakerOpen
            | ErrorKind::Overloaded
    )
}

/// Shortens a lifetime by up to that share of it. The core has no random numbers: the key and the
/// moment decide.
fn jittered(ttl: Duration, share: f64, hash: KeyHash, now: Timestamp) -> Duration {
    if share <= 0.0 {
        return ttl;
    }
    let mixed = xxh3_64(&(hash.0 ^ now.0.rotate_left(32)).to_le_bytes());
    let part = mixed as f64 / u64::MAX as f64;
    ttl.mul_f64(1.0 - share.min(1.0) * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_a_life_by_no_more_than_its_share_and_spreads_it() {
        let ttl = Duration::from_secs(1000);
        let lives: Vec<Duration> = (0..1000)
            .map(|key| jittered(ttl, 0.2, KeyHash(key), Timestamp(7)))
            .collect();
        assert!(lives.iter().all(|it| *it <= ttl && *it >= ttl.mul_f64(0.8)));
        for tenth in 0..10 {
            let from = ttl.mul_f64(0.8 + 0.02 * f64::from(tenth));
            let within = |it: &&Duration| **it >= from && **it < from + ttl.mul_f64(0.02);
            let count = lives.iter().filter(within).count();
            assert!((50..200).contains(&count), "{count} in tenth {tenth}");
        }
        assert_eq!(jittered(ttl, 0.0, KeyHash(1), Timestamp(7)), ttl);
        let again = jittered(ttl, 0.2, KeyHash(1), Timestamp(8));
        assert_ne!(again, lives[1], "not the same each time");
    }
}
