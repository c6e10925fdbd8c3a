//! The commands that find the nodes in etcd.

use gaocache_testing::SecuredEtcd;

use super::*;
use common::{
    CountingOrigin,
    etcd::Etcd,
    process::{NodeProcess, agree},
};

/// Exit code, standard output and standard error.
fn told(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(PROGRAM, arguments);
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_logs_in_to_etcd() {
    let (etcd, origin) = (SecuredEtcd::start().await, CountingOrigin::start().await);
    etcd.demand_a_password().await;
    let path = |name: &str| etcd.file(name).display().to_string();
    let files = [
        path("ca.pem"),
        path("client.pem"),
        path("client.key"),
        path("password"),
    ];
    let settings: Vec<String> = ["tls.ca", "tls.cert", "tls.key", "password_file"]
        .iter()
        .zip(&files)
        .map(|(name, file)| format!("registry.etcd.{name}={file}"))
        .collect();
    let mut further: Vec<&str> = settings.iter().map(String::as_str).collect();
    further.push("registry.etcd.username=root");
    let node = NodeProcess::start("n0", &[etcd.url()], &origin.url(), &further);
    node.until_ready().await;

    let tls = [
        "--etcd-ca",
        &files[0],
        "--etcd-cert",
        &files[1],
        "--etcd-key",
        &files[2],
    ];
    let user = ["--etcd-user", "root", "--etcd-password-file", &files[3]];
    for command in [
        &["get", "users", "alice"][..],
        &["remove", "users", "alice"],
        &["purge", "users"],
        &["ring"],
        &["check"],
    ] {
        let all = [command, &["--etcd", etcd.url()], &tls, &user].concat();
        let (code, shown, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(0), "{command:?}: {shown}{errors}");
        let unknown = [command, &["--etcd", etcd.url()], &tls].concat();
        let (code, shown, errors) = tokio::task::block_in_place(|| told(&unknown));
        assert_eq!(code, Some(1), "{command:?}: {shown}{errors}");
        assert!(
            errors.contains("etcd: ") && errors.contains("permission denied"),
            "{errors}"
        );
        assert!(!errors.contains("no node"), "{errors}");
    }
    let alone = ["ring", "--etcd", etcd.url(), "--etcd-user", "root"];
    assert_eq!(
        tokio::task::block_in_place(|| told(&alone)).0,
        Some(2),
        "without a password"
    );
    let missing = ["ring", "--etcd", etcd.url(), "--etcd-ca", "/no/such/ca.pem"];
    let (code, _, errors) = tokio::task::block_in_place(|| told(&missing));
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("--etcd-ca /no/such/ca.pem: the file can't be read"),
        "{errors}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_sees_that_groups_differ() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let node =
        |id: &str, further: &[&str]| NodeProcess::start(id, &[&etcd.url], &origin.url(), further);
    let mut nodes = vec![node("n0", &[]), node("n1", &["groups[0].ttl_seconds=60"])];
    agree(&nodes).await;
    let check = || tokio::task::block_in_place(|| told(&["check", "--etcd", &etcd.url]));
    let (code, shown, errors) = check();
    assert_eq!(code, Some(1), "{shown}");
    let expected = "n0 and n1 have different groups: ttl_seconds of 'users' is 600 and 60";
    assert!(errors.contains(expected), "{errors}");
    let json = ["check", "--json", "--etcd", &etcd.url];
    let (_, shown, _) = tokio::task::block_in_place(|| told(&json));
    let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(json["ok"], false);
    assert_eq!(json["nodes"].as_array().expect("a list").len(), 2);
    nodes[1].terminate().await;
    nodes[1] = node("n1", &[]);
    agree(&nodes).await;
    let (code, shown, errors) = check();
    assert_eq!(code, Some(0), "{shown}{errors}");
}

#[test]
fn an_etcd_that_is_away_is_told_as_such() {
    for command in [
        &["get", "users", "alice"][..],
        &["purge", "users"],
        &["ring"],
        &["check"],
    ] {
        let all = [command, &["--etcd", "http://127.0.0.1:1"]].concat();
        let (code, shown, errors) = told(&all);
        assert_eq!(code, Some(1), "{command:?}: {shown}");
        assert!(
            errors.starts_with("gaocache: etcd: "),
            "{command:?}: {errors}"
        );
        assert!(!errors.contains("no node"), "{command:?}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_ring_is_a_failure() {
    let etcd = Etcd::start().await;
    for command in [
        &["get", "users", "alice"][..],
        &["ring"],
        &["ring", "--json"],
    ] {
        let all = [command, &["--etcd", &etcd.url, "--service", "nobody"]].concat();
        let (code, _, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(1), "{command:?}: {errors}");
        assert!(
            errors.contains("no node is registered as 'nobody' in etcd"),
            "{errors}"
        );
    }
}
