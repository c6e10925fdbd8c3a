//! `gaocache explain`, and the log of requests.

use serde_json::Value;

use super::{serve::Serve, *};
use common::{
    CountingOrigin,
    etcd::Etcd,
    process::{NodeProcess, agree},
};

fn explained(arguments: &[&str]) -> (Option<i32>, String, String) {
    let all = [&["explain", "users"], arguments].concat();
    let output = tokio::task::block_in_place(|| run(PROGRAM, &all));
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn json(arguments: &[&str]) -> Value {
    let (code, shown, errors) = explained(&[arguments, &["--json"]].concat());
    assert_eq!(code, Some(0), "{errors}");
    serde_json::from_str(&shown).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_waited_for_no_longer_than_it_says() {
    let frozen = SilentOrigin::start();
    let (code, _, told) = explained(&["k", "--admin", &frozen.address.to_string()]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("no answer within 10 s"), "{told}");
}

/// Two nodes, each key at both, and a key that the second one owns.
struct Two {
    nodes: Vec<NodeProcess>,
    origin: CountingOrigin,
    key: String,
    /// The admin address of the first one, which is asked.
    admin: String,
    /// The key's URL there.
    url: String,
    _etcd: Etcd,
}

impl Two {
    async fn start() -> Self {
        let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
        let node = |id: &str, zone: &str| {
            NodeProcess::start(id, &[&etcd.url], &origin.url(), &[zone, "cache.replicas=2"])
        };
        let nodes = vec![node("n0", "node.zone=a"), node("n1", "node.zone=b")];
        agree(&nodes).await;
        let key = nodes[1].own_keys(1).await.remove(0);
        Self {
            admin: format!("127.0.0.1:{}", nodes[0].admin),
            url: format!("http://127.0.0.1:{}/v1/users/{key}", nodes[0].http),
            _etcd: etcd,
            nodes,
            origin,
            key,
        }
    }

    /// The value's `ETag`.
    async fn get(&self) -> String {
        let answer = common::http().get(&self.url).send().await;
        let answer = answer.expect("answers");
        assert_eq!(answer.status(), 200);
        answer.headers()["etag"].to_str().expect("text").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_explained_at_the_node_that_is_asked_and_at_its_owner() {
    let two = Two::start().await;
    let on = [two.key.as_str(), "--admin", &two.admin];
    let before = json(&on);
    assert_eq!(before["asked"]["held"].to_string(), "[]");
    assert_eq!(before["asked"]["last_miss"], Value::Null);
    let etag = two.get().await;
    let after = json(&on);
    let (asked, owner) = (&after["asked"], &after["owner"]);
    assert_eq!(asked["node"], "n0");
    let (id, zone) = (&asked["owner"]["id"], &asked["owner"]["zone"]);
    assert_eq!((id, zone), (&"n1".into(), &"b".into()));
    assert_eq!(asked["replica"]["id"], "n0");
    // The owner has it, and the age follows from the remaining lifetime.
    let held = owner["held"].as_array().expect("a list");
    let held = held.iter().find(|it| it["node"] == "n1");
    let held = held.expect("the owner");
    assert_eq!(held["bytes"], format!("value of {}", two.key).len());
    assert_eq!(
        (&held["etag"], &held["tags"]),
        (&etag.as_str().into(), &0.into())
    );
    let (_, shown, _) = explained(&on);
    assert!(shown.contains(&format!(" bytes, etag {etag}, ")), "{shown}");
    assert!(
        held["age_seconds"].as_f64().expect("known") < 60.0,
        "{held}"
    );
    assert!(
        held["ttl_remaining_seconds"].as_f64().expect("known") > 500.0,
        "{held}"
    );
    assert!(held["uses"].is_u64(), "{held}");
    assert_eq!(owner["last_load"]["outcome"], "ok");
    assert_eq!(asked["last_miss"]["outcome"], "origin");
    assert_eq!(
        two.origin.loads_of(&two.key),
        1,
        "nobody loads in order to explain"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_reads_why_a_key_is_not_in_memory() {
    let two = Two::start().await;
    two.get().await;
    let removed = common::http().delete(&two.url).send().await;
    assert_eq!(removed.expect("answers").status(), 204);
    let (code, shown, errors) = explained(&[&two.key, "--admin", &two.admin]);
    assert_eq!(code, Some(0), "{errors}");
    for part in [
        "owner      n1 in zone b, at 127.0.0.1:",
        "replica    n0 in zone a",
        "held       no node that was asked holds this key",
        "(at n1)",
        "n1: removed recently, so only the origin is trusted",
        "n1: no longer in memory: removed, purged or handed over",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (code, _, errors) = explained(&["", "--admin", &two.admin]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("the key is empty"), "{errors}");
    let unknown = ["explain", "nope", "k", "--admin", &two.admin, "--json"];
    let output = tokio::task::block_in_place(|| run(PROGRAM, &unknown));
    let error: Value = serde_json::from_slice(&output.stderr).expect("an error as JSON");
    assert_eq!(
        (&error["error"], &error["exit_code"]),
        (&"unknown_group".into(), &1.into())
    );
    let message = error["message"].to_string();
    assert!(message.contains("no group 'nope'"), "{error}");
    assert_eq!(two.nodes.len(), 2);
}

#[test]
fn the_size_of_a_compressed_value_is_told_with_what_it_takes() {
    let folder = folder();
    fs::write(folder.path().join("long"), "x".repeat(100_000)).expect("written");
    let groups = format!(
        "groups=[{{ name = \"users\", origin = {{ kind = \"file\", path = {:?}, \
         compress_min_bytes = \"1KiB\" }} }}]",
        folder.path()
    );
    let mut serve = Serve::start(&["registry.kind=memory", &groups], &[]);
    serve.logs("\"ready\"");
    for key in ["long", "a.txt"] {
        let url = format!("http://{}/v1/users/{key}", serve.http);
        assert!(run("curl", &["-sf", &url]).status.success(), "{key}");
    }
    let explain = |rest: &[&str]| {
        let all = [&["explain", "users"], rest, &["--admin", &serve.admin]].concat();
        text(&run(PROGRAM, &all).stdout)
    };
    let known: Value = serde_json::from_str(&explain(&["long", "--json"])).expect("JSON");
    let held = &known["asked"]["held"][0];
    let compressed = held["compressed_bytes"].as_u64().expect("known");
    assert!(held["bytes"] == 100_000 && compressed < 1_000, "{held}");
    let sizes = format!(": 100000 bytes (kept as {compressed}, compressed), etag ");
    let shown = explain(&["long"]);
    assert!(shown.contains(&sizes), "{shown}");
    let short: Value = serde_json::from_str(&explain(&["a.txt", "--json"])).expect("JSON");
    let held = &short["asked"]["held"][0];
    assert!(
        held["bytes"] == 5 && held["compressed_bytes"].is_null(),
        "{held}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_failed_is_explained() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/{{key}}", nobody.local_addr().expect("bound"));
    drop(nobody);
    let groups = format!(
        "groups=[{{ name = \"users\", error_ttl_seconds = 60, \
         origin = {{ kind = \"http\", retries = 0, url = \"{url}\", breaker_failure_ratio = 1, \
         breaker_min_loads = 1, breaker_open_seconds = 600 }} }}]"
    );
    let serve = tokio::task::block_in_place(|| {
        let mut serve = Serve::start(&["registry.kind=memory", &groups], &[]);
        serve.logs("\"ready\"");
        serve
    });
    let url = format!("http://{}/v1/users/k", serve.http);
    assert_eq!(
        common::http()
            .get(url)
            .send()
            .await
            .expect("answers")
            .status(),
        502
    );
    let known = &json(&["k", "--admin", &serve.admin])["asked"];
    assert_eq!(known["remembered_failure"]["error"], "origin_failed");
    assert_eq!(known["breaker"], "open");
    let (_, shown, _) = explained(&["k", "--admin", &serve.admin]);
    for part in [
        "the last load failed, and gets fail the same way for another",
        "the circuit breaker of the group is open",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let load = shown
        .lines()
        .find(|line| line.starts_with("last load"))
        .expect("a line");
    assert!(
        load.contains("origin_failed: ") && load.contains("s ago, took"),
        "{load}"
    );
}

/// The lines about requests of a node with these settings, after a get of each key.
async fn request_lines(further: &[&str], keys: &[&str]) -> Vec<Value> {
    let origin = CountingOrigin::start().await;
    let groups = format!(
        "groups=[{{ name = \"users\", origin = {{ kind = \"http\", retries = 0, url = \"{}\" }} }}]",
        origin.url()
    );
    let all = [&["registry.kind=memory", &groups][..], further].concat();
    let mut serve = tokio::task::block_in_place(|| {
        let mut serve = Serve::start(&all, &[]);
        serve.logs("\"ready\"");
        serve
    });
    let asks = common::http();
    for key in keys {
        let url = format!("http://{}/v1/{key}", serve.http);
        asks.get(url).send().await.expect("answers");
    }
    kill("-TERM", &serve.child);
    let mut lines = Vec::new();
    while let Some(line) = serve.next_line() {
        let line: Value = serde_json::from_str(&line).expect("JSON");
        if line["message"] == "request" {
            lines.push(line);
        }
    }
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_logged_as_the_settings_want_and_keys_only_if_they_may() {
    let keys = ["users/a", "users/a", "nope/b%0Aforged"];
    assert!(request_lines(&[], &keys).await.is_empty(), "off");

    let all = request_lines(&["log.requests=all"], &keys).await;
    let outcomes: Vec<&str> = all
        .iter()
        .map(|it| it["outcome"].as_str().expect("text"))
        .collect();
    assert_eq!(outcomes, ["origin", "hit", "unknown_group"]);
    assert_eq!(all[0]["group"], "users");
    assert!(all[0]["milliseconds"].as_f64().expect("a time") > 0.0);
    let is_short = |it: &Value| {
        let time = it["milliseconds"].to_string();
        time.split_once('.')
            .is_some_and(|(_, digits)| digits.len() <= 3)
    };
    assert!(all.iter().all(is_short), "whole microseconds: {all:?}");
    assert!(
        all[0]["peer"].is_string() && all[1]["peer"].is_null(),
        "{all:?}"
    );
    assert!(all.iter().all(|it| it["key"].is_null()), "{all:?}");

    let named = request_lines(&["log.requests=all", "log.keys=true"], &keys).await;
    assert_eq!(
        named[2]["key"], "b\nforged",
        "one line of JSON, with its line break escaped"
    );

    let errors = request_lines(&["log.requests=errors"], &keys).await;
    assert_eq!(errors.len(), 1, "{errors:?}");
    let slow = request_lines(&["log.requests=slow", "log.slow_seconds=3000"], &keys).await;
    assert_eq!(slow.len(), 1, "{slow:?}");
    let slow = request_lines(&["log.requests=slow", "log.slow_seconds=0"], &keys).await;
    assert_eq!(slow.len(), 3, "{slow:?}");

    let many: Vec<&str> = std::iter::repeat_n("users/a", 300).collect();
    let sampled = ["log.requests=all", "log.max_requests_per_second=1"];
    let sampled = request_lines(&sampled, &many).await;
    assert!((1..300).contains(&sampled.len()), "{}", sampled.len());
}
