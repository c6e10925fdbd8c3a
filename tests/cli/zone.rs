//! The zone of a node: from the Kubernetes API by an init container, through a file.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use super::{
    PROGRAM, run,
    settings::{refused, shown},
    text,
};

/// A Kubernetes API that answers one request so, and tells its head.
fn api(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a request");
        let lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
        let lines = lines.map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        stream.write_all(answer.as_bytes()).expect("answered");
        head.join("\n").to_lowercase()
    });
    (url, asked)
}

const LABELLED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 75\r\n\r\n\
     {\"metadata\":{\"labels\":{\"topology.kubernetes.io/zone\":\"eu-1a\",\"other\":\"x\"}}}";
const UNLABELLED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"metadata\":{}}";
const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";

#[test]
fn the_zone_of_a_machine_is_asked_for_with_the_account_s_token_and_read_from_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    fs::write(path("token"), "secret\n").expect("written");
    let ask = |answer| {
        let (url, asked) = api(answer);
        let (credentials, output) = (path(""), path("zone"));
        let places = ["--credentials", &credentials, "--output", &output];
        let named = ["zone", "--node", "worker-1.example", "--api", &url];
        let output = run(PROGRAM, &[&named[..], &places[..]].concat());
        let code = output.status.code();
        (code, text(&output.stderr), asked.join().expect("asked"))
    };
    let (code, told, asked) = ask(LABELLED);
    assert_eq!((code, &*told), (Some(0), ""), "{asked}");
    assert!(
        asked.starts_with("get /api/v1/nodes/worker%2d1%2eexample http/1.1"),
        "{asked}"
    );
    for header in ["authorization: bearer secret", "as=partialobjectmetadata"] {
        assert!(asked.contains(header), "{asked}");
    }
    let file = format!("node.zone_file={}", path("zone"));
    let read = fs::read_to_string(path("zone")).expect("written");
    assert_eq!(read, "eu-1a");
    shown("", &["registry.kind=memory", &file], &[]);

    let (code, told, _) = ask(UNLABELLED);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("has no label topology.kubernetes.io/zone"),
        "{told}"
    );
    assert_eq!(fs::read_to_string(path("zone")).expect("written"), "");
    shown("", &["registry.kind=memory", &file], &[]);

    let (code, told, _) = ask(FORBIDDEN);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("worker-1.example") && told.contains("403"),
        "{told}"
    );
}

#[test]
fn a_file_that_can_hold_no_zone_is_refused_and_so_are_two_zones() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("zone");
    let file = format!("node.zone_file={}", path.display());
    let told = refused("", &["registry.kind=memory", &file], &[]);
    assert!(told.contains("node.zone_file"), "{told}");
    for wrong in ["a\nb", &"z".repeat(300)] {
        fs::write(&path, wrong).expect("written");
        let told = refused("", &["registry.kind=memory", &file], &[]);
        assert!(told.contains("one line of at most 256 bytes"), "{told}");
    }
    fs::write(&path, "eu-1a").expect("written");
    let told = refused("", &["registry.kind=memory", "node.zone=b", &file], &[]);
    assert!(
        told.contains("either node.zone or node.zone_file"),
        "{told}"
    );
}
