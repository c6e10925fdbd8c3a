//! What a get costs a node, over the network: CPU seconds of its process per million gets, beside
//! reference servers that speak the same protocol with the same clients, in turn.
//!
//! The servers run on one core, the clients and origins on another. `make bench` and
//! `make bench-quick` build and run it; `docs/benchmarks/README.md` has the outcome. It is never
//! part of what is shipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cluster;
mod grpc;
mod keys;
mod lines;
mod process;
mod reference;
mod report;
mod round;
mod rows;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "CPU of a get over the network, beside reference servers")]
struct Arguments {
    /// Two minutes in all, and therefore more noise.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Without the servers beside it, to profile the node.
    #[arg(long)]
    alone: bool,
    /// The node.
    #[arg(long, default_value = "target/release/gaocache")]
    gaocache: PathBuf,
    #[command(subcommand)]
    serve: Option<Serve>,
}

#[derive(Subcommand)]
enum Serve {
    /// Run one of the reference servers; prints its address.
    #[command(hide = true)]
    Reference {
        #[command(subcommand)]
        kind: reference::Kind,
    },
}

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
