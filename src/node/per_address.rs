//! Counts connections by the address that they come from.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

use crate::fairness::network;

/// Open connections by address. Only addresses that have some are kept.
#[derive(Default)]
pub(super) struct PerAddress(HashMap<IpAddr, usize>);

impl PerAddress {
    /// Whether the address has so many.
    pub(super) fn has(&self, address: IpAddr, most: usize) -> bool {
        self.0.get(&network(address)) >= Some(&most)
    }

    /// One more.
    pub(super) fn add(&mut self, address: IpAddr) {
        *self.0.entry(network(address)).or_default() += 1;
    }

    /// One less.
    pub(super) fn remove(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut from_there) = self.0.entry(network(address)) {
            *from_there.get_mut() -= 1;
            if *from_there.get() == 0 {
                from_there.remove();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
