//! Delays between attempts. They double from the first to the last one, with jitter, and never end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// The delays of one series of attempts.
// `gaocache-discovery` builds the same: it must not know this crate, nor this crate need etcd.
pub(crate) fn pauses(first: Duration, last: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(last)
        .without_max_times()
        .with_jitter()
        .build()
        .chain(std::iter::repeat(last))
}
