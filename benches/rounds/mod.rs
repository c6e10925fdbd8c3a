//! Rounds of gets against a server in its own process, which is this program with other arguments.
//! Measures CPU time, throughput and tail latency of each round. Benchmarks alternate the rounds of
//! two servers, so that a noisy machine affects both, and use the median of the ratios.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use gaocache::internal::wire::{self, cache_client::CacheClient};
use tokio::time::Instant;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 16;

pub struct Server {
    child: Child,
    /// The key of a caller with this number, for values of this size.
    pub key: fn(size: usize, caller: usize) -> String,
    clients: Vec<CacheClient<tonic::transport::Channel>>,
}

/// What a round brought.
#[derive(Clone, Copy)]
pub struct Round {
    /// Seconds of the server's process per million gets.
    pub cpu: f64,
    /// Gets a second.
    pub per_second: f64,
    /// 99th percentile of the time of a get, in seconds.
    pub tail: f64,
}

impl Server {
    /// Starts this program with `arguments`; it prints the address that it listens on.
    pub async fn start(arguments: &[&str]) -> Self {
        let connect = async |address: &str| {
            let client = CacheClient::connect(format!("http://{address}")).await;
            client.unwrap()
        };
        Self::connected_by(arguments, connect).await
    }

    /// The same, with these connections.
    pub async fn connected_by(
        arguments: &[&str],
        connect: impl AsyncFn(&str) -> CacheClient<tonic::transport::Channel>,
    ) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(connect(address.trim()).await);
        }
        Self {
            child,
            key: |size, _| size.to_string(),
            clients,
        }
    }

    /// CPU seconds of all threads of the server: the first field of each one's schedstat, in
    /// nanoseconds.
    fn cpu_seconds(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = tasks.map(|task| {
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        });
        nanoseconds.sum::<f64>() / 1e9
    }

    /// Gets of values of so many bytes.
    pub async fn round(&self, size: usize, gets: usize) -> Round {
        let (cpu, started) = (self.cpu_seconds(), Instant::now());
        let mut callers = Vec::new();
        for client in &self.clients {
            for _ in 0..IN_FLIGHT {
                let calls = gets / (CONNECTIONS * IN_FLIGHT);
                let key = (self.key)(size, callers.len());
                callers.push(tokio::spawn(call(client.clone(), key, size, calls)));
            }
        }
        let mut times = Vec::with_capacity(gets);
        for caller in callers {
            times.extend(caller.await.unwrap());
        }
        let done = times.len() as f64;
        let took = started.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        Round {
            cpu: (self.cpu_seconds() - cpu) / done * 1e6,
            per_second: done / took,
            tail: times[times.len() * 99 / 100],
        }
    }
}

async fn call(
    mut client: CacheClient<tonic::transport::Channel>,
    key: String,
    size: usize,
    calls: usize,
) -> Vec<f64> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let request = wire::GetRequest {
            group: "bench".into(),
            key: key.clone(),
        };
        let began = Instant::now();
        let answer = client.get(request).await.unwrap();
        times.push(began.elapsed().as_secs_f64());
        assert_eq!(answer.into_inner().value.len(), size);
    }
    times
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
