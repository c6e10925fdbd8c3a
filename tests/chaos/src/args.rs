//! The command line.

use clap::Parser;

use crate::{kind::Kind, node::faketime};

/// Breaks a real gaocache cluster and checks that removed means removed.
#[derive(Clone, Debug, Parser)]
#[command(
    after_help = "Environment: GAOCACHE_BIN, the program under test; GAOCACHE_TEST_ETCD, \
    etcd's program if it isn't on the PATH."
)]
pub struct Args {
    /// How long the storm goes on.
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// Begins the random numbers; printed, so that a run can be done again.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Nodes from the beginning; two more may come.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=7))]
    pub nodes: u8,
    /// Only these kinds of faults.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Kind>,
    /// Gets at a time, at all nodes together.
    #[arg(long, default_value_t = 42)]
    pub clients: usize,
    /// Instead of a storm: these scripted scenarios, or `all`.
    #[arg(long, value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Only reports, by its exit code, whether network namespaces are allowed here.
    #[arg(long)]
    pub probe: bool,
    /// Lists the scenarios.
    #[arg(long)]
    pub list: bool,
    /// Prints the report as one JSON object on the last line.
    #[arg(long)]
    pub json: bool,
    /// Keeps the folder with the logs even if all is well.
    #[arg(long)]
    pub keep_logs: bool,
}

impl Args {
    /// The kinds that may be drawn.
    pub fn kinds(&self) -> Vec<Kind> {
        let wanted = match &*self.only {
            [] => Kind::all(),
            only => only,
        };
        let possible = wanted.iter().copied();
        possible
            .filter(|kind| *kind != Kind::Clock || faketime().is_some())
            .collect()
    }
}
