//! Bytes that arrive: of loads, which may wait for room, and of answers of other nodes.

#[cfg(feature = "cli")]
mod of_loads;

use std::sync::Arc;

#[cfg(feature = "cli")]
use bytes::Bytes;

use super::budget::Budget;
#[cfg(feature = "cli")]
use super::budget::Held;
use gaocache_core::error::Result;

/// Bytes taken from a budget; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    /// Nothing yet; see [`Charge::grow`].
    pub fn none(budget: &Arc<Budget>) -> Self {
        Self {
            budget: budget.clone(),
            bytes: 0,
        }
    }

    /// Takes room for more bytes.
    ///
    /// # Errors
    /// [`Overloaded`](gaocache_core::ErrorKind::Overloaded) if there is none.
    pub fn grow(&mut self, bytes: u64) -> Result<()> {
        self.budget.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back what was taken.
    pub fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.budget.give_back(bytes);
        }
    }

    /// The value, counted until its last clone is dropped.
    #[cfg(feature = "cli")]
    pub fn hold(self, value: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held {
            _counted: self,
            bytes: value,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}
