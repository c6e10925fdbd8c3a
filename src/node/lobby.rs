//! A small pool of places for connections that may make room for others. If all are taken, the
//! oldest connection from the address that has most of them goes. So an attacker who floods a
//! listener from some addresses displaces itself.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use tokio_util::sync::CancellationToken;

/// The places. `T` is what decides whether a connection has to make room.
pub(super) struct Lobby<T = ()> {
    /// By age.
    inside: BTreeMap<u64, Guest<T>>,
    next: u64,
}

/// A connection in a lobby.
struct Guest<T> {
    address: IpAddr,
    displaced: CancellationToken,
    what: T,
}

/// A place in a lobby.
#[derive(Clone)]
pub(super) struct Ticket {
    number: u64,
    /// Is cancelled when the place is given to another.
    pub(super) displaced: CancellationToken,
}

impl<T> Default for Lobby<T> {
    fn default() -> Self {
        Self {
            inside: BTreeMap::new(),
            next: 0,
        }
    }
}

impl Lobby {
    /// A place of so many. A newcomer always gets one.
    pub(super) fn enter(&mut self, address: IpAddr, most: usize) -> Ticket {
        self.make_room(most, |()| true);
        self.add(address, ())
    }
}

impl<T> Lobby<T> {
    /// A place of so many, or `what` back if all are taken and none `may_go`.
    pub(super) fn try_enter(
        &mut self,
        address: IpAddr,
        most: usize,
        what: T,
        may_go: impl Fn(&T) -> bool,
    ) -> Result<Ticket, T> {
        self.make_room(most, may_go);
        if self.inside.len() >= most {
            return Err(what);
        }
        Ok(self.add(address, what))
    }

    fn make_room(&mut self, most: usize, may_go: impl Fn(&T) -> bool) {
        if self.inside.len() < most {
            return;
        }
        let mut by_address: HashMap<IpAddr, usize> = HashMap::new();
        for guest in self.inside.values() {
            *by_address.entry(guest.address).or_default() += 1;
        }
        let connections = |it: &Guest<T>| by_address.get(&it.address).copied();
        let dispensable = || self.inside.iter().filter(|(_, it)| may_go(&it.what));
        let busiest = dispensable().map(|(_, it)| connections(it)).max();
        let oldest = dispensable()
            .find(|(_, it)| Some(connections(it)) == busiest)
            .map(|(number, _)| *number);
        if let Some(gone) = oldest.and_then(|number| self.inside.remove(&number)) {
            gone.displaced.cancel();
        }
    }

    fn add(&mut self, address: IpAddr, what: T) -> Ticket {
        let (number, displaced) = (self.next, CancellationToken::new());
        self.next += 1;
        let guest = Guest {
            address,
            displaced: displaced.clone(),
            what,
        };
        self.inside.insert(number, guest);
        Ticket { number, displaced }
    }

    /// How many are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.inside.len()
    }

    /// Gives a place back; false: it was taken away before.
    pub(super) fn leave(&mut self, ticket: &Ticket) -> bool {
        self.inside.remove(&ticket.number).is_some()
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

    #[test]
    fn only_what_may_go_makes_room() {
        let mut lobby = Lobby::default();
        let from = |last| IpAddr::from([10, 0, 0, last]);
        let mut enter = |last, is_busy| lobby.try_enter(from(last), 3, is_busy, |it| !it);
        let busy = [enter(1, true), enter(1, true)].map(|it| it.expect("a place"));
        let idle = enter(2, false).expect("a place");
        let late = enter(3, true).expect("a place of the idle one");
        assert!(idle.displaced.is_cancelled());
        assert!(enter(4, false).is_err(), "all are busy");
        let others = [&busy[0], &busy[1], &late];
        assert!(others.iter().all(|it| !it.displaced.is_cancelled()));
    }
}
