//! Runs the target that the variable `GAOCACHE_FUZZ` names, on inputs that libFuzzer writes.
#![no_main]
#![allow(missing_docs, clippy::panic)]

use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("GAOCACHE_FUZZ").unwrap_or_default();
    let Some(target) = gaocache_fuzz::find(&name) else {
        panic!("GAOCACHE_FUZZ names no target: '{name}'");
    };
    target.run
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| RUN(input));
