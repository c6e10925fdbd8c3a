//! `gaocache dev`: what it serves, where, and how it ends.

use std::{io::Read, net::TcpListener, time::Duration};

use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;

#[test]
fn dev_serves_a_folder_to_curl_from_every_node() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    assert_eq!(dev.http.len(), 3);
    // The very line that it suggests to try.
    let shown = run("sh", &["-c", &dev.try_line]);
    let shown = text(&shown.stdout);
    assert!(
        shown.starts_with("HTTP/1.1 200") && shown.ends_with("first"),
        "{shown}"
    );
    for http in &dev.http {
        let answer = run("curl", &["-sS", &format!("{http}/v1/files/deep/b.txt")]);
        assert_eq!(text(&answer.stdout), "second");
        let status = run(
            "curl",
            &[
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--path-as-is",
                &format!("{http}/v1/files/../a.txt"),
            ],
        );
        assert_eq!(text(&status.stdout), "404");
    }
    for admin in &dev.admin {
        let answer = run("curl", &["-sS", &format!("{admin}/readyz")]);
        assert_eq!(text(&answer.stdout), "ready\n");
    }
    assert!(dev.stop(), "Ctrl-C ends it well");
}

/// The first of three ports in a row that are free.
fn three_ports() -> u16 {
    let first = std::iter::repeat_with(common::etcd::free_port);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut first = first.filter(|it| *it < u16::MAX - 2 && is_free(*it + 1) && is_free(*it + 2));
    first.next().expect("there is no end to it")
}

#[test]
fn a_port_that_is_named_is_the_first_node_s_and_the_others_take_those_behind_it() {
    let (folder, first) = (folder(), three_ports());
    let listen = format!("redis.listen=127.0.0.1:{first}");
    let _dev = Dev::with(
        folder.path().to_str().expect("text"),
        &["--set", &listen],
        Stdio::inherit(),
    );
    for port in first..first + 3 {
        let redis = std::net::TcpStream::connect(("127.0.0.1", port));
        let mut redis = redis.expect("it listens");
        std::io::Write::write_all(&mut redis, b"GET files:a.txt\r\nQUIT\r\n").expect("sent");
        let mut answer = String::new();
        redis.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "$5\r\nfirst\r\n+OK\r\n");
    }
}

#[test]
fn dev_warns_of_settings_that_have_no_effect() {
    let set = [
        "dev",
        "--set",
        "cache.replicate=hot",
        "--set",
        "grpc.listen=192.0.2.1:1",
    ];
    let output = run(PROGRAM, &set);
    let log = text(&output.stdout);
    let told = text(&output.stderr);
    let place = "can't be at 192.0.2.1:1: Cannot assign requested address (os error 99); choose an \
                 address of this machine";
    assert!(told.contains(place), "{told}");
    assert!(
        log.contains("check this setting setting=\"cache.replicate\""),
        "{log}"
    );
}

/// Keys and groups in the hints are those that work, in a shell and in a URL.
#[test]
fn the_hints_of_dev_work_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a b?'c.txt"), "odd").expect("written");
    let dev = Dev::start(folder.path());
    let hints = dev.hints.clone();
    let get = hints.iter().find(|it| it.contains(" get ")).expect("a get");
    assert!(get.starts_with(PROGRAM), "{get}");
    assert_eq!(text(&run("sh", &["-c", get]).stdout), "odd");
    let shown = text(&run("sh", &["-c", &dev.try_line]).stdout);
    assert!(shown.ends_with("odd"), "{shown}");
    let ring = hints
        .iter()
        .find(|it| it.contains(" ring "))
        .expect("a ring");
    assert!(text(&run("sh", &["-c", ring]).stdout).contains("3 members"));
    drop(dev);

    let groups = format!(
        "groups=[{{ name = \"other\", origin = {{ kind = \"file\", path = {:?} }} }}]",
        folder.path()
    );
    let dev = Dev::with("/", &["--set", &groups], Stdio::inherit());
    assert!(
        dev.try_line.contains("/v1/other/a%20b%3F%27c.txt"),
        "{}",
        dev.try_line
    );
}

