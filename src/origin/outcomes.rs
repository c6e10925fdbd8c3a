//! How the loads of the last seconds ended.

use std::time::Duration;

use tokio::time::Instant;

/// Outcomes are counted in this window and the one before it: those of the last ten to twenty
/// seconds decide.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// The outcomes in two windows.
#[derive(Default)]
pub(super) struct Counts {
    began: Option<Instant>,
    current: Outcomes,
    previous: Outcomes,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Outcomes {
    pub(super) loads: u32,
    pub(super) failed: u32,
    pub(super) slow: u32,
}

impl Counts {
    pub(super) fn add(&mut self, outcome: Outcomes, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let windows = (now - began).as_nanos() / WINDOW.as_nanos();
        if windows > 0 {
            self.previous = match windows {
                1 => std::mem::take(&mut self.current),
                _ => Outcomes::default(),
            };
            self.current = Outcomes::default();
            self.began = Some(now);
        }
        self.current = self.current.plus(outcome);
    }

    pub(super) fn total(&self) -> Outcomes {
        self.current.plus(self.previous)
    }
}

impl Outcomes {
    fn plus(self, other: Self) -> Self {
        Self {
            loads: self.loads.saturating_add(other.loads),
            failed: self.failed.saturating_add(other.failed),
            slow: self.slow.saturating_add(other.slow),
        }
    }
}
