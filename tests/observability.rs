//! A real Prometheus scrapes three nodes under load; every query of every panel and every series of every alert must have data.
//! `make observability-test`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{
    CountingOrigin,
    etcd::{Etcd, free_port},
    process::NodeProcess,
    within,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Panels that show nothing while all is well.
const EMPTY_WHEN_WELL: [&str; 1] = ["Leaving for"];

/// Prometheus on a folder of its own.
struct Prometheus {
    child: Child,
    url: String,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    async fn scraping(nodes: &[NodeProcess]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: gaocache\n    static_configs:\n".to_owned();
        for node in nodes {
            let _ = writeln!(
                config,
                "      - {{targets: ['127.0.0.1:{}'], labels: {{namespace: gaocache, pod: {}}}}}",
                node.admin, node.id
            );
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let port = free_port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=error")
            .stdout(Stdio::null())
            .spawn()
            .expect("prometheus starts; `make observability-test` installs it");
        Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            client: common::http(),
            _folder: folder,
        }
    }

    /// How many series a query returns; an error of the query fails the test.
    async fn series(&self, query: &str) -> Option<usize> {
        let query_encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let url = format!("{}/api/v1/query?query={query_encoded}", self.url);
        let answer = self.client.get(url).send().await.ok()?;
        let body: Value = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
        assert_eq!(body["status"], "success", "{query}: {body}");
        body["data"]["result"].as_array().map(Vec::len)
    }

    /// Resolves when the query returns data.
    async fn until_data(&self, what: &str, query: &str) {
        within(&format!("data for {what}: {query}"), async {
            while self.series(query).await.is_none_or(|series| series == 0) {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs promtool with this input; its output is the failure's message.
fn promtool(arguments: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts; `make observability-test` installs it");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(
        done.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&said)
    );
}

/// Title and query of every panel, with the variables filled in.
fn panels() -> Vec<(String, String)> {
    let text = include_str!("../charts/gaocache/dashboards/gaocache.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter(|panel| panel["type"] != "row")
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap().to_owned();
            let targets = panel["targets"].as_array().unwrap().iter();
            targets.map(move |target| {
                let query = target["expr"].as_str().unwrap();
                let query = query
                    .replace("$cluster", ".*")
                    .replace("$namespace", "gaocache");
                (title.clone(), query.replace("$__rate_interval", "10s"))
            })
        });
    targets.collect()
}

/// The series that a rule file names.
fn series_of(rules: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in rules.match_indices("gaocache_") {
        let name: String = rules[at..]
            .chars()
            .take_while(|it| it.is_ascii_alphanumeric() || *it == '_')
            .collect();
        if rules[at + name.len()..].starts_with('{') {
            found.insert(name);
        }
    }
    found
}

/// Gets of all kinds, removals, and a ring that changes.
async fn life(nodes: &[NodeProcess], origin: &CountingOrigin, etcd: &Etcd) {
    let client = common::http();
    let get = async |node: &NodeProcess, key: &str| {
        let url = format!("http://127.0.0.1:{}/v1/users/{key}", node.http);
        let _ = client.get(url).send().await;
    };
    for node in nodes {
        for key in 0..100 {
            get(node, &format!("k{key}")).await;
        }
        for _ in 0..50 {
            get(node, "hot").await;
        }
        get(node, "missing").await;
        get(node, "broken").await;
        let url = format!("http://127.0.0.1:{}/v1/users/k1", node.http);
        let removed = client.delete(url).send().await.unwrap();
        assert!(removed.status().is_success());
    }
    // One that comes and goes.
    let mut fourth = NodeProcess::start("n3", &[&etcd.url], &origin.url(), &[]);
    fourth.until_ready().await;
    for key in 0..100 {
        get(&fourth, &format!("k{key}")).await;
    }
    fourth.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_every_alert_has_data_in_a_real_prometheus() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let nodes: Vec<NodeProcess> = ["n0", "n1", "n2"]
        .map(|id| NodeProcess::start(id, &[&etcd.url], &origin.url(), &[]))
        .into();
    for node in &nodes {
        node.until_ring(&["n0", "n1", "n2"]).await;
        node.until_ready().await;
    }
    let prometheus = Prometheus::scraping(&nodes).await;
    prometheus
        .until_data("three nodes", "count(gaocache_build_info) == 3")
        .await;
    life(&nodes, &origin, &etcd).await;
    let panels = panels();
    for (title, query) in &panels {
        if EMPTY_WHEN_WELL.contains(&title.as_str()) {
            // It must be valid all the same.
            assert!(prometheus.series(query).await.is_some(), "{title}");
        } else {
            prometheus.until_data(title, query).await;
        }
    }
    let alerts = include_str!("../charts/gaocache/alerts/gaocache.yaml");
    let series = series_of(alerts);
    for name in &series {
        prometheus.until_data("an alert", name).await;
    }
    println!(
        "{} queries of panels, {} series of alerts have data",
        panels.len(),
        series.len()
    );
    let url = format!("http://127.0.0.1:{}/metrics", nodes[0].admin);
    let text = common::http()
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    promtool(&["check", "metrics"], &text);
}

#[test]
fn the_alerts_are_valid_and_each_fires_once_and_is_silent_once() {
    promtool(
        &["check", "rules", "charts/gaocache/alerts/gaocache.yaml"],
        "",
    );
    promtool(
        &["test", "rules", "tests/observability/alerts_test.yaml"],
        "",
    );
}
