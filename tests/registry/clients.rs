//! The command line and the client, which find the nodes in etcd.

use std::io::{BufRead, BufReader};

use gaocache::{Client, ClientOptions, ErrorKind};

use super::{common::etcd::config, *};

/// The exit code and the output of a command that finds the nodes in etcd.
async fn command(etcd: &Etcd, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gaocache"));
    command.args(arguments).args(["--etcd", &etcd.url]);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = within("the command", output).await.unwrap().expect("runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_asks_the_cluster_through_etcd() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let _nodes = nodes(2, &etcd, &origin).await;
    let run = async |arguments: &[&str]| command(&etcd, arguments).await;
    assert_eq!(
        run(&["get", "users", "alice"]).await,
        (Some(0), "value of alice".into())
    );
    assert_eq!(run(&["get", "users", "missing"]).await.0, Some(3));
    let (_, ring) = run(&["ring", "--key", "alice", "--group", "users"]).await;
    assert!(
        ring.contains("2 members") && ring.contains("owner in group users: n"),
        "{ring}"
    );
    assert_eq!(run(&["remove", "users", "alice"]).await.0, Some(0));
    assert_eq!(run(&["get", "users", "alice"]).await.0, Some(0));
    assert_eq!(origin.loads_of("alice"), 2);
    let (code, purged) = run(&["purge", "users"]).await;
    assert_eq!(code, Some(0), "{purged}");

    let (code, checked) = run(&[
        "check",
        "--members",
        "2",
        "--group",
        "users",
        "--key",
        "alice",
    ])
    .await;
    assert_eq!(code, Some(0), "{checked}");
    assert!(checked.ends_with("ok: 2 nodes agree\n"), "{checked}");
    let (code, checked) = run(&["check", "--members", "3"]).await;
    assert_eq!(code, Some(1));
    assert!(
        checked.contains("etcd has 2 registered nodes, expected 3"),
        "{checked}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_is_watched_as_it_changes_and_a_member_that_is_not_there_is_found() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let nodes = nodes(2, &etcd, &origin).await;
    let admin = nodes[0].addresses.admin.to_string();
    let mut watching = std::process::Command::new(env!("CARGO_BIN_EXE_gaocache"))
        .args(["ring", "--watch", "--json", "--admin", &admin])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let mut members = || {
        let line = lines.next().expect("a line").expect("readable");
        let ring: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        ring["members"].as_array().expect("a list").len()
    };
    // Reading blocks, and the nodes of this test must go on meanwhile.
    assert_eq!(tokio::task::block_in_place(&mut members), 2);
    // One that is registered and not there.
    let mut client = etcd.client().await;
    client
        .put("gaocache/ghost", "127.0.0.1:1", None)
        .await
        .unwrap();
    assert_eq!(tokio::task::block_in_place(&mut members), 3);
    watching.kill().expect("killed");
    watching.wait().expect("ends");
    let (code, checked) = command(&etcd, &["check"]).await;
    assert_eq!(code, Some(1));
    assert!(checked.contains("ghost at 127.0.0.1:1"), "{checked}");
}

#[tokio::test]
async fn a_client_gets_many_keys_from_their_owners_and_an_error_of_its_own_for_each() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let nodes = nodes(3, &etcd, &origin).await;
    let client = Client::new(config(&[&etcd.url]), "gaocache", ClientOptions::default());
    within("the nodes", client.wait_for_members(3))
        .await
        .unwrap();
    let more = within("more than two", client.wait_for_members(2)).await;
    more.unwrap();
    let mut keys: Vec<String> = (0..1_000).map(|number| format!("user-{number}")).collect();
    keys.extend(["missing", "", "user-7"].map(str::to_owned));
    let read = async || within("the answers", client.get_many("users", &keys)).await;
    let answers = read().await;
    assert_eq!(answers.len(), keys.len());
    for (key, answer) in keys.iter().zip(answers) {
        match (&**key, answer) {
            ("missing", answer) => assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotFound),
            ("", answer) => assert_eq!(answer.unwrap_err().kind(), ErrorKind::InvalidRequest),
            (key, answer) => assert_eq!(answer.unwrap().value, format!("value of {key}")),
        }
    }
    assert_eq!(origin.loads(), 1_001);
    // Each came from its owner: no node asked a peer.
    for node in &nodes {
        let fetches = common::metric(node, "gaocache_peer_fetches_total", &[]).await;
        assert_eq!(fetches, 0.0);
    }
    // A member that owns a share of the keys but is not there: others stand in for it.
    let mut etcd_client = etcd.client().await;
    let ghost = etcd_client.put("gaocache/ghost", "127.0.0.1:1", None);
    ghost.await.unwrap();
    within("the ghost", client.wait_for_members(4))
        .await
        .unwrap();
    let values = read().await.into_iter().filter(Result::is_ok).count();
    assert_eq!(values, 1_001);
}
