//! The program `gaocache`. Everything is in the library.

use std::process::ExitCode;

// A cache allocates millions of small values; ARCHITECTURE.md has the figures.
#[global_allocator]
static ALLOCATOR: gaocache::internal::Allocator = gaocache::internal::Allocator;

fn main() -> ExitCode {
    gaocache::internal::main()
}
