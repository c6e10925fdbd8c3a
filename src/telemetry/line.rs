//! What a log line says beside its event: which node of the process it is about, and whether it may
//! name keys.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

thread_local! {
    static NODE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

static KEYS: AtomicBool = AtomicBool::new(false);

/// The node that this thread works for, where a process has several.
pub(crate) fn node_of_this_thread() -> Option<Arc<str>> {
    NODE.with_borrow(Clone::clone)
}

/// From now on, the lines of this thread name this node.
pub(crate) fn this_thread_works_for(node: Option<Arc<str>>) {
    NODE.set(node);
}

/// Whether lines may name keys, from now on.
#[cfg(feature = "cli")]
pub(crate) fn allow_keys(allowed: bool) {
    KEYS.store(allowed, Ordering::Relaxed);
}

/// The key, if lines may name it: it may be personal data.
pub(super) fn key(key: &str) -> Option<&str> {
    KEYS.load(Ordering::Relaxed).then_some(key)
}

/// A line with further fields at its end.
#[cfg(feature = "cli")]
pub(super) fn append(line: &str, fields: &[(&str, &str)]) -> String {
    let mut line = line.trim_end().to_owned();
    let json = line.starts_with('{') && line.ends_with('}');
    if json {
        line.pop();
    }
    for (name, value) in fields {
        line += &if json {
            format!(",\"{name}\":\"{value}\"")
        } else {
            format!(" {name}={value}")
        };
    }
    line + if json { "}\n" } else { "\n" }
}
