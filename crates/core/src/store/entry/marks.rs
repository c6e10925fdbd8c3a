//! How the store judges an entry.

use std::sync::atomic::Ordering;

use super::{Entry, MAX_LATELY, MAX_USE_COUNT, UNTOLD};

/// Marks of an entry. How often the store saw it used lately, up to [`MAX_LATELY`].
const LATELY: u8 = 0b11;
/// It is one of those that the store holds on to.
const HOT: u8 = 0b100;
/// How the store judges an entry. All of this is read and written within the lock of its shard, but
/// hits hold it together. So one that races with another, or with [`Entry::set_told`] or a raised
/// use count, may undo what that wrote: the entry looks cooler, or is told of once more.
impl Entry {
    /// Counts a use. If two threads race, one use is lost and the entry looks slightly cooler,
    /// which is harmless.
    pub(crate) fn used(&self) {
        let head = self.0.head();
        let uses = head.uses.load(Ordering::Relaxed);
        if u32::from(uses) < MAX_USE_COUNT {
            head.uses.store(uses + 1, Ordering::Relaxed);
        }
        self.mark_used(UNTOLD);
    }

    /// The same for the store alone: nobody has to be told.
    pub(crate) fn used_lately(&self) {
        self.mark_used(0);
    }

    fn mark_used(&self, further: u8) {
        let marks = &self.0.head().marks;
        let before = marks.load(Ordering::Relaxed);
        let lately = (before & LATELY) + u8::from(before & LATELY < MAX_LATELY);
        let after = before & !LATELY | lately | further;
        if after != before {
            marks.store(after, Ordering::Relaxed);
        }
    }

    /// How often it was used lately.
    pub(crate) fn lately(&self) -> u8 {
        self.0.head().marks.load(Ordering::Relaxed) & LATELY
    }

    pub(crate) fn is_hot(&self) -> bool {
        self.0.head().marks.load(Ordering::Relaxed) & HOT != 0
    }

    /// Judges it anew.
    pub(crate) fn judge(&self, hot: bool, lately: u8) {
        let marks = &self.0.head().marks;
        let rest = marks.load(Ordering::Relaxed) & !(HOT | LATELY);
        let hot = if hot { HOT } else { 0 };
        marks.store(rest | hot | lately.min(MAX_LATELY), Ordering::Relaxed);
    }

    /// Whether it came or was used since [`Entry::set_told`].
    pub fn is_untold(&self) -> bool {
        self.0.head().marks.load(Ordering::Relaxed) & UNTOLD != 0
    }

    /// The holder of its replica knows that it is in use.
    pub fn set_told(&self) {
        self.0.head().marks.fetch_and(!UNTOLD, Ordering::Relaxed);
    }
}
