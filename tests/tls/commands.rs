//! The commands and the client that knows the ring, with nodes that speak TLS.

use std::process::Command;

use gaocache::{Client, ClientOptions, ClientTls, ErrorKind};
use gaocache_testing::Etcd;

use super::{
    common::etcd::{config, node_settings},
    *,
};

/// The exit code of a command, and what it printed.
async fn command(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gaocache"));
    command
        .args(arguments)
        .env("XDG_CONFIG_HOME", "/nowhere")
        .envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = within("the command", output).await.unwrap().expect("runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code(), text)
}

/// A node whose gRPC listener requires certificates, and the files to talk to it.
struct Secured {
    node: TestNode,
    ca: String,
    cert: String,
    key: String,
    _origin: CountingOrigin,
    _files: Files,
}

impl Secured {
    async fn start() -> Self {
        let (origin, files) = (CountingOrigin::start().await, Files::new());
        let mut settings = files.settings();
        settings.extend(files.asking("grpc", "required"));
        let identity = files.authority.issue(&["client"]);
        files.folder.write_identity("client", &identity);
        let mut node = node(&origin, &settings).await;
        node.ready().await;
        let [ca, cert, key] =
            ["ca.pem", "client.pem", "client.key"].map(|it| files.folder.text(it));
        Self {
            node,
            ca,
            cert,
            key,
            _origin: origin,
            _files: files,
        }
    }
}

/// Nodes that have found each other in etcd.
async fn members(
    ids: &[&str],
    etcd: &Etcd,
    origin: &CountingOrigin,
    further: &[&str],
) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for id in ids {
        let settings = node_settings(id, &etcd.url, origin, further);
        let node = builder(&settings).bind().await.expect("binds");
        nodes.push(TestNode::start(node));
    }
    for node in &mut nodes {
        node.ring_of(ids.len()).await;
        node.ready().await;
    }
    nodes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_speak_tls_with_a_node() {
    let secured = Secured::start().await;
    let Secured {
        node,
        ca,
        cert,
        key,
        ..
    } = &secured;
    let (bare, admin) = (
        node.addresses.grpc.to_string(),
        node.addresses.admin.to_string(),
    );
    let (target, admin) = (format!("https://{bare}"), format!("https://{admin}"));
    let shown = ["--cert", cert, "--cert-key", key];
    let get = ["get", "users", "a", "--target", &target];
    let value = (Some(0), "value of a".to_owned());
    assert_eq!(
        command(&[&get, &shown[..], &["--ca", ca]].concat(), &[]).await,
        value
    );
    // By the environment; an address without a scheme means TLS then.
    let variables = [
        ("GAOCACHE_CA", ca.as_str()),
        ("GAOCACHE_CERT", cert),
        ("GAOCACHE_CERT_KEY", key),
        ("GAOCACHE_TARGET", &*bare),
    ];
    assert_eq!(command(&["get", "users", "a"], &variables).await, value);
    for (arguments, wanted) in [
        (&["ring", "--admin", &admin][..], "1 member"),
        (
            &["explain", "users", "a", "--admin", &admin],
            "held       by n0",
        ),
        (
            &["ring", "--server-name", "localhost", "--admin", &admin],
            "1 member",
        ),
    ] {
        let (code, told) = command(&[arguments, &["--ca", ca]].concat(), &[]).await;
        assert!(
            code == Some(0) && told.contains(wanted),
            "{arguments:?}: {told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_tell_why_tls_with_a_node_fails() {
    let secured = Secured::start().await;
    let Secured {
        node,
        ca,
        cert,
        key,
        ..
    } = &secured;
    let bare = node.addresses.grpc.to_string();
    let target = format!("https://{bare}");
    let shown = ["--cert", cert, "--cert-key", key];
    let get = ["get", "users", "a", "--target", &target];
    let unknown = command(&[&get[..], &shown].concat(), &[]).await;
    let wanted = "UnknownIssuer; name the CA of the node's certificate with --ca";
    assert!(unknown.1.contains(wanted), "{unknown:?}");
    let unnamed = command(&[&get, &["--ca", ca][..]].concat(), &[]).await;
    assert!(
        unnamed
            .1
            .contains("the server requires a client certificate"),
        "{unnamed:?}"
    );
    let other = ["--server-name", "other", "--ca", ca];
    let other = command(&[&get, &other[..]].concat(), &[]).await;
    assert!(other.1.contains("not valid for name"), "{other:?}");
    let plaintext = node.addresses.admin.to_string();
    let (_, told) = command(&["ring", "--admin", &plaintext], &[]).await;
    assert!(
        told.contains("this listener speaks TLS; use https://"),
        "{told}"
    );
    let (_, told) = command(&["get", "users", "a", "--target", &bare], &[]).await;
    let wanted = format!("gaocache: {bare}: this listener speaks TLS; use https://\n");
    assert_eq!(told, wanted);
}

/// Nobody waits for the time limit of the connect: the listener answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_at_another_listener_with_tls_asks_which_one_it_is() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let mut node = node(&origin, &files.settings()).await;
    node.ready().await;
    let (ca, port) = (files.folder.text("ca.pem"), node.addresses.http.port());
    let target = format!("https://localhost:{port}");
    let get = ["get", "users", "a", "--target", &target, "--ca", &ca];
    let (code, told) = command(&get, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    let doubt = "the response is not from a gaocache node; is this the gRPC listener";
    assert!(told.contains(doubt), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_node_of_plaintext_is_told_so() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let mut node = node(&origin, &[]).await;
    node.ready().await;
    let ca = files.folder.text("ca.pem");
    let (grpc, admin) = (node.addresses.grpc, node.addresses.admin);
    let (grpc, admin) = (format!("https://{grpc}"), admin.to_string());
    for arguments in [
        &["get", "users", "a", "--target", &grpc, "--ca", &ca][..],
        &["get", "users", "a", "--target", &grpc],
        &["ring", "--admin", &admin, "--ca", &ca],
    ] {
        let (code, told) = command(arguments, &[]).await;
        assert_eq!(code, Some(1), "{told}");
        assert!(
            told.contains("the server doesn't speak TLS"),
            "{arguments:?}: {told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_nodes_in_etcd_learns_there_that_they_speak_tls() {
    let (etcd, origin, files) = (
        Etcd::start().await,
        CountingOrigin::start().await,
        Files::new(),
    );
    files
        .folder
        .write_identity("node", &files.authority.issue(&["localhost"]));
    let settings = files.settings();
    let further: Vec<&str> = settings.iter().map(String::as_str).collect();
    let _nodes = members(&["n0", "n1"], &etcd, &origin, &further).await;
    // The address is an IP, and the certificate is for a name.
    let ca = files.folder.text("ca.pem");
    let tls = ClientTls::new().with_ca(&ca).with_server_name("localhost");
    let options = ClientOptions::default().with_tls(tls);
    let client = Client::new(config(&[&etcd.url]), "gaocache", options);
    for number in 0..20 {
        let answer = client.get("users", &format!("k{number}")).await;
        assert_eq!(
            answer.expect("a value").value,
            format!("value of k{number}")
        );
    }
    let flags = [
        "--etcd",
        &etcd.url,
        "--ca",
        &ca,
        "--server-name",
        "localhost",
    ];
    for (arguments, wanted) in [
        (&["get", "users", "a"][..], "value of a"),
        (
            &["check", "--members", "2", "--group", "users", "--key", "a"],
            "ok: 2 nodes agree",
        ),
        (&["ring", "--group", "users", "--key", "a"], "2 members"),
    ] {
        let (code, told) = command(&[arguments, &flags].concat(), &[]).await;
        assert!(
            code == Some(0) && told.contains(wanted),
            "{arguments:?}: {told}"
        );
    }
    let distrusting = ClientOptions::default().with_deadline(std::time::Duration::from_millis(500));
    let distrusting = Client::new(config(&[&etcd.url]), "gaocache", distrusting);
    let error = distrusting.get("users", "a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PeerUnreachable, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_wants_tls_asks_no_node_in_plaintext() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let _nodes = members(&["n0"], &etcd, &origin, &[]).await;
    let options = ClientOptions::default()
        .with_tls(ClientTls::new())
        .with_deadline(std::time::Duration::from_millis(500));
    let client = Client::new(config(&[&etcd.url]), "gaocache", options);
    client.wait_for_members(1).await.expect("a member");
    let error = client.get("users", "a").await.unwrap_err();
    assert!(
        error
            .message()
            .contains("has not registered that it speaks TLS"),
        "{error}"
    );
    assert_eq!(origin.loads(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_certificate_the_node_does_not_know_is_not_taken_for_gone() {
    let (origin, files, etcd) = (
        CountingOrigin::start().await,
        Files::new(),
        Etcd::start().await,
    );
    let start = |id: &str, further: &[&str]| {
        process::NodeProcess::start(id, &[&etcd.url], &origin.url(), further)
    };
    let node = start("n0", &[]);
    let secured = files.of("admin");
    let _other = start("n1", &[&secured[0], &secured[1]]);
    node.until_ring(&["n0", "n1"]).await;
    let url = format!("http://127.0.0.1:{}/forget?id=n1", node.admin);
    let refused = http().post(url).send().await.expect("an answer");
    assert_eq!(refused.status(), 400);
    let why = refused.text().await.expect("a reason");
    assert!(why.contains("answers at its admin listener"), "{why}");
}
