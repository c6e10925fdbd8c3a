//! The cost of metrics and traces for a hit: CPU time of the server process per million gets,
//! throughput and tail latency, as ratios within one run. `cargo bench --bench telemetry`
//!
//! Compares four servers with one worker thread each: no telemetry; metrics without an exporter;
//! metrics with one get in a hundred traced to a receiver; the same with a receiver that accepts
//! connections and never answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rounds;

use std::time::Duration;

use bytes::Bytes;
use gaocache::{GroupDefinition, internal, loader};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use rounds::{Round, Server, median};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

#[global_allocator]
static ALLOCATOR: gaocache::internal::Allocator = gaocache::internal::Allocator;

const SIZE: usize = 1024;
const GETS: usize = 20_000;
/// Processes of the same program differ by some percent for as long as they live, by where things
/// lie in memory: so they are started anew that often, with so many rounds each.
const GENERATIONS: usize = 10;
const ROUNDS: usize = 12;

async fn serve(measured: &str, endpoint: &str) {
    let endpoint = format!("trace.endpoint={endpoint}");
    let given = ["node.worker_threads=1", "log.level=error", &endpoint];
    let settings = internal::loopback("bench", &given).unwrap();
    let started = internal::start_telemetry(&settings, "bench").unwrap();
    let value = Bytes::from(vec![b'x'; SIZE]);
    let values = loader(move |_| {
        let value = value.clone();
        async move { Ok::<_, gaocache::Error>(value) }
    });
    let group = GroupDefinition::new("bench", values).ttl(Duration::from_secs(3600));
    let builder = internal::configured(&settings).unwrap().group(group);
    let builder = match measured {
        "unmeasured" => internal::unmeasured(builder),
        _ => builder,
    };
    let node = builder.bind().await.unwrap();
    println!("{}", node.addresses().grpc.unwrap());
    node.run(std::future::pending()).await.unwrap();
    started.flush();
}

struct Receiver;

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The URLs of a receiver and of a black hole, both in this process.
async fn receivers() -> (String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let urls = (url(&listener), url(&hole));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Receiver))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = hole.accept().await {
            open.push(stream);
        }
    });
    urls
}

async fn compare() {
    let (receiver, hole) = receivers().await;
    let mut rounds: [Vec<Round>; 4] = Default::default();
    for _ in 0..GENERATIONS {
        generation(&receiver, &hole, &mut rounds).await;
    }
    report(&rounds);
}

async fn generation(receiver: &str, hole: &str, rounds: &mut [Vec<Round>; 4]) {
    let servers = [
        Server::start(&["serve", "unmeasured", ""]).await,
        Server::start(&["serve", "measured", ""]).await,
        Server::start(&["serve", "measured", receiver]).await,
        Server::start(&["serve", "measured", hole]).await,
    ];
    for server in &servers {
        server.round(SIZE, GETS / 10).await;
    }
    for number in 0..ROUNDS {
        // Each comes first as often as last, so a machine that slows down favours none.
        for step in 0..servers.len() {
            let at = (number + step) % servers.len();
            rounds[at].push(servers[at].round(SIZE, GETS).await);
        }
    }
}

fn report(rounds: &[Vec<Round>; 4]) {
    let [nothing, metrics, traced, black_hole] = rounds;
    let ratio = |a: &[Round], b: &[Round], part: fn(&Round) -> f64| {
        median(a.iter().zip(b).map(|(a, b)| part(a) / part(b)))
    };
    println!("| a hit of {SIZE} B | CPU s/1M | gets/s | p99 µs |\n|---|---|---|---|");
    for (name, rounds) in [
        ("nothing measured", nothing),
        ("metrics", metrics),
        ("metrics, 1 % traced", traced),
        ("metrics, 1 % traced into a black hole", black_hole),
    ] {
        let of = |part: fn(&Round) -> f64| median(rounds.iter().map(part));
        println!(
            "| {name} | {:.2} | {:.0} | {:.0} |",
            of(|it| it.cpu),
            of(|it| it.per_second),
            of(|it| it.tail) * 1e6
        );
    }
    println!(
        "\n| ratio, median of {} rounds | |\n|---|---|",
        rounds[0].len()
    );
    let cpu: fn(&Round) -> f64 = |it| it.cpu;
    let lines = [
        ("CPU, metrics / nothing", ratio(metrics, nothing, cpu)),
        (
            "CPU, metrics and 1 % traced / nothing",
            ratio(traced, nothing, cpu),
        ),
        (
            "gets/s, black hole / no exporter",
            ratio(black_hole, metrics, |it| it.per_second),
        ),
        (
            "p99, black hole / no exporter",
            ratio(black_hole, metrics, |it| it.tail),
        ),
    ];
    for (name, ratio) in lines {
        println!("| {name} | {ratio:.3} |");
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("serve") => runtime.block_on(serve(&arguments[2], &arguments[3])),
        _ => runtime.block_on(compare()),
    }
}
