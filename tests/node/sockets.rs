//! Which thread polls a client's socket.
#![cfg(target_os = "linux")]

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::PathBuf,
};

use super::common::{get_request as get, *};

/// The descriptors that each epoll instance of this process watches.
fn watched() -> Vec<HashSet<u32>> {
    let of = |fd: &str| {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.strip_prefix("tfd:"));
        let fds = lines.map(|it| it.split_whitespace().next().unwrap().parse().unwrap());
        fds.collect()
    };
    let epolls = descriptors().into_iter();
    epolls
        .filter(|(_, target)| target == "anon_inode:[eventpoll]")
        .map(|(fd, _)| of(&fd.to_string()))
        .collect()
}

/// All descriptors of this process, and what they are.
fn descriptors() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let paths = entries.map(|it| it.unwrap().path());
    let target = |path: &PathBuf| fs::read_link(path).map(|it| it.display().to_string());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    paths
        .filter_map(|path| Some((number(&path)?, target(&path).ok()?)))
        .collect()
}

/// The descriptors of TCP sockets with this local port: those that listen, and those of clients.
fn sockets(port: u16) -> (HashSet<u32>, HashSet<u32>) {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut states = HashMap::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields[1].ends_with(&format!(":{port:04X}")) {
            states.insert(format!("socket:[{}]", fields[9]), fields[3].to_owned());
        }
    }
    let of = |wanted: &str| {
        let has = |target: &String| states.get(target).is_some_and(|state| state == wanted);
        let found = descriptors().into_iter().filter(|(_, target)| has(target));
        found.map(|(fd, _)| fd).collect()
    };
    (of("0A"), of("01"))
}

#[tokio::test]
async fn the_thread_that_serves_a_client_polls_its_socket_and_the_control_thread_does_not() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &[]).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = nodes[0].client().await;
        client.get(get("alice")).await.expect("a value");
        clients.push(client);
    }
    let http = http();
    let answer = http.get(nodes[0].http("/v1/users/alice")).send().await;
    assert_eq!(answer.unwrap().status(), 200);
    for (port, count) in [
        (nodes[0].addresses.grpc.port(), 8),
        (nodes[0].addresses.http.port(), 1),
    ] {
        let (listening, accepted) = sockets(port);
        assert_eq!((listening.len(), accepted.len()), (1, count));
        let (control, workers): (Vec<_>, Vec<_>) = watched()
            .into_iter()
            .partition(|fds| !fds.is_disjoint(&listening));
        assert!(!control.is_empty());
        assert!(control.iter().all(|fds| fds.is_disjoint(&accepted)));
        let by_workers: HashSet<u32> = workers.into_iter().flatten().collect();
        assert!(accepted.is_subset(&by_workers));
    }
}
