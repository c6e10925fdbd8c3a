//! A demo HTTP origin: `/users/{key}` returns a value of about a kilobyte, `/counts` returns how
//! often keys were loaded. Part of the demo image. Run it with `cargo run --example demo_origin --
//! 127.0.0.1:8000`.

use std::{collections::HashMap, error::Error, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::get,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

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
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "0.0.0.0:8000".into());
    let router = Router::new()
        .route("/users/{*key}", get(value))
        .route("/counts", get(counts))
        .route("/livez", get(async || "alive\n"))
        .with_state(Counts::default());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("serves on {address}");
    axum::serve(listener, router).await?;
    Ok(())
}
