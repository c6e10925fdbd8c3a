//! What fuzzing reaches of origins: what the headers of their answers say.

use std::time::Duration;

use gaocache_core::{error::Result, metadata::Metadata, ports::Freshness};
use reqwest::header::{HeaderMap, HeaderName};

use super::{attempt, cache_control, said};

/// How long an answer may be kept.
pub fn freshness(headers: &HeaderMap) -> Freshness {
    cache_control::freshness(headers)
}

/// How old an answer is.
pub fn age(headers: &HeaderMap) -> Duration {
    cache_control::age(headers)
}

/// What is kept of an answer's headers.
///
/// # Errors
/// What fails the load.
pub fn said(headers: &HeaderMap, keep: &[HeaderName]) -> Result<Metadata> {
    said::of_value(headers, keep)
}

/// When the origin wants to be asked again.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    attempt::retry_after(headers)
}
