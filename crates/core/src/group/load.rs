//! One load from the origin, and what its answer becomes: a value, a longer life of the value that
//! is kept, or the knowledge that there is none.
//!
//! What the origin calls unchanged must be what was kept when it was asked, never what came later.
//! A life must never begin later than at that moment.

use bytes::Bytes;
use futures::future::BoxFuture;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Course, FlightOutcome, Group, Source,
    local::{Departure, Duty, Purpose},
    many::load_with_others,
    stale::Life,
};
use crate::{
    absence::NotFoundBody,
    error::{Error, ErrorKind, Result},
    key::HashedKey,
    metadata::Metadata,
    ports::{Asked, Freshness, LoadTurn, Loaded, Reloaded, Timestamp},
    record::Record,
    ring::KeyHash,
    store::Entry,
};

impl Group {
    /// Loads from the origin. A load that is to answer somebody, and that everybody has given up on
    /// while it waited for its turn, doesn't begin; one that is running continues, and its value is
    /// kept.
    pub(super) async fn load(
        &self,
        key: &HashedKey<'_>,
        hash: KeyHash,
        duty: &Duty,
        departure: Departure,
    ) -> Result<FlightOutcome> {
        let abandoned: BoxFuture<'_, ()> = match departure.why {
            Purpose::Answer => Box::pin(duty.abandoned()),
            Purpose::Refresh | Purpose::Ahead(_) => Box::pin(std::future::pending()),
        };
        let asked = Asked::by(self.shared.clock.clone());
        let began = asked.at();
        let old = self.shared.owned.peek_usable(key, began);
        let course = Course {
            stale: old.is_some(),
            ..Course::default()
        };
        let old = old.filter(|it| !it.is_absent());
        let known = old.as_ref().map(|it| it.metadata());
        let known = known.filter(|it| it.has_validator());
        let (loaded, asked) = match departure.seat.filter(|_| known.is_none()) {
            // One place in the queue for the whole batch: it is given up only as a whole.
            Some(seat) => {
                let callers = (departure.why == Purpose::Answer).then(|| duty.callers());
                let (loaded, asked) = load_with_others(seat, key.text(), callers, asked).await;
                (loaded.map(Reloaded::Changed), asked)
            }
            None => {
                let turn = LoadTurn {
                    abandoned,
                    asked: asked.clone(),
                };
                let loaded = self.origin().ask(key.text(), known, turn).await;
                (loaded, asked)
            }
        };
        let asked = asked.at();
        let loaded = loaded.map_err(Error::from_loader);
        let entry = self.answered(key, loaded, old, hash, asked);
        let now = self.shared.clock.now();
        if self.now.load().rules.refresh_ahead {
            self.ahead.took(now.since(began));
        }
        let (entry, uncacheable) = entry?;
        Ok(FlightOutcome {
            // Its life may have ended while it was loaded: then it is for those who wait alone.
            uncacheable: uncacheable || !entry.is_usable(now),
            entry,
            source: Source::Origin,
            course,
        })
    }

    /// What the origin's answer makes of the key, of which `old` is kept, and whether it must not
    /// be kept.
    fn answered(
        &self,
        key: &HashedKey<'_>,
        loaded: Result<Reloaded>,
        old: Option<Entry>,
        hash: KeyHash,
        asked: Timestamp,
    ) -> Result<(Entry, bool)> {
        match loaded {
            Ok(Reloaded::Changed(loaded)) => self.changed(key, loaded, hash, asked),
            Ok(Reloaded::Unchanged {
                freshness,
                metadata,
            }) => match old.filter(|it| it.metadata().has_validator()) {
                Some(old) => self.unchanged(&old, freshness, &metadata, hash, asked),
                None => Err(Error::origin_failed(
                    "the origin says that the value has not changed, but none was passed to it",
                )),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(self.nothing(key, &error, asked))
            }
            Err(error) => Err(error),
        }
    }

    /// The entry of a value for which the origin was `asked` then, and whether it must not be kept.
    fn changed(
        &self,
        key: &HashedKey<'_>,
        loaded: Loaded,
        hash: KeyHash,
        asked: Timestamp,
    ) -> Result<(Entry, bool)> {
        self.check_value(&loaded.value)?;
        let life = self.life(loaded.freshness, hash, asked);
        let metadata = loaded.metadata.loaded(asked);
        let tag = xxh3_64(&loaded.value);
        let record = record(Some(loaded.value), tag, life, metadata);
        Ok((Entry::new(key, &record), life.uncacheable))
    }

    /// The same value for another life.
    fn unchanged(
        &self,
        old: &Entry,
        said: Freshness,
        newer: &Metadata,
        hash: KeyHash,
        asked: Timestamp,
    ) -> Result<(Entry, bool)> {
        let life = self.life(said, hash, asked);
        let metadata = old.metadata().updated(newer)?.loaded(asked);
        let record = record(None, old.entity_tag(), life, metadata);
        Ok((old.renewed(&record), life.uncacheable))
    }

    /// That there is no such key, with what the origin said in place of its value.
    fn nothing(&self, key: &HashedKey<'_>, said: &Error, asked: Timestamp) -> (Entry, bool) {
        let ttl = self.now.load().rules.negative_ttl;
        let life = Life::without_staleness(ttl, asked);
        let nothing = record(None, 0, life, Metadata::NONE);
        let record = match NotFoundBody::of(said) {
            Some(body) => nothing.with_absence(body),
            None => nothing,
        };
        let record = record.with_little_absence(self.max_value());
        (Entry::new(key, &record), life.uncacheable)
    }

    fn check_value(&self, value: &Bytes) -> Result<()> {
        let max_value = self.max_value();
        if value.len() as u64 <= max_value {
            return Ok(());
        }
        Err(Error::value_too_large(
            format!(
                "the origin's value has {} bytes; group '{}' takes {max_value} (max_value)",
                value.len(),
                self.name
            ),
            max_value,
        ))
    }
}

fn record(value: Option<Bytes>, entity_tag: u64, life: Life, metadata: Metadata) -> Record {
    Record {
        value,
        expires_at: life.expires_at,
        stale: life.stale,
        entity_tag,
        metadata,
    }
}
