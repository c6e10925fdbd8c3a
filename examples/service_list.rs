//! Prints what is registered under one or more prefixes, and prints it again on each change: `cargo
//! run --example service_list -- demo/greeter/ gaocache/`.

use std::error::Error;

use clap::Parser;
use gaocache_discovery::{Discovery, EtcdConfig};

#[derive(Parser)]
struct Arguments {
    /// Prefixes of keys in etcd
    #[arg(required = true)]
    prefixes: Vec<String>,
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    etcd: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let discovery = Discovery::start(EtcdConfig::new([arguments.etcd]), arguments.prefixes);
    let mut changes = discovery.changes();
    loop {
        let snapshot = changes.borrow_and_update().clone();
        if !snapshot.problem.is_empty() {
            println!(
                "etcd is unreachable, the list may be stale: {}",
                snapshot.problem
            );
        } else if snapshot.known {
            println!(
                "revision {}: {} endpoints",
                snapshot.revision,
                snapshot.endpoints.len()
            );
            for (key, endpoint) in snapshot.endpoints.iter() {
                let metadata = serde_json::to_string(&endpoint.metadata)?;
                println!("  {key}  {}  {metadata}", endpoint.address);
            }
        }
        changes.changed().await?;
    }
}
