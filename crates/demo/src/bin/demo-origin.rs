//! An HTTP origin to try a cluster on: `/users/{key}` answers a value of about a kilobyte,
//! `/counts` reports how often the keys were requested. Part of the demo image; `cargo run -p
//! gaocache-demo --bin demo-origin -- 127.0.0.1:8000`.

use std::{collections::HashMap, process::ExitCode, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use clap::Parser;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// An HTTP origin to try a gaocache cluster on.
///
/// GET /users/{key} answers a value of about a kilobyte, /counts how many keys were asked for and
/// how often, /livez that it runs.
#[derive(Parser)]
#[command(name = "demo-origin", version, max_term_width = 100)]
struct Arguments {
    /// Where to listen
    #[arg(default_value = "0.0.0.0:8000")]
    address: String,
}

/// How often each key was loaded.
type Counts = Arc<Mutex<HashMap<String, u64>>>;

async fn value(State(counts): State<Counts>, Path(key): Path<String>) -> String {
    *counts.lock().entry(key.clone()).or_default() += 1;
    format!("value of {key} {}", "·".repeat(500))
}

async fn counts(State(counts): State<Counts>) -> Json<Value> {
    let counts = counts.lock().clone();
    Json(json!({
        "keys": counts.len(),
        "loads": counts.values().sum::<u64>(),
        "most": counts.values().max(),
    }))
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-origin: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let Arguments { address } = arguments;
    let router = Router::new()
        .route("/users/{*key}", get(value))
        .route("/counts", get(counts))
        .route("/livez", get(async || "alive\n"))
        .with_state(Counts::default());
    let listener = tokio::net::TcpListener::bind(&address).await;
    let listener = listener.map_err(|error| format!("can't listen on {address}: {error}"))?;
    println!("serves on {address}");
    let served = axum::serve(listener, router).await;
    served.map_err(|error| error.to_string())
}
