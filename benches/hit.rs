//! What a hit costs beside a bare tonic echo: CPU seconds of the server's process per million gets, and throughput.
//! `cargo bench --bench hit`
//!
//! Both servers speak the same protocol to the same client: 4 connections with 16 calls under way on each. Each runs in a process of its
//! own with one worker thread. Rounds alternate, so that a noisy machine disturbs both; the median of the ratios counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use gaocache::{
    GroupDefinition, NodeBuilder, config, loader,
    rpc::wire::{
        self,
        cache_client::CacheClient,
        cache_server::{Cache, CacheServer},
    },
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 16;
const ROUNDS: usize = 5;
const SIZES: [(usize, usize); 3] = [(100, 60_000), (1024, 60_000), (65_536, 10_000)];

fn value(key: &str) -> Bytes {
    Bytes::from(vec![b'x'; key.parse().unwrap()])
}

/// The bare echo: tonic's own server, answering each get with a value of the size asked.
struct Echo {
    values: Vec<(String, Bytes)>,
}

#[tonic::async_trait]
impl Cache for Echo {
    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        let key = request.into_inner().key;
        let found = self.values.iter().find(|(size, _)| *size == key).unwrap();
        Ok(Response::new(wire::GetResponse {
            value: found.1.clone(),
            ..wire::GetResponse::default()
        }))
    }
    type GetManyStream = tokio_stream::Empty<Result<wire::GetManyResponse, Status>>;
    async fn get_many(
        &self,
        _: Request<wire::GetManyRequest>,
    ) -> Result<Response<Self::GetManyStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn remove(
        &self,
        _: Request<wire::RemoveRequest>,
    ) -> Result<Response<wire::RemoveResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn purge(
        &self,
        _: Request<wire::PurgeRequest>,
    ) -> Result<Response<wire::PurgeResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn serve_echo() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    let values = SIZES.map(|(size, _)| (size.to_string(), value(&size.to_string())));
    let echo = Echo {
        values: values.into(),
    };
    tonic::transport::Server::builder()
        .add_service(CacheServer::new(echo))
        .serve_with_incoming(
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)),
        )
        .await
        .unwrap();
}

async fn serve_gaocache() {
    let settings = config::loopback("bench", &["node.worker_threads=1"]).unwrap();
    let values = loader(async |key: String| Ok(value(&key)));
    let group = GroupDefinition::new("bench", Duration::from_secs(3600), values);
    let node = NodeBuilder::new(settings)
        .group(group)
        .bind()
        .await
        .unwrap();
    println!("{}", node.addresses().grpc);
    node.run(std::future::pending()).await.unwrap();
}

struct Server {
    child: Child,
    clients: Vec<CacheClient<tonic::transport::Channel>>,
}

impl Server {
    async fn start(name: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(
                CacheClient::connect(format!("http://{}", address.trim()))
                    .await
                    .unwrap(),
            );
        }
        Self { child, clients }
    }

    /// CPU seconds, user and system, of the server's process. Fields 14 and 15 of proc(5)'s stat, in hundredths.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// CPU seconds per million gets, and gets per second.
    async fn round(&self, size: usize, gets: usize) -> (f64, f64) {
        let (cpu, started) = (self.cpu_seconds(), Instant::now());
        let mut callers = Vec::new();
        for client in &self.clients {
            for _ in 0..IN_FLIGHT {
                let mut client = client.clone();
                callers.push(tokio::spawn(async move {
                    for _ in 0..gets / (CONNECTIONS * IN_FLIGHT) {
                        let request = wire::GetRequest {
                            group: "bench".into(),
                            key: size.to_string(),
                        };
                        let answer = client.get(request).await.unwrap();
                        assert_eq!(answer.into_inner().value.len(), size);
                    }
                }));
            }
        }
        for caller in callers {
            caller.await.unwrap();
        }
        let done = gets as f64;
        (
            (self.cpu_seconds() - cpu) / done * 1e6,
            done / started.elapsed().as_secs_f64(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

async fn compare() {
    let echo = Server::start("echo").await;
    let cache = Server::start("gaocache").await;
    println!(
        "| value | echo, CPU s/1M | gaocache hit, CPU s/1M | ratio | echo, gets/s | gaocache, gets/s |"
    );
    println!("|---|---|---|---|---|---|");
    for (size, gets) in SIZES {
        for server in [&echo, &cache] {
            server.round(size, gets / 10).await;
        }
        let (mut echoes, mut hits) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            echoes.push(echo.round(size, gets).await);
            hits.push(cache.round(size, gets).await);
        }
        let of = |rounds: &[(f64, f64)], part: fn(&(f64, f64)) -> f64| {
            median(rounds.iter().map(part).collect())
        };
        let ratio = median(
            echoes
                .iter()
                .zip(&hits)
                .map(|(echo, hit)| hit.0 / echo.0)
                .collect(),
        );
        println!(
            "| {size} B | {:.1} | {:.1} | {ratio:.2} | {:.0} | {:.0} |",
            of(&echoes, |it| it.0),
            of(&hits, |it| it.0),
            of(&echoes, |it| it.1),
            of(&hits, |it| it.1)
        );
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    match std::env::args().nth(1).as_deref() {
        Some("echo") => runtime.block_on(serve_echo()),
        Some("gaocache") => runtime.block_on(serve_gaocache()),
        _ => runtime.block_on(compare()),
    }
}
