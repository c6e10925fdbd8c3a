//! Calls all greeters in turn, as etcd knows them: `cargo run -p gaocache-discovery --example
//! greeter_client -- --count 6`.

mod greeter;

use std::{error::Error, time::Duration};

use clap::{Parser, ValueEnum};
use gaocache_discovery::{BalancedChannel, Discovery, EtcdConfig, Picker};

use greeter::{GreetRequest, greeter_client::GreeterClient};

#[derive(Clone, Copy, ValueEnum)]
enum Time {
    Morning,
    Night,
}

#[derive(Parser)]
struct Arguments {
    #[arg(long, value_enum, default_value = "morning")]
    time: Time,
    /// Number of calls; 0 means until Ctrl-C
    #[arg(long, default_value_t = 0)]
    count: usize,
    /// Number of servers that must be ready before the first call
    #[arg(long, default_value_t = 1)]
    servers: usize,
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    etcd: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let discovery = Discovery::start(EtcdConfig::new([arguments.etcd]), ["demo/greeter/"]);
    let channel = BalancedChannel::new(discovery, Picker::RoundRobin);
    channel
        .until_ready(|ready| ready.len() >= arguments.servers)
        .await;
    let mut client = GreeterClient::new(channel);
    let mut calls = 0;
    while arguments.count == 0 || calls < arguments.count {
        let request = GreetRequest {
            name: "world".into(),
        };
        let answer = match arguments.time {
            Time::Morning => client.morning(request).await,
            Time::Night => client.night(request).await,
        };
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                println!("{}, from {}", answer.message, answer.from);
            }
            Err(status) => println!("failed: {}", status.message()),
        }
        calls += 1;
        tokio::time::sleep(Duration::from_millis(arguments.pause_ms)).await;
    }
    Ok(())
}
