//! How many files this process may open.

/// Raises the limit as far as the system allows. Only for a process that is a node and nothing
/// else: a program that embeds a node decides for itself.
#[cfg(all(unix, feature = "cli"))]
pub(super) fn raise() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let before = limit.current;
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, max_open_files = before, "could not raise RLIMIT_NOFILE");
    }
}

#[cfg(all(not(unix), feature = "cli"))]
pub(super) fn raise() {}

/// The limit; `None`: there is none.
#[cfg(unix)]
pub(super) fn limit() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    usize::try_from(limit.current?).ok()
}

#[cfg(not(unix))]
pub(super) fn limit() -> Option<usize> {
    None
}
