//! What TLS costs a hit: CPU seconds of the server process per million gets, with TLS 1.3 and
//! without, and of a get that another node answers, whose hop is plaintext or mutual TLS.
//! `cargo bench --bench hit`; what a hit costs beside other servers, `crates/bench` measures.
//!
//! The client has 4 connections with 16 calls in flight on each, which are kept. Each server runs
//! in its own process with one worker thread. Rounds alternate, so that a noisy machine affects
//! both; the result is the median of the ratios.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rounds;
mod secured;

use std::time::Duration;

use bytes::Bytes;
use gaocache::{GroupDefinition, internal, loader};

#[global_allocator]
static ALLOCATOR: gaocache::internal::Allocator = gaocache::internal::Allocator;

const ROUNDS: usize = 5;
const SIZES: [(usize, usize); 3] = [(100, 60_000), (1024, 60_000), (65_536, 10_000)];

fn value(key: &str) -> Bytes {
    let size = key.split('/').next().unwrap();
    Bytes::from(vec![b'x'; size.parse().unwrap()])
}

async fn serve_gaocache(further: &[&str]) {
    let settings = [&["node.worker_threads=1", "log.level=warn"], further].concat();
    let settings = internal::loopback("bench", &settings).unwrap();
    // As in production, where every trace point meets a subscriber.
    let _telemetry = internal::start_telemetry(&settings, "bench").unwrap();
    let values = loader(async |key: String| Ok::<_, gaocache::Error>(value(&key)));
    let group = GroupDefinition::new("bench", values).ttl(Duration::from_secs(3600));
    let node = internal::configured(&settings)
        .unwrap()
        .group(group)
        .bind()
        .await
        .unwrap();
    println!("{}", node.addresses().grpc.unwrap());
    node.run(std::future::pending()).await.unwrap();
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match std::env::args().nth(1).as_deref() {
        Some("gaocache") => {
            let further: Vec<String> = std::env::args().skip(2).collect();
            let further: Vec<&str> = further.iter().map(String::as_str).collect();
            runtime.block_on(serve_gaocache(&further));
        }
        Some("pair") => runtime.block_on(secured::serve_pair()),
        _ => runtime.block_on(secured::compare()),
    }
}
