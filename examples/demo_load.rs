//! A steady load of gets over HTTP, that tells how it fares: `cargo run --example demo_load --
//! --url http://127.0.0.1:8080`.
//!
//! A get is what a careful client does: another attempt when the connection breaks, within a
//! deadline. It counts as failed when no attempt brought the right value in time. `/stats` on the
//! given port tells gets, further attempts and failures; `/sweep` gets every key once and tells how
//! many gets failed, so that nothing that the cache lost goes unnoticed by the origin.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, routing::get};
use clap::Parser;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

#[derive(Clone, Parser)]
struct Arguments {
    /// The HTTP listener of the cache
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "users")]
    group: String,
    #[arg(long, default_value_t = 1_000)]
    keys: u64,
    /// Callers at the same time
    #[arg(long, default_value_t = 8)]
    callers: u32,
    /// Gets a second, of all callers together
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Seconds that a get may take, all its attempts together
    #[arg(long, default_value_t = 5)]
    deadline: u64,
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

async fn attempt(client: &reqwest::Client, url: &str, expected: &str) -> Result<(), String> {
    let answer = client
        .get(url)
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() && body.starts_with(expected) {
        Ok(())
    } else {
        Err(format!(
            "{status}: {}",
            body.chars().take(200).collect::<String>()
        ))
    }
}

async fn call(arguments: Arguments, stats: Arc<Stats>, client: reqwest::Client) {
    let pause = Duration::from_secs(1) * arguments.callers / arguments.rate.max(1);
    let mut beat = interval(pause);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        get_one(&arguments, &stats, &client, fastrand::u64(..arguments.keys)).await;
    }
}

/// One get, with as many attempts as its deadline allows; false if it failed.
async fn get_one(arguments: &Arguments, stats: &Stats, client: &reqwest::Client, key: u64) -> bool {
    let url = format!("{}/v1/{}/user-{key}", arguments.url, arguments.group);
    let expected = format!("value of user-{key} ");
    let started = Instant::now();
    let deadline = started + Duration::from_secs(arguments.deadline);
    let done = loop {
        stats.attempts.fetch_add(1, Ordering::Relaxed);
        let tried = tokio::time::timeout_at(deadline, attempt(client, &url, &expected)).await;
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
async fn sweep(arguments: Arguments, stats: Arc<Stats>, client: reqwest::Client) -> usize {
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
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let stats = Arc::new(Stats::default());
    let client = gaocache::internal::plain_client()?;
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
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    axum::serve(listener, router).await?;
    Ok(())
}
