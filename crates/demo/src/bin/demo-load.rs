//! A steady load of gets over HTTP that reports how it goes: `cargo run -p gaocache-demo --bin
//! demo-load -- --url http://127.0.0.1:8080`.
//!
//! Each get behaves like a careful client: it retries within a deadline when the connection breaks.
//! A get counts as failed if no attempt returned the right value in time. `/stats` on the given
//! port returns the numbers of gets, retries and failures. `/sweep` gets every key once and returns
//! how many gets failed, so that the origin sees a load for every entry that the cache lost.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, routing::get};
use bytes::Bytes;
use clap::Parser;
use futures::StreamExt;
use http::Uri;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A steady load of gets over HTTP.
///
/// /stats reports how it goes; /sweep gets every key once and reports how many gets failed.
#[derive(Clone, Parser)]
#[command(name = "demo-load", version, max_term_width = 100)]
struct Arguments {
    /// The HTTP listener of the cache, such as http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// The group whose keys are asked for
    #[arg(long, default_value = "users")]
    group: String,
    /// How many keys
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Number of concurrent callers
    #[arg(long, default_value_t = 8)]
    callers: u32,
    /// Gets per second, of all callers together
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Time limit for a get in seconds, including all attempts
    #[arg(long, default_value_t = 5)]
    deadline: u64,
    /// Time limit for each attempt in seconds: what doesn't answer then may stand still
    #[arg(long, default_value_t = 5)]
    attempt: u64,
    /// Where /stats and /sweep are answered
    #[arg(long, default_value = "0.0.0.0:8001")]
    listen: String,
}

#[derive(Default)]
struct Stats {
    gets: AtomicU64,
    attempts: AtomicU64,
    failed: AtomicU64,
    slowest_ms: AtomicU64,
    last_error: Mutex<String>,
}

/// Plain HTTP: the cache's listener speaks no TLS.
type HttpClient = Client<HttpConnector, Empty<Bytes>>;

async fn attempt(client: &HttpClient, url: &str, expected: &str) -> Result<(), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let answer = client.get(uri).await;
    let (parts, body) = answer.map_err(|error| format!("{error:?}"))?.into_parts();
    let body = body.collect().await;
    let body = body.map_err(|error| format!("{error:?}"))?.to_bytes();
    let (status, body) = (parts.status, String::from_utf8_lossy(&body));
    if status.is_success() && body.starts_with(expected) {
        Ok(())
    } else {
        Err(format!(
            "{status}: {}",
            body.chars().take(200).collect::<String>()
        ))
    }
}

async fn call(arguments: Arguments, stats: Arc<Stats>, client: HttpClient) {
    let pause = Duration::from_secs(1) * arguments.callers / arguments.rate.max(1);
    let mut beat = interval(pause);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        get_one(&arguments, &stats, &client, fastrand::u64(..arguments.keys)).await;
    }
}

/// One get, with as many attempts as its deadline allows; false if it failed.
async fn get_one(arguments: &Arguments, stats: &Stats, client: &HttpClient, key: u64) -> bool {
    let url = format!("{}/v1/{}/user-{key}", arguments.url, arguments.group);
    let expected = format!("value of user-{key} ");
    let started = Instant::now();
    let deadline = started + Duration::from_secs(arguments.deadline);
    let done = loop {
        stats.attempts.fetch_add(1, Ordering::Relaxed);
        let bound = Instant::now() + Duration::from_secs(arguments.attempt);
        let trying = attempt(client, &url, &expected);
        let tried = tokio::time::timeout_at(deadline.min(bound), trying).await;
        let error = match tried {
            Ok(Ok(())) => break true,
            Ok(Err(error)) => error,
            Err(_) => "no answer in time".to_owned(),
        };
        *stats.last_error.lock() = error;
        if Instant::now() >= deadline {
            stats.failed.fetch_add(1, Ordering::Relaxed);
            break false;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(10..50))).await;
    };
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    stats.slowest_ms.fetch_max(took, Ordering::Relaxed);
    stats.gets.fetch_add(1, Ordering::Relaxed);
    done
}

/// Gets every key once; returns how many failed.
async fn sweep(arguments: Arguments, stats: Arc<Stats>, client: HttpClient) -> usize {
    /// Gets at the same time: the sweep is beside the load, not instead of it.
    const AT_ONCE: usize = 4;
    futures::stream::iter(0..arguments.keys)
        .map(|key| get_one(&arguments, &stats, &client, key))
        .buffer_unordered(AT_ONCE)
        .filter(|done| std::future::ready(!done))
        .count()
        .await
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let stats = Arc::new(Stats::default());
    let client: HttpClient = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build_http();
    for _ in 0..arguments.callers {
        tokio::spawn(call(arguments.clone(), stats.clone(), client.clone()));
    }
    let (shown, listen) = (stats.clone(), arguments.listen.clone());
    let report = async move || {
        let number = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let last_error = shown.last_error.lock().clone();
        Json(json!({
            "gets": number(&shown.gets),
            "failed": number(&shown.failed),
            "further_attempts": number(&shown.attempts).saturating_sub(number(&shown.gets)),
            "slowest_ms": number(&shown.slowest_ms),
            "last_error": last_error,
        }))
    };
    let swept = async move || {
        let failed = sweep(arguments.clone(), stats.clone(), client.clone()).await;
        Json(json!({ "failed": failed }))
    };
    let router = Router::new()
        .route("/stats", get(report))
        .route("/sweep", get(swept));
    let listener = tokio::net::TcpListener::bind(&listen).await;
    let listener = listener.map_err(|error| format!("can't listen on {listen}: {error}"))?;
    let served = axum::serve(listener, router).await;
    served.map_err(|error| error.to_string())
}
