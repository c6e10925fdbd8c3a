//! The audit of a node that runs.

use std::{fs, path::Path};

use gaocache::internal::wire::{PurgeRequest, RemoveRequest, cache_client::CacheClient};
use serde_json::{Value, json};

use crate::{
    calls::{Call, Listener, channel, make, with},
    common::{CountingOrigin, joining},
    line,
    redis::Typed,
};
use gaocache::Registry;
use tokio::net::TcpStream;

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("written");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[tokio::test]
async fn the_audit_tells_who_changed_what_and_who_was_refused() {
    let origin = CountingOrigin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (tokens, audit) = (folder.path().join("tokens"), folder.path().join("audit"));
    let socket = folder.path().join("admin.sock");
    fs::write(&tokens, line("ci", "t-ci", "remove users")).expect("written");
    let further = [
        "auth.anonymous=read".into(),
        "redis.listen=127.0.0.1:0".into(),
        format!("auth.token_file={}", tokens.display()),
        format!("log.audit={}", audit.display()),
        format!("admin.socket={}", socket.display()),
    ];
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let node = joining(&Registry::memory(), "n0", &origin.url(), &further).await;
    let grpc = Listener::Grpc(node.addresses.grpc.port());
    let mut client = CacheClient::new(channel(&grpc).await);
    let odd = "4\n2\u{1b}[2J\u{202e}";
    let request = RemoveRequest {
        group: "users".into(),
        key: odd.into(),
    };
    client
        .remove(with(Some("t-ci"), request))
        .await
        .expect("removed");
    let request = PurgeRequest {
        group: "users".into(),
    };
    let refused = client.purge(with(Some("t-ci"), request)).await;
    assert!(refused.is_err());
    let admin = Listener::Admin(node.addresses.admin.port());
    make(&admin, Call::Path("PUT", "/log?level=warn"), "", None).await;
    let local = Listener::Socket(socket);
    make(&local, Call::Path("PUT", "/log?level=info"), "", None).await;
    make(&local, Call::Purge, "nothing", None).await;
    let redis = node.addresses.redis.expect("it listens");
    let redis = TcpStream::connect(redis).await.expect("connects");
    let refused = Typed::new(redis).answer("AUTH guess").await;
    assert_eq!(refused, "-WRONGPASS the bearer token is not known");
    // Gets are no changes.
    make(&grpc, Call::Get, "users", None).await;
    // What waits is written before the node ends.
    node.stopped().await;

    check(&audit, odd);
}

/// What the audit is to tell of it.
fn check(audit: &Path, odd: &str) {
    let lines = lines(audit);
    let told: Vec<Value> = lines
        .iter()
        .map(|it| json!([it["audit"], it["who"], it["outcome"], it["group"]]))
        .collect();
    let ci = json!({ "kind": "token", "name": "ci" });
    assert_eq!(
        told,
        [
            json!(["remove", ci, "ok", "users"]),
            json!(["purge", ci, "refused", "users"]),
            json!(["log_level", { "kind": "anonymous" }, "refused", null]),
            // The log of the test's process is not the node's.
            json!(["log_level", { "kind": "socket" }, "invalid_request", null]),
            json!(["purge", { "kind": "socket" }, "unknown_group", "nothing"]),
            json!(["login", { "kind": "anonymous" }, "refused", null]),
        ]
    );
    assert_eq!(lines[0]["key"], odd);
    assert!(lines[0]["from"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(lines[0]["node"], "n0");
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&lines[1]["reason"], &lines[1]["role"]),
        (&json!("denied"), &json!("purge"))
    );
    assert_eq!(
        (&lines[3]["from"], &lines[3]["level"]),
        (&json!("socket"), &json!("info"))
    );
    assert!(lines[3]["uid"].is_u64());
    assert_eq!(
        (&lines[5]["reason"], &lines[5]["role"]),
        (&json!("unauthenticated"), &Value::Null)
    );
    let text = fs::read_to_string(audit).expect("written");
    assert!(
        !text.contains("t-ci") && !text.contains("guess"),
        "the token itself is never told"
    );
    let rules = |it: char| it != '\n' && (it.is_control() || it == '\u{202e}');
    assert!(!text.contains(rules), "{text:?}");
}
