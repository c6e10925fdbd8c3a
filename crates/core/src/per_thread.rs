//! Places of which threads that run at the same time have different ones: threads that write to the
//! same line of memory wait for each other. More threads than places share them, which costs them
//! time and nothing else.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

thread_local! {
    /// The number of this thread among those that ever asked, from 1 on; 0 as long as it has none.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

fn number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    if NUMBER.get() == 0 {
        NUMBER.set(THREADS.fetch_add(1, Ordering::Relaxed) + 1);
    }
    NUMBER.get()
}

/// How many places there are on this machine: at least one for each core if `most` allows it, and
/// a power of two, as `most` is.
pub fn places(most: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.next_power_of_two().min(most)
}

/// Which of so many [`places`] is this thread's.
pub fn own_place(places: usize) -> usize {
    number() & (places.max(1) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_place_and_the_next_has_another() {
        let places = 4;
        let place = move || {
            let own = own_place(places);
            assert_eq!(own, own_place(places));
            own
        };
        // Others may ask in between, so that two of these threads meet in one place.
        let own: Vec<usize> = (0..64)
            .map(|_| std::thread::spawn(place).join().expect("no panic"))
            .collect();
        assert!(own.iter().all(|it| *it < places), "{own:?}");
        assert!(own.iter().any(|it| *it != own[0]), "{own:?}");
        assert_eq!(own_place(1), 0);
        assert_eq!(own_place(0), 0);
    }
}
