//! The file of tokens, while a node runs.

use std::fs;

use crate::{
    calls::{Call, Listener, Verdict, make},
    common::{CountingOrigin, TestNode, joining, metric, within},
    line,
};
use gaocache::Registry;

async fn until(node: &TestNode, token: &str, wanted: Verdict) {
    let listener = Listener::Grpc(node.addresses.grpc.port());
    within("the token to be looked at", async {
        while make(&listener, Call::Purge, "users", Some(token)).await != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn tokens_are_rotated_and_taken_back_while_a_node_runs_and_a_broken_file_changes_nothing() {
    let origin = CountingOrigin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens");
    fs::write(&file, line("ci", "old", "purge")).expect("written");
    let tokens = format!("auth.token_file={}", file.display());
    let further = ["auth.anonymous=read", tokens.as_str()];
    let node = joining(&Registry::memory(), "n0", &origin.url(), &further).await;
    until(&node, "old", Verdict::Allowed).await;
    until(&node, "new", Verdict::Unauthenticated).await;

    let both = line("ci", "old", "purge") + &line("ci", "new", "purge");
    fs::write(&file, both).expect("written");
    until(&node, "new", Verdict::Allowed).await;
    until(&node, "old", Verdict::Allowed).await;

    fs::write(&file, "ci no-hash purge\n").expect("written");
    let stale = || metric(&node, "gaocache_auth_source_stale", &["tokens"]);
    within("the broken file to be seen", async {
        while stale().await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    until(&node, "new", Verdict::Allowed).await;

    fs::write(
        &file,
        line("ci", "new", "purge") + &line("other", "old", "read"),
    )
    .expect("written");
    until(&node, "old", Verdict::Denied).await;
    fs::write(&file, line("ci", "new", "purge")).expect("written");
    until(&node, "old", Verdict::Unauthenticated).await;
    until(&node, "new", Verdict::Allowed).await;
    assert_eq!(stale().await, 0.0);
    node.stopped().await;
}
