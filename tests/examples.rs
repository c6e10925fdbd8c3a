//! The examples do what their first lines say, each in one command, against a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::Command;

use common::etcd::Etcd;
use gaocache_testing::{example, run_example};

#[test]
fn embedded_is_short_and_loads_once() {
    let source = include_str!("../examples/embedded.rs");
    assert!(source.lines().count() < 60);
    let shown = run_example("embedded", &[]);
    assert!(shown.contains("12² = 144 (load 0) from Origin"), "{shown}");
    assert!(shown.ends_with("1 load for six gets\n"), "{shown}");
}

#[tokio::test]
async fn embedded_cluster_finds_itself_in_etcd() {
    let etcd = Etcd::start().await;
    let shown = run_example("embedded_cluster", &[&etcd.url]);
    assert!(
        shown.contains(
            "morning: MORNING from Origin\nnight: NIGHT from Origin\nmorning: MORNING from Hit"
        ),
        "{shown}"
    );
    assert!(shown.contains("2 loads"), "{shown}");
    assert!(
        etcd.keys("embedded/").await.is_empty(),
        "all have deregistered"
    );
}

#[test]
fn embedded_cluster_says_when_etcd_is_away() {
    let output = Command::new(example("embedded_cluster"))
        .arg("http://127.0.0.1:1")
        .output()
        .expect("runs");
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("is etcd running at http://127.0.0.1:1?"),
        "{told}"
    );
}
