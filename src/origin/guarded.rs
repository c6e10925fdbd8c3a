//! Wraps every origin: limits how many loads run, how many wait, and how long one may take, refuses
//! them while the circuit breaker is open, and counts them. Clients take turns.
//!
//! A load whose callers have all gone is cancelled while it waits: in the queue, or between two
//! attempts. One that runs continues, because the origin is already working on it, unless the group
//! wants it otherwise. One that takes long may be begun a second time, in a free place.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::{
    bounds::Bounds,
    breaker::Breaker,
    hedge::{Hedging, Won, first_answer, is_origins_fault},
    pause::{self, unless_abandoned},
    ramp::Ramp,
};
use crate::{
    fairness::{ClientId, Turn, Turns},
    telemetry::trace,
};
use gaocache_core::{
    error::{BoxError, Error, ErrorKind, Result},
    metadata::Metadata,
    ports::{
        BreakerState, LoadObserver, LoadQueue, LoadTurn, Loaded, Origin, Reloaded, load_or_reload,
    },
};

/// An origin with its limits.
pub struct Guarded {
    origin: Arc<dyn Origin>,
    observer: Arc<dyn LoadObserver>,
    bounds: Bounds,
    ramp: Ramp,
    breaker: Option<Breaker>,
    hedging: Option<Hedging>,
}

/// Why a load did not begin.
enum NotBegun {
    /// All callers had given up before, or between two attempts.
    Abandoned,
    /// The breaker is open.
    Refused(Error),
    /// There was no room for it.
    NoRoom(Error),
}

/// Counts a load that was begun a second time, also one that is dropped.
struct ToldOfHedge<'a> {
    observer: &'a dyn LoadObserver,
    won: bool,
}

impl Drop for ToldOfHedge<'_> {
    fn drop(&mut self) {
        self.observer.hedged(self.won);
    }
}

impl Guarded {
    /// Wraps an origin in these limits.
    pub fn new(origin: Arc<dyn Origin>, observer: Arc<dyn LoadObserver>, bounds: Bounds) -> Self {
        let breaker = bounds.breaker;
        // The group may have had another origin before.
        observer.breaker(BreakerState::Closed);
        Self {
            origin,
            breaker: breaker.map(|rules| Breaker::new(rules, observer.clone())),
            observer,
            hedging: bounds.hedge.then(Hedging::default),
            bounds,
            ramp: Ramp::new(bounds.max_concurrency, bounds.ramp),
        }
    }

    /// Runs a load, or a batch of loads, in its turn. `is_fault`: whether the outcome is the
    /// origin's fault.
    async fn in_turn<T>(
        &self,
        key: &str,
        turn: LoadTurn<'_>,
        load: impl Future<Output = T>,
        is_fault: impl FnOnce(&T) -> bool,
    ) -> std::result::Result<T, NotBegun> {
        let breaker = self.breaker.as_ref();
        // Loads that hang may hold all places: no load should wait behind them.
        if let Some(Err(refused)) = breaker.map(|it| it.check(Instant::now())) {
            return Err(NotBegun::Refused(refused));
        }
        self.ramp.widen(Instant::now());
        let client = ClientId::current();
        let most = self.bounds.max_concurrency;
        let most = most.saturating_add(self.bounds.max_queue);
        let LoadTurn {
            mut abandoned,
            asked,
        } = turn;
        let place = tokio::select! {
            biased;
            place = self.ramp.places().take(client, Turns::key_of(key), most) => place,
            () = &mut abandoned => {
                trace::event("given up in the queue", None);
                return Err(NotBegun::Abandoned);
            }
        };
        let Ok(_running) = place else {
            return Err(NotBegun::NoRoom(self.overloaded()));
        };
        trace::event("left the queue", None);
        // Once more: it may have opened while this load waited for its turn.
        let pass = match breaker.map(|it| it.admit(Instant::now())).transpose() {
            Ok(pass) => pass,
            Err(refused) => return Err(NotBegun::Refused(refused)),
        };
        let began = Instant::now();
        let anyway = self.bounds.cancel_abandoned;
        let Some(loaded) = unless_abandoned(load, abandoned, anyway, &asked).await else {
            trace::event("given up between two attempts", None);
            return Err(NotBegun::Abandoned);
        };
        let now = Instant::now();
        if pass.is_some_and(|pass| pass.ended(now - began, is_fault(&loaded), now)) {
            self.ramp.restart(now);
        }
        self.ramp.widen(now);
        Ok(loaded)
    }

    async fn load_many_in_time(&self, keys: &[&str]) -> Vec<Result<Loaded>> {
        match timeout(self.bounds.load_timeout, self.origin.load_many(keys)).await {
            Ok(loaded) => {
                let results = loaded.into_iter();
                results.map(|it| it.map_err(Error::from_loader)).collect()
            }
            Err(_) => vec![Err(self.too_slow()); keys.len()],
        }
    }

    async fn load_in_time(&self, key: &str, kept: Option<&Metadata>) -> Result<Reloaded> {
        let limit = self.bounds.load_timeout;
        let loaded = match &self.hedging {
            None => timeout(limit, self.ask_origin(key, kept)).await,
            Some(hedging) => timeout(limit, self.load_hedged(hedging, key, kept)).await,
        };
        loaded.unwrap_or_else(|_| Err(self.too_slow()))
    }

