//! How errors are told: to a script as JSON, to a person without anything that rules the terminal.

use axum::{Router, http::StatusCode};

use super::{calls::on, *};

/// A script can tell what a person reads.
#[test]
fn json_errors_have_the_kind_of_the_node_s_answer() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    for (arguments, kind, code) in [
        (["get", "nope", "k", "--json"], "unknown_group", 1),
        (["get", "files", "nope", "--json"], "not_found", 3),
        (["remove", "files", "", "--json"], "invalid_request", 1),
    ] {
        let output = on(&arguments, &dev.grpc[0]);
        let told: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
        assert_eq!(
            (&told["error"], &told["exit_code"]),
            (&kind.into(), &code.into()),
            "{told}"
        );
    }
    for (arguments, kind) in [
        (&["explain", "nope", "k"][..], "unknown_group"),
        (&["log", "bogus"], "invalid_request"),
        (&["reload"], "invalid_request"),
    ] {
        let admin = bare(&dev.admin[0]);
        let output = run(
            PROGRAM,
            &[arguments, &["--json", "--admin", admin]].concat(),
        );
        assert_eq!(output.status.code(), Some(1));
        let told: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
        assert_eq!(told["error"], kind, "{told}");
    }
    let output = on(&["get", "files", "a.txt", "--json"], "127.0.0.1:1");
    let told: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(told["error"], "failed", "no node has answered");
}

async fn odd_answer() -> (StatusCode, [(&'static str, &'static str); 1], &'static str) {
    let body = r#"{"error":"unknown_group","message":"no \u001b[2J\u0007 group"}"#;
    (
        StatusCode::NOT_FOUND,
        [("gaocache-error", "unknown_group")],
        body,
    )
}

/// What is at the other end may be anything.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_node_says_rules_the_terminal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let admin = listener.local_addr().expect("bound").to_string();
    let served = axum::serve(listener, Router::new().fallback(odd_answer));
    let served = tokio::spawn(served.into_future());
    let explain = ["explain", "g", "k", "--admin", &admin];
    let output = tokio::task::block_in_place(|| run(PROGRAM, &explain));
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("no \\u{1b}[2J\\u{7} group"), "{told}");
    let json = [&explain[..], &["--json"]].concat();
    let output = tokio::task::block_in_place(|| run(PROGRAM, &json));
    let told: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert!(told["message"].to_string().contains("\\u001b[2J"), "{told}");
    served.abort();
}

/// The origin never answers; the command gives up at its own limit.
#[test]
fn a_person_who_has_to_wait_is_told_for_what_and_a_script_is_not() {
    let origin = SilentOrigin::start();
    let url = format!("http://{}/{{key}}", origin.address);
    let patient = ["--set", "groups[0].origin.timeout_seconds=60"];
    let dev = Dev::with(&url, &patient, Stdio::inherit());
    let target = &dev.grpc[0];
    let get = format!("{PROGRAM} get web k --timeout 4 --target {target}");
    let told = text(&run("script", &["-qec", &get, "/dev/null"]).stdout);
    assert!(
        told.contains("still waiting for the value; Ctrl-C gives up"),
        "{told}"
    );
    assert!(told.contains("no answer within 4 s (--timeout)"), "{told}");
    let piped = run("sh", &["-c", &get]);
    assert!(!text(&piped.stderr).contains("still waiting"), "{piped:?}");
}

fn bare(url: &str) -> &str {
    url.trim_start_matches("http://")
}
