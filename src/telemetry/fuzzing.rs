//! What fuzzing reaches of telemetry: filters of the log.

/// Whether a filter is taken.
///
/// # Errors
/// What is wrong with it.
pub fn filter(text: &str) -> gaocache_core::error::Result<()> {
    super::filter::filter(text).map(drop)
}
