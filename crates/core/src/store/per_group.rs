//! A value for each group, made when it is first needed: groups may come while the node runs.

use std::sync::OnceLock;

use crate::key::GroupId;

/// Values of so many groups are made at once.
const CHUNK: usize = 64;
const CHUNKS: usize = (u16::MAX as usize + 1) / CHUNK;

/// A value for each group. Reading one takes no lock.
pub(super) struct PerGroup<T>(Box<[OnceLock<Box<[T]>>]>);

impl<T: Default> PerGroup<T> {
    pub(super) fn new() -> Self {
        Self((0..CHUNKS).map(|_| OnceLock::new()).collect())
    }

    pub(super) fn of(&self, group: GroupId) -> &T {
        let number = usize::from(group.0);
        let chunk =
            self.0[number / CHUNK].get_or_init(|| (0..CHUNK).map(|_| T::default()).collect());
        &chunk[number % CHUNK]
    }

    /// All that were made.
    pub(super) fn made(&self) -> impl Iterator<Item = (GroupId, &T)> {
        let chunks = self.0.iter().map(|it| it.get().map_or(&[][..], |it| it));
        chunks.enumerate().flat_map(|(chunk, values)| {
            let number = move |at: usize| u16::try_from(chunk * CHUNK + at).unwrap_or(u16::MAX);
            let values = values.iter().enumerate();
            values.map(move |(at, value)| (GroupId(number(at)), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn every_number_has_a_value_of_its_own() {
        let values = PerGroup::<AtomicU32>::new();
        for number in [0, 1, 63, 64, u16::MAX] {
            values
                .of(GroupId(number))
                .store(u32::from(number), Ordering::Relaxed);
        }
        for number in [0, 1, 63, 64, u16::MAX] {
            let value = values.of(GroupId(number)).load(Ordering::Relaxed);
            assert_eq!(value, u32::from(number));
        }
    }
}
