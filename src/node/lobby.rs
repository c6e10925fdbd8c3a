//! A small pool of places for unauthenticated connections. A newcomer always gets one: if all are
//! taken, the oldest connection from the address that has most of them goes. So an attacker who
//! floods a listener from some addresses displaces itself.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use tokio_util::sync::CancellationToken;

/// The places.
#[derive(Default)]
pub(super) struct Lobby {
    /// By age.
    waiting: BTreeMap<u64, Stranger>,
    next: u64,
}

/// A connection in a lobby.
struct Stranger {
    address: IpAddr,
    displaced: CancellationToken,
}

/// A place in a lobby.
#[derive(Clone)]
pub(super) struct Ticket {
    number: u64,
    /// Is cancelled when the place is given to another.
    pub(super) displaced: CancellationToken,
}

impl Lobby {
    /// A place of so many.
    pub(super) fn enter(&mut self, address: IpAddr, most: usize) -> Ticket {
        if self.waiting.len() >= most {
            let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
            for stranger in self.waiting.values() {
                *by_address.entry(stranger.address).or_default() += 1;
            }
            let busiest = by_address.values().max().copied();
            let oldest = self
                .waiting
                .iter()
                .find(|(_, it)| by_address.get(&it.address).copied() == busiest)
                .map(|(number, _)| *number);
            if let Some(gone) = oldest.and_then(|number| self.waiting.remove(&number)) {
                gone.displaced.cancel();
            }
        }
        let (number, displaced) = (self.next, CancellationToken::new());
        self.next += 1;
        let stranger = Stranger {
            address,
            displaced: displaced.clone(),
        };
        self.waiting.insert(number, stranger);
        Ticket { number, displaced }
    }

    /// How many are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Gives a place back; false: it was taken away before.
    pub(super) fn leave(&mut self, ticket: &Ticket) -> bool {
        self.waiting.remove(&ticket.number).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_displaces_the_oldest_of_the_busiest_address() {
        let mut lobby = Lobby::default();
        let mut enter = |last| lobby.enter(IpAddr::from([10, 0, 0, last]), 4);
        let one = enter(1);
        let others = [enter(2), enter(2), enter(3)];
        let gone = |ticket: &Ticket| ticket.displaced.is_cancelled();
        let late = enter(4);
        assert_eq!(others.each_ref().map(gone), [true, false, false]);
        assert!(!gone(&one) && !gone(&late));
        // Now all have as many, and the oldest goes.
        let last = enter(5);
        assert!(gone(&one) && !gone(&late));
        assert!(!lobby.leave(&one), "it has lost its place before");
        for ticket in [&others[1], &others[2], &late, &last] {
            assert!(lobby.leave(ticket));
        }
        assert_eq!(lobby.len(), 0);
    }
}
