//! What the program is told.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::reference;

#[derive(Parser)]
#[command(about = "CPU of a get over the network, beside reference servers")]
pub struct Arguments {
    /// Two minutes in all, and therefore more noise.
    #[arg(long)]
    pub quick: bool,
    /// Only rows whose name contains this text.
    #[arg(long, default_value = "")]
    pub only: String,
    /// Without the servers beside it, to profile the node.
    #[arg(long)]
    pub alone: bool,
    /// The node.
    #[arg(long, default_value = "target/release/gaocache")]
    pub gaocache: PathBuf,
    #[command(subcommand)]
    pub serve: Option<Serve>,
}

#[derive(Subcommand)]
pub enum Serve {
    /// Run one of the reference servers; prints its address.
    #[command(hide = true)]
    Reference {
        #[command(subcommand)]
        kind: reference::Kind,
    },
}
