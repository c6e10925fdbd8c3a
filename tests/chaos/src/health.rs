//! Which nodes are well: a get may only be blamed on a node that was well from its beginning to its
//! end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// How many things ail somebody at the moment, and how often that changed.
#[derive(Default)]
pub struct Health {
    ailments: AtomicU64,
    changes: AtomicU64,
}

/// What was seen at one moment; none: not well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Glimpse(Option<u64>);

impl Health {
    /// Ill until the mark is dropped.
    pub fn ill(self: &Arc<Self>) -> Ill {
        self.ailments.fetch_add(1, SeqCst);
        self.changes.fetch_add(1, SeqCst);
        Ill(self.clone())
    }

    /// A look, for [`Health::well_since`].
    pub fn glimpse(&self) -> Glimpse {
        let changes = self.changes.load(SeqCst);
        Glimpse((self.ailments.load(SeqCst) == 0).then_some(changes))
    }

    /// Whether it was well then, is well now, and was all the time between.
    pub fn well_since(&self, then: Glimpse) -> bool {
        then.0.is_some() && self.glimpse() == then
    }
}

/// Something is wrong for as long as this lives.
pub struct Ill(Arc<Health>);

impl Drop for Ill {
    fn drop(&mut self) {
        self.0.ailments.fetch_sub(1, SeqCst);
        self.0.changes.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_illness_between_two_looks_is_noticed() {
        let health = Arc::new(Health::default());
        let before = health.glimpse();
        assert!(health.well_since(before));
        let ill = health.ill();
        let during = health.glimpse();
        assert!(!health.well_since(before) && !health.well_since(during));
        drop(ill);
        assert!(!health.well_since(before) && !health.well_since(during));
        assert!(health.well_since(health.glimpse()));
    }
}
