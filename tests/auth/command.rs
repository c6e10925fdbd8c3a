//! The command line: which token it sends, and what it says where one is missing.

use std::{fs, process::Output};

use crate::{
    common::{CountingOrigin, TestNode, joining},
    line,
};
use gaocache::Registry;

async fn run(arguments: Vec<String>, variables: Vec<(&'static str, String)>) -> Output {
    let run = move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_gaocache"))
            .args(arguments)
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .envs(variables)
            .output()
            .expect("runs")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn node(folder: &std::path::Path) -> (TestNode, String) {
    let origin = CountingOrigin::start().await;
    let tokens = folder.join("tokens");
    let granted = line("ci", "t-ci", "remove users") + &line("ops", "t-ops", "admin,purge");
    fs::write(&tokens, granted).expect("written");
    let socket = folder.join("admin.sock").display().to_string();
    let further = [
        "auth.anonymous=".into(),
        format!("auth.token_file={}", tokens.display()),
        format!("admin.socket={socket}"),
    ];
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let node = joining(&Registry::memory(), "n0", &origin.url(), &further).await;
    (node, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_sends_the_token_of_a_flag_a_file_or_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, _) = node(folder.path()).await;
    let remove = format!("remove users k --target {}", node.addresses.grpc);
    let refused = run(words(&remove), vec![]).await;
    assert_eq!(refused.status.code(), Some(1));
    let hint = told(&refused);
    for part in [
        "role 'remove'",
        "'users'",
        "--token-file",
        "GAOCACHE_TOKEN",
        "--socket",
    ] {
        assert!(hint.contains(part), "{hint}");
    }
    let file = folder.path().join("token");
    fs::write(&file, "t-ci\n").expect("written");
    let by_file = format!("{remove} --token-file {}", file.display());
    let by_flag = format!("{remove} --token t-ci");
    for good in [by_file, by_flag] {
        let output = run(words(&good), vec![]).await;
        assert!(output.status.success(), "{good}: {}", told(&output));
    }
    let by_variable = run(words(&remove), vec![("GAOCACHE_TOKEN", "t-ci".into())]).await;
    assert!(by_variable.status.success(), "{}", told(&by_variable));

    let purge = format!("purge users --token t-ci --target {}", node.addresses.grpc);
    let denied = run(words(&purge), vec![]).await;
    let hint = told(&denied);
    assert!(hint.contains("'ci' lacks the role 'purge'"), "{hint}");
    let log = format!("log debug --admin {}", node.addresses.admin);
    let refused = run(words(&log), vec![]).await;
    assert!(
        told(&refused).contains("role 'admin'"),
        "{}",
        told(&refused)
    );
    let allowed = run(words(&format!("{log} --token t-ops")), vec![]).await;
    // The test's process has no log of gaocache's; the call itself was allowed.
    assert!(!told(&allowed).contains("role"), "{}", told(&allowed));
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_context_goes_to_its_own_nodes_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, _) = node(folder.path()).await;
    let contexts = folder.path().join("gaocache");
    fs::create_dir(&contexts).expect("made");
    let target = node.addresses.grpc;
    let context =
        format!("current = \"a\"\n[contexts.a]\ntarget = \"{target}\"\ntoken = \"t-ci\"\n");
    fs::write(contexts.join("config.toml"), context).expect("written");
    let home = || vec![("XDG_CONFIG_HOME", folder.path().display().to_string())];
    let own = run(words("remove users k"), home()).await;
    assert!(own.status.success(), "{}", told(&own));
    let named = run(words(&format!("remove users k --target {target}")), home()).await;
    assert_eq!(named.status.code(), Some(1), "{}", told(&named));
    let mut other = home();
    other.push(("GAOCACHE_TARGET", target.to_string()));
    let other = run(words("remove users k"), other).await;
    assert_eq!(other.status.code(), Some(1), "{}", told(&other));
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_needs_nothing_and_is_found_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (node, socket) = node(folder.path()).await;
    for command in [
        "get users k",
        "remove users k",
        "purge users",
        "explain users k",
    ] {
        let named = run(words(&format!("{command} --socket {socket}")), vec![]).await;
        assert!(named.status.success(), "{command}: {}", told(&named));
        let found = run(words(command), vec![("GAOCACHE_SOCKET", socket.clone())]).await;
        assert!(found.status.success(), "{command}: {}", told(&found));
    }
    // Whoever names a node means that node.
    let target = node.addresses.grpc;
    let named = format!("purge users --target {target}");
    let named = run(words(&named), vec![("GAOCACHE_SOCKET", socket.clone())]).await;
    assert_eq!(named.status.code(), Some(1), "{}", told(&named));
    node.stopped().await;
}
