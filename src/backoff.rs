//! Pauses between attempts: they double from a first to a last one, with jitter, without an end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// The pauses of one line of attempts.
pub(crate) fn pauses(first: Duration, last: Duration) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(last)
        .without_max_times()
        .with_jitter()
        .build()
        .chain(std::iter::repeat(last))
}
