//! Go programs that know nothing of gaocache find its nodes, and what they register is found here.
//! `make interop-test`; needs Go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use common::{CountingOrigin, TestNode, builder, etcd::Etcd, settings, within};
use gaocache_discovery::{Discovery, EtcdConfig};

/// Builds the Go program of `tests/interop/go`.
fn program() -> PathBuf {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("interop");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&out)
        .arg(".")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/go"))
        .status();
    assert!(built.expect("go runs").success());
    out
}

#[tokio::test]
async fn go_s_resolver_round_robins_over_our_nodes_and_gets_values() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let endpoints = format!("registry.etcd.endpoints={}", etcd.url);
    let mut nodes = Vec::new();
    for n in 0..3 {
        let settings = settings(
            &format!("n{n}"),
            &origin.url(),
            &["registry.kind=etcd", &endpoints],
        );
        nodes.push(TestNode::start(
            builder(&settings).bind().await.expect("binds"),
        ));
    }
    for node in &mut nodes {
        node.ring_of(3).await;
    }
    let url = etcd.url.clone();
    let got = tokio::task::spawn_blocking(move || {
        Command::new(program())
            .args(["get", &url, "gaocache", "300"])
            .output()
            .expect("runs")
    });
    let got = got.await.unwrap();
    assert!(
        got.status.success(),
        "{}",
        String::from_utf8_lossy(&got.stderr)
    );
    let text = String::from_utf8_lossy(&got.stdout).into_owned();
    let counts: HashMap<&str, u32> = text
        .lines()
        .map(|line| line.split_once(' ').expect("address and number"))
        .map(|(address, number)| (address, number.parse().expect("a number")))
        .collect();
    println!("Go's round robin: {counts:?}");
    for node in &nodes {
        let count = counts
            .get(&*node.addresses.grpc.to_string())
            .copied()
            .unwrap_or(0);
        assert!(count >= 50, "each node has its turn: {counts:?}");
    }
    assert_eq!(
        origin.loads(),
        300,
        "each key was loaded once, whoever was asked"
    );
}

#[tokio::test]
async fn what_go_s_endpoints_manager_registers_is_found_here() {
    let etcd = Etcd::start().await;
    let mut child = Command::new(program())
        .args(["register", &etcd.url, "gosvc", "one", "10.1.2.3:4567"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "registered\n");
    let discovery = Discovery::start(EtcdConfig::new([&etcd.url]), ["gosvc/"]);
    let found = within("the list", discovery.known()).await;
    let endpoint = &found.endpoints["gosvc/one"];
    assert_eq!(&*endpoint.address, "10.1.2.3:4567");
    assert_eq!(
        (endpoint.text("zone"), endpoint.number("weight")),
        (Some("go"), Some(7))
    );
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let mut changes = discovery.changes();
    let gone = changes.wait_for(|it| it.endpoints.is_empty());
    within("its end", gone).await.unwrap();
}
