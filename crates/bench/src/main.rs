//! What a get costs a node, over the network: CPU seconds of its process per million gets, beside
//! reference servers that speak the same protocol with the same clients, in turn.
//!
//! The servers run on one core, the clients and origins on another. `make bench` and
//! `make bench-quick` build and run it; `docs/benchmarks/README.md` has the outcome. It is never
//! part of what is shipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arguments;
mod cluster;
mod grpc;
mod keys;
mod lines;
mod process;
mod reference;
mod report;
mod round;
mod rows;

use clap::Parser;

use self::arguments::{Arguments, Serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments = Arguments::parse();
    if let Some(Serve::Reference { kind }) = arguments.serve {
        return reference::run(kind);
    }
    process::pin_this();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let table = runtime.block_on(rows::run(&arguments));
    println!("{table}");
}
