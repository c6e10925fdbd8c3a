//! A round: so many gets over kept connections, a number of them in flight on each.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::time::Instant;

use crate::process::Cpu;

/// Connections, and gets in flight on each of them.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: usize,
    pub in_flight: usize,
}

pub const FOUR_BY_SIXTEEN: Shape = Shape {
    connections: 4,
    in_flight: 16,
};
/// Of calls for many keys: one client may miss 4,096 keys at once, hops included.
pub const FOUR_BY_FOUR: Shape = Shape {
    connections: 4,
    in_flight: 4,
};
pub const SIXTY_FOUR_BY_ONE: Shape = Shape {
    connections: 64,
    in_flight: 1,
};

/// What a round brought.
#[derive(Clone, Copy)]
pub struct Round {
    /// Seconds of the servers' processes per million gets.
    pub cpu: f64,
    /// Percentiles of the time of a get.
    pub median: Duration,
    pub tail: Duration,
}

/// Hands out the numbers of gets, and takes how long they took.
#[derive(Clone)]
pub struct Course {
    next: Rc<Cell<usize>>,
    end: usize,
    times: Rc<std::cell::RefCell<Vec<Duration>>>,
}

impl Course {
    pub fn new(first: usize, gets: usize) -> Self {
        Self {
            next: Rc::new(Cell::new(first)),
            end: first + gets,
            times: Rc::new(std::cell::RefCell::new(Vec::with_capacity(gets))),
        }
    }

    /// The number of the next get, until there were enough.
    pub fn next(&self) -> Option<usize> {
        let next = self.next.get();
        (next < self.end)
            .then(|| self.next.set(next + 1))
            .map(|()| next)
    }

    /// A get that began then has ended.
    pub fn ended(&self, began: Instant) {
        self.times.borrow_mut().push(began.elapsed());
    }

    /// What it brought: the CPU of these processes since `before`, for a number of gets each.
    pub fn round(self, ids: &[u32], before: &Cpu, gets_each: usize) -> Round {
        let cpu = Cpu::of(ids).since(before);
        let mut times = self.times.take();
        times.sort();
        let gets = times.len() * gets_each;
        Round {
            cpu: cpu / gets as f64 * 1e6,
            median: times[times.len() / 2],
            tail: times[times.len() * 99 / 100],
        }
    }
}
