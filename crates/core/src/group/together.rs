//! Calls of several flights that leave together: fetches from the same owner, loads from an origin
//! that takes batches.
//!
//! Each flight of a batch has a seat. It fills it with its call, or leaves it empty because it
//! needs none. Nothing leaves before every seat is filled or given up, so the holder of a seat must
//! not wait for what may never happen.

use std::{mem, sync::Arc};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// What carries out the calls, in a task of its own: the last seat may be given up anywhere.
type Leave<T> = Box<dyn FnOnce(Vec<T>) + Send + Sync>;

/// A seat of a batch.
pub(super) struct Seat<T>(Arc<Table<T>>);

struct Table<T> {
    filled: Mutex<Vec<T>>,
    leave: Option<Leave<T>>,
}

impl<T> Seat<T> {
    /// The first seat of a batch whose calls `leave` carries out. Its clones are further seats.
    pub(super) fn new(leave: impl FnOnce(Vec<T>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Table {
            filled: Mutex::default(),
            leave: Some(Box::new(leave)),
        }))
    }

    /// The call leaves with the others.
    pub(super) fn fill(self, call: T) {
        self.0.filled.lock().push(call);
    }
}

impl<T> Clone for Seat<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let calls = mem::take(self.filled.get_mut());
        // Without a runtime the process ends: those waiting learn that there is no answer.
        if let Some(leave) = self.leave.take()
            && !calls.is_empty()
            && Handle::try_current().is_ok()
        {
            leave(calls);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_leave_once_every_seat_is_filled_or_given_up() {
        let left = Arc::<Mutex<Option<Vec<u8>>>>::default();
        let seen = left.clone();
        let first = Seat::new(move |calls| *seen.lock() = Some(calls));
        let (second, third) = (first.clone(), first.clone());
        first.fill(1);
        drop(second);
        assert_eq!(*left.lock(), None, "one is free yet");
        third.fill(3);
        assert_eq!(*left.lock(), Some(vec![1, 3]));
    }
}
