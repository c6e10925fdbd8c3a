//! The cost of a hit compared with a bare tonic echo: CPU seconds of the server process per million
//! gets, and throughput. `cargo bench --bench hit`
//!
//! Both servers speak the same protocol to the same client: 4 connections with 16 calls in flight
//! on each. Each server runs in its own process with one worker thread. Rounds alternate, so that a
//! noisy machine affects both; the result is the median of the ratios. Then the same for a node
//! with TLS 1.3 and one without, and for a get that another node answers, whose hop is plaintext or
//! mutual TLS; connections are kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rounds;
mod secured;

use std::time::Duration;

use bytes::Bytes;
use gaocache::{
    GroupDefinition,
    internal::{
        self,
        wire::{
            self,
            cache_server::{Cache, CacheServer},
        },
    },
    loader,
};
use rounds::{Round, Server, median};
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOCATOR: gaocache::internal::Allocator = gaocache::internal::Allocator;

const ROUNDS: usize = 5;
const SIZES: [(usize, usize); 3] = [(100, 60_000), (1024, 60_000), (65_536, 10_000)];

fn value(key: &str) -> Bytes {
    let size = key.split('/').next().unwrap();
    Bytes::from(vec![b'x'; size.parse().unwrap()])
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
    async fn purge_tag(
        &self,
        _: Request<wire::PurgeTagRequest>,
    ) -> Result<Response<wire::PurgeTagResponse>, Status> {
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

async fn compare() {
    let echo = Server::start(&["echo"]).await;
    let cache = Server::start(&["gaocache"]).await;
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
        let of = |rounds: &[Round], part: fn(&Round) -> f64| median(rounds.iter().map(part));
        let both = echoes.iter().zip(&hits);
        let ratio = median(both.map(|(echo, hit)| hit.cpu / echo.cpu));
        println!(
            "| {size} B | {:.1} | {:.1} | {ratio:.2} | {:.0} | {:.0} |",
            of(&echoes, |it| it.cpu),
            of(&hits, |it| it.cpu),
            of(&echoes, |it| it.per_second),
            of(&hits, |it| it.per_second)
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
        Some("gaocache") => {
            let further: Vec<String> = std::env::args().skip(2).collect();
            let further: Vec<&str> = further.iter().map(String::as_str).collect();
            runtime.block_on(serve_gaocache(&further));
        }
        Some("pair") => runtime.block_on(secured::serve_pair()),
        _ => runtime.block_on(async {
            compare().await;
            secured::compare().await;
        }),
    }
}
