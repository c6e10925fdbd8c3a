//! The program `gaocache`: reads signals and arguments, and leaves the rest to the library.

use std::process::ExitCode;

// Small values by the million are what a cache allocates; see the figures in ARCHITECTURE.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    gaocache::internal::main()
}