#[test]
fn dev_blames_the_flag_that_is_wrong() {
    let output = run(PROGRAM, &["dev", "--origin", "/no/such/folder"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(
        told.contains("[flag --origin]") && !told.contains("--set"),
        "{told}"
    );
}

/// The ports that the README names.
const USUAL: [u16; 3] = [7070, 8080, 9090];

/// Holds a port. A test beside this one may have it for a moment. If a program keeps it for good,
/// that does as well.
async fn held(port: u16) -> Option<TcpListener> {
    let free = async {
        loop {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                return listener;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .ok()
}

#[tokio::test]
async fn dev_says_when_it_is_not_where_the_readme_says() {
    let mut held_ports = Vec::new();
    for port in USUAL {
        held_ports.push(held(port).await);
    }
    let folder = folder();
    let mut dev = Dev::with(folder.path().to_str().expect("text"), &[], Stdio::piped());
    let mut errors = dev.child.stderr.take().expect("piped");
    let there = dev.http[0].clone();
    assert!(dev.stop());
    let mut told = String::new();
    errors.read_to_string(&mut told).expect("text");
    assert!(!there.ends_with(":8080"), "{there}");
    assert!(
        told.contains(
            "dev-0 takes free ports instead of the usual ones: the gRPC listener can't be at \
             127.0.0.1:7070"
        ),
        "{told}"
    );
}

#[test]
fn dev_ends_at_once_although_a_request_is_open() {
    let origin = SilentOrigin::start();
    let groups = format!(
        "groups=[{{ name = \"web\", origin = {{ kind = \"http\", timeout_seconds = 3600, url = \"http://{}/{{key}}\" }} }}]",
        origin.address
    );
    let patient = [
        "--set",
        "node.drain_timeout_seconds=3600",
        "--set",
        "node.shutdown_timeout_seconds=3600",
        "--set",
        &groups,
    ];
    let dev = Dev::with(".", &patient, Stdio::inherit());
    let mut asking = Command::new("curl")
        .args(["-s", &format!("{}/v1/web/k", dev.http[0])])
        .spawn()
        .expect("curl starts");
    origin.is_asked();
    assert!(dev.stop(), "Ctrl-C ends it well");
    ended(&mut asking);
}

/// protoc-gen-go refuses a file that doesn't say.
#[tokio::test]
async fn the_protos_name_their_go_package() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", dev.grpc[0]));
    let channel = endpoint.expect("a URL").connect().await.expect("connects");
    let mut client = ServerReflectionClient::new(channel);
    for file in ["cache", "peer"] {
        let name = format!("gaocache/v1/{file}.proto");
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileByFilename(name)),
        };
        let answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await;
        let answer = answers.expect("answers").into_inner().message().await;
        let answer = answer.expect("no error").expect("an answer");
        let Some(MessageResponse::FileDescriptorResponse(found)) = answer.message_response else {
            panic!("{answer:?}");
        };
        assert!(
            text(&found.file_descriptor_proto[0]).contains("gaocache/v1;gaocachev1"),
            "{file}"
        );
    }
}

#[test]
fn a_line_of_dev_says_which_node_and_which_key() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/{{key}}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let mut dev = Dev::with(
        &url,
        &["--set", "groups[0].origin.retries=0"],
        Stdio::inherit(),
    );
    run("curl", &["-s", &format!("{}/v1/web/the-key", dev.http[1])]);
    kill("-INT", &dev.child);
    let mut told = String::new();
    dev.output.read_to_string(&mut told).expect("text");
    let line = told
        .lines()
        .find(|line| line.contains("loading from the origin failed"));
    let line = line.unwrap_or_else(|| panic!("{told}"));
    for part in ["group=web", "key=\"the-key\"", "node=dev-"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}
