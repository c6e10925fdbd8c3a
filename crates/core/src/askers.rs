//! For whom a flight brings a value.
//!
//! A flight may have to wait for its turn, at an origin or at a member, and whose turn that is
//! depends on who asks. So each flight has a list of its askers from its departure on, to which
//! those who join it are added, whether it waits anywhere by then or not. Whatever it waits in
//! follows the list.
//!
//! An asker is a number here. Only the edges know what it stands for.

use std::{future::pending, sync::Arc};

use futures::future::select_all;
use tokio::sync::watch;

/// A client, as the edges number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker(pub u64);

/// What tells for whom the current task works.
pub type AskersNow = fn() -> Vec<Asker>;

/// So many askers of a flight are noted. Further ones wait with them.
pub const MOST_ASKERS: usize = 8;

/// Adds those that are not among them yet, while there is room; whether any were.
pub(crate) fn note(known: &mut Vec<Asker>, further: &[Asker]) -> bool {
    let before = known.len();
    for asker in further {
        if known.len() < MOST_ASKERS && !known.contains(asker) {
            known.push(*asker);
        }
    }
    known.len() > before
}

/// The askers of a flight.
#[derive(Clone, Debug)]
pub struct Askers(Arc<watch::Sender<Vec<Asker>>>);

impl Askers {
    /// Those with whom it departs.
    pub fn new(first: Vec<Asker>) -> Self {
        let askers = Self(Arc::new(watch::Sender::new(Vec::new())));
        askers.add(&first);
        askers
    }

    /// These want it, too.
    pub fn add(&self, askers: &[Asker]) {
        self.0.send_if_modified(|known| note(known, askers));
    }

    /// Those so far, and those to come.
    pub fn follow(&self) -> FollowedAskers {
        FollowedAskers::of([self])
    }
}

/// The askers of flights that wait as one.
pub struct FollowedAskers {
    flights: Vec<watch::Receiver<Vec<Asker>>>,
    told: Vec<Asker>,
}

impl FollowedAskers {
    /// Those of all these flights.
    pub fn of<'a>(flights: impl IntoIterator<Item = &'a Askers>) -> Self {
        let flights = flights.into_iter().map(|it| it.0.subscribe()).collect();
        Self {
            flights,
            told: Vec::new(),
        }
    }

    /// Without this one, which is known.
    #[must_use]
    pub fn but(mut self, known: Asker) -> Self {
        note(&mut self.told, &[known]);
        self
    }

    /// Those that have come since the last call; of all flights, no more than of one.
    pub fn take(&mut self) -> Vec<Asker> {
        let before = self.told.len();
        for flight in &mut self.flights {
            note(&mut self.told, &flight.borrow_and_update());
        }
        self.told[before..].to_vec()
    }

    /// Waits until some have come, and takes them. May be dropped at any time.
    pub async fn further(&mut self) -> Vec<Asker> {
        loop {
            let come = self.take();
            if !come.is_empty() {
                return come;
            }
            if self.flights.is_empty() || self.told.len() >= MOST_ASKERS {
                return pending().await;
            }
            let changes = self.flights.iter_mut().map(|it| Box::pin(it.changed()));
            let (ended, place, _) = select_all(changes).await;
            if ended.is_err() {
                // That flight has landed.
                self.flights.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ONE: Asker = Asker(1);
    const TWO: Asker = Asker(2);

    #[test]
    fn who_comes_before_and_after_is_told_once() {
        let (first, second) = (Askers::new(vec![ONE]), Askers::new(vec![ONE]));
        let mut followed = FollowedAskers::of([&first, &second]);
        second.add(&[TWO, ONE]);
        assert_eq!(followed.take(), [ONE, TWO]);
        assert_eq!(followed.take(), []);
        first.add(&[TWO]);
        assert_eq!(followed.further().now_or_never(), None, "known");
        let mut further = followed.further().boxed();
        assert_eq!((&mut further).now_or_never(), None);
        first.add(&[Asker(3)]);
        assert_eq!(further.now_or_never(), Some(vec![Asker(3)]));
        drop((first, second));
        assert_eq!(followed.further().now_or_never(), None, "landed");
    }

    #[test]
    fn however_many_ask_few_are_noted() {
        let askers = Askers::new((0..100).map(Asker).collect());
        askers.add(&[Asker(1_000)]);
        assert_eq!(askers.follow().take().len(), MOST_ASKERS);
    }
}
