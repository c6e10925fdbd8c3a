//! Go programs that know nothing of gaocache find its nodes, and what they register is found here;
//! and foreign clients speak TLS with nodes. `make interop-test`; needs Go, openssl, curl and
//! grpcurl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use common::{CountingOrigin, TestNode, builder, etcd::Etcd, joining, settings, within};
use gaocache_discovery::{Discovery, EtcdConfig};
use gaocache_testing::{Authority, PemFolder};

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

/// Go gets over all of these nodes, which have registered in etcd; `trust` says whom to trust, if
/// they speak TLS.
async fn round_robin(etcd: &Etcd, origin: &CountingOrigin, further: &[&str], trust: &[&str]) {
    let endpoints = format!("registry.etcd.endpoints={}", etcd.url);
    let further = [&["registry.kind=etcd", &endpoints], further].concat();
    let mut nodes = Vec::new();
    for n in 0..3 {
        let settings = settings(&format!("n{n}"), &origin.url(), &further);
        nodes.push(TestNode::start(
            builder(&settings).bind().await.expect("binds"),
        ));
    }
    for node in &mut nodes {
        node.ring_of(3).await;
    }
    let arguments = [&["get", &etcd.url, "gaocache", "300"], trust].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let got = tokio::task::spawn_blocking(move || {
        let mut program = Command::new(program());
        program.args(arguments).output().expect("runs")
    });
    let got = got.await.unwrap();
    let errors = String::from_utf8_lossy(&got.stderr);
    assert!(got.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&got.stdout).into_owned();
    let counts: HashMap<&str, u32> = text
        .lines()
        .map(|line| line.split_once(' ').expect("address and number"))
        .map(|(address, number)| (address, number.parse().expect("a number")))
        .collect();
    println!("Go's round robin: {counts:?}");
    for node in &nodes {
        let address = node.addresses.grpc.to_string();
        let count = counts.get(&*address).copied().unwrap_or(0);
        assert!(count >= 50, "each node has its turn: {counts:?}");
    }
    let loads = origin.loads();
    assert_eq!(loads, 300, "each key was loaded once, whoever was asked");
}

#[tokio::test]
async fn go_s_resolver_round_robins_over_our_nodes_and_gets_values() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    round_robin(&etcd, &origin, &[], &[]).await;
}

/// A folder with an authority, and a certificate of it for `localhost` as `node` and as `client`.
fn files() -> PemFolder {
    let (authority, folder) = (Authority::new(), PemFolder::new());
    folder.write("ca.pem", &authority.pem);
    for name in ["node", "client"] {
        folder.write_identity(name, &authority.issue(&["localhost"]));
    }
    folder
}

/// The settings by which a listener speaks TLS, and requires a certificate.
fn secured(folder: &PemFolder, listener: &str) -> [String; 4] {
    [
        format!("{listener}.tls.cert={}", folder.text("node.pem")),
        format!("{listener}.tls.key={}", folder.text("node.key")),
        format!("{listener}.tls.client_ca={}", folder.text("ca.pem")),
        format!("{listener}.tls.client_auth=required"),
    ]
}

#[tokio::test]
async fn go_s_resolver_finds_nodes_that_speak_tls() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let folder = files();
    let [cert, key, ..] = secured(&folder, "grpc");
    let trust = [&*folder.text("ca.pem"), "localhost"];
    round_robin(&etcd, &origin, &[&cert, &key], &trust).await;
}

/// What a foreign program printed, which is to succeed.
async fn printed(program: &'static str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().expect(program);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program}: {text}");
    text
}

/// A node whose gRPC and HTTP listeners require certificates, and what a client names: the CA, its
/// certificate and its key.
async fn requiring(origin: &CountingOrigin, folder: &PemFolder) -> (TestNode, [String; 3]) {
    let further = [secured(folder, "grpc"), secured(folder, "http")].concat();
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let registry = gaocache::Registry::memory();
    let node = joining(&registry, "n0", &origin.url(), &further).await;
    let files = ["ca.pem", "client.pem", "client.key"].map(|file| folder.text(file));
    (node, files)
}

#[tokio::test]
async fn openssl_speaks_tls_with_a_node() {
    let (origin, folder) = (CountingOrigin::start().await, files());
    let (node, [ca, cert, key]) = requiring(&origin, &folder).await;
    let grpc = node.addresses.grpc.to_string();
    let shown = printed(
        "openssl",
        &[
            "s_client",
            "-connect",
            &grpc,
            "-CAfile",
            &ca,
            "-cert",
            &cert,
            "-key",
            &key,
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-alpn",
            "h2",
        ],
    )
    .await;
    for wanted in ["TLSv1.3", "ALPN protocol: h2", "Verification: OK"] {
        assert!(shown.contains(wanted), "{wanted}: {shown}");
    }
}

#[tokio::test]
async fn curl_and_grpcurl_speak_tls_with_a_node() {
    let (origin, folder) = (CountingOrigin::start().await, files());
    let (node, [ca, cert, key]) = requiring(&origin, &folder).await;
    let (grpc, http) = (node.addresses.grpc.to_string(), node.addresses.http);
    let url = format!("https://localhost:{}/v1/users/a", http.port());
    let resolve = format!("localhost:{}:127.0.0.1", http.port());
    for version in ["--http1.1", "--http2"] {
        let arguments = [
            "-sSf",
            version,
            "--resolve",
            &resolve,
            "--cacert",
            &ca,
            "--cert",
            &cert,
            "--key",
            &key,
            &url,
        ];
        assert_eq!(printed("curl", &arguments).await, "value of a", "{version}");
    }
    let request = "{\"group\":\"users\",\"key\":\"a\"}";
    let arguments = [
        "-cacert",
        &ca,
        "-cert",
        &cert,
        "-key",
        &key,
        "-authority",
        "localhost",
        "-d",
        request,
        &grpc,
        "gaocache.v1.Cache/Get",
    ];
    let got = printed("grpcurl", &arguments).await;
    // "value of a" in base64.
    assert!(got.contains("dmFsdWUgb2YgYQ=="), "{got}");
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
