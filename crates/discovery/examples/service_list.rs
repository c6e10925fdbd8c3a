//! Prints what is registered under several prefixes, and again whenever it changes:
//! `cargo run -p gaocache-discovery --example service_list -- demo/greeter/ gaocache/`.

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
            let (revision, count) = (snapshot.revision, snapshot.endpoints.len());
            let noun = if count == 1 { "endpoint" } else { "endpoints" };
            println!("revision {revision}: {count} {noun}");
            for (key, endpoint) in snapshot.endpoints.iter() {
                let metadata = serde_json::to_string(&endpoint.metadata)?;
                println!("  {key}  {}  {metadata}", endpoint.address);
            }
        }
        changes.changed().await?;
    }
}