    async fn ask_origin(&self, key: &str, kept: Option<&Metadata>) -> Result<Reloaded> {
        let loaded = load_or_reload(&*self.origin, key, kept).await;
        loaded.map_err(Error::from_loader)
    }

    /// Asks a second time if the first answer takes long.
    async fn load_hedged(
        &self,
        hedging: &Hedging,
        key: &str,
        kept: Option<&Metadata>,
    ) -> Result<Reloaded> {
        let began = Instant::now();
        let mut first = pin!(self.ask_origin(key, kept));
        let loaded = match hedging.begun() {
            None => first.await,
            Some(patience) => match timeout(patience, &mut first).await {
                Ok(loaded) => loaded,
                Err(_) => match self.place_beside(hedging) {
                    None => first.await,
                    Some(_place) => self.ask_again(first, self.ask_origin(key, kept)).await,
                },
            },
        };
        if !is_fault(&loaded) {
            hedging.answered(began.elapsed());
        }
        loaded
    }

    /// A place for a second load beside one that runs. Only a free one: nobody's first load waits
    /// for it. And none where the origin is in trouble, or has failed this load already.
    fn place_beside(&self, hedging: &Hedging) -> Option<Turn<'_>> {
        let is_well = self.breaker.as_ref().is_none_or(Breaker::is_closed);
        if !is_well || pause::is_pausing() {
            return None;
        }
        let place = self.ramp.places().try_take(ClientId::current())?;
        hedging.spend().then_some(place)
    }

    async fn ask_again(
        &self,
        first: Pin<&mut impl Future<Output = Result<Reloaded>>>,
        second: impl Future<Output = Result<Reloaded>>,
    ) -> Result<Reloaded> {
        trace::event("began a second time", None);
        let mut told = ToldOfHedge {
            observer: &*self.observer,
            won: false,
        };
        let (loaded, won) = first_answer(first, second).await;
        told.won = won == Won::Second && !is_fault(&loaded);
        loaded
    }

    /// What the callers get, and whether it counts as a load that failed.
    fn not_begun(&self, why: NotBegun) -> (Error, bool) {
        match why {
            NotBegun::NoRoom(error) => (error, true),
            NotBegun::Refused(error) => {
                self.observer.refused_by_breaker();
                (error, false)
            }
            NotBegun::Abandoned => {
                let what = "no caller waits for this load any more";
                (Error::new(ErrorKind::Overloaded, what), false)
            }
        }
    }

    fn overloaded(&self) -> Error {
        Error::new(
            ErrorKind::Overloaded,
            format!(
                "loads from this origin: {} running and {} waiting (max_concurrency, max_queue)",
                self.bounds.max_concurrency, self.bounds.max_queue
            ),
        )
    }

    fn too_slow(&self) -> Error {
        Error::new(
            ErrorKind::OriginTimeout,
            format!(
                "the load took longer than {} s",
                self.bounds.load_timeout.as_secs_f64()
            ),
        )
    }
}

fn is_fault<T>(loaded: &Result<T>) -> bool {
    loaded.as_ref().is_err_and(is_origins_fault)
}

#[async_trait]
impl LoadQueue for Guarded {
    fn batch_size(&self) -> usize {
        self.origin.batch_size()
    }

    /// A batch takes one place, and counts as one load for the breaker: as a failed one, if the
    /// origin answered for no key.
    async fn ask_many(&self, keys: &[&str], turn: LoadTurn<'_>) -> Vec<Result<Loaded, BoxError>> {
        let load = async {
            let started = Instant::now();
            let load = self.load_many_in_time(keys);
            let all_fail = |loaded: &Vec<Result<Loaded>>| loaded.iter().all(is_fault);
            let first = keys.first().copied().unwrap_or_default();
            let loaded = self.in_turn(first, turn, load, all_fail).await;
            let loaded = match loaded.map_err(|it| self.not_begun(it)) {
                Ok(loaded) => loaded,
                Err((error, true)) => vec![Err(error); keys.len()],
                Err((error, false)) => {
                    return keys.iter().map(|_| Err(error.clone().into())).collect();
                }
            };
            for (key, loaded) in keys.iter().zip(&loaded) {
                let outcome = loaded.as_ref().map(|it| it.value.len());
                self.observer.loaded(key, started.elapsed(), outcome);
            }
            let results = loaded.into_iter();
            results.map(|it| it.map_err(Into::into)).collect()
        };
        load.instrument(trace::load_span()).await
    }

    async fn ask(
        &self,
        key: &str,
        kept: Option<&Metadata>,
        turn: LoadTurn<'_>,
    ) -> Result<Reloaded, BoxError> {
        let load = async {
            let started = Instant::now();
            let load = self.load_in_time(key, kept);
            let loaded = self.in_turn(key, turn, load, is_fault).await;
            let result = match loaded.map_err(|it| self.not_begun(it)) {
                Ok(loaded) => loaded,
                Err((error, true)) => Err(error),
                Err((error, false)) => return Err(error.into()),
            };
            if let Ok(Reloaded::Unchanged { .. }) = &result {
                self.observer.renewed();
            }
            let outcome = result.as_ref().map(Reloaded::value_bytes);
            self.observer.loaded(key, started.elapsed(), outcome);
            result.map_err(Into::into)
        };
        load.instrument(trace::load_span()).await
    }

    fn also_wanted(&self, key: &str) {
        let places = self.ramp.places();
        places.also_for(ClientId::current(), Turns::key_of(key));
    }
}

#[cfg(test)]
pub(super) mod tests;
