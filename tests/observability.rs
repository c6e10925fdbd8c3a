//! A real Prometheus scrapes three nodes under load; every query of every panel and every series of
//! every alert must have data. `make observability-test`, and with `PICTURES=docs/pictures` it
//! draws the panels from Prometheus' answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "observability/draw.rs"]
mod draw;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{
    CountingOrigin,
    etcd::{Etcd, free_port},
    process::{NodeProcess, agree},
    within,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Panels that show nothing while all is well.
const EMPTY_WHEN_WELL: [&str; 1] = ["Time spent leaving"];

/// Prometheus on a folder of its own.
struct Prometheus {
    child: Child,
    url: String,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    async fn scraping(nodes: &[NodeProcess], etcd: &Etcd) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = "global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: gaocache\n    static_configs:\n".to_owned();
        for node in nodes {
            let _ = writeln!(
                config,
                "      - {{targets: ['127.0.0.1:{}'], labels: {{namespace: gaocache, release: gaocache, pod: {}}}}}",
                node.admin, node.id
            );
        }
        let _ = writeln!(
            config,
            "      - {{targets: ['{}'], labels: {{namespace: gaocache, release: gaocache, pod: etcd}}}}",
            etcd.url.trim_start_matches("http://")
        );
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

    /// The number that a query of one number returns.
    async fn number(&self, query: &str) -> f64 {
        let url = format!("{}/api/v1/query?query={query}", self.url);
        let answer = self.client.get(url).send().await.unwrap();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        body["data"]["result"][1].as_str().unwrap().parse().unwrap()
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

/// A query of a panel, with the variables filled in.
struct Target {
    query: String,
    legend: String,
}

/// A panel of the dashboard.
struct Panel {
    row: String,
    title: String,
    unit: String,
    targets: Vec<Target>,
}

fn panels() -> Vec<Panel> {
    let text = include_str!("../charts/gaocache/dashboards/gaocache.json");
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let target = |target: &Value| Target {
        query: text(&target["expr"])
            .replace("$cluster", ".*")
            .replace("$namespace", "gaocache")
            .replace("$release", "gaocache")
            .replace("$pod", ".*")
            .replace("$group", ".*")
            .replace("$__rate_interval", "10s"),
        legend: text(&target["legendFormat"]),
    };
    let (mut row, mut panels) = (String::new(), Vec::new());
    // A row that is collapsed has its panels inside it.
    let top = dashboard["panels"].as_array().unwrap().iter();
    let all =
        top.flat_map(|it| std::iter::once(it).chain(it["panels"].as_array().into_iter().flatten()));
    for panel in all {
        if panel["type"] == "row" {
            row = text(&panel["title"]);
            continue;
        }
        panels.push(Panel {
            row: row.clone(),
            title: text(&panel["title"]),
            unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
            targets: panel["targets"]
                .as_array()
                .unwrap()
                .iter()
                .map(target)
                .collect(),
        });
    }
    panels
}

/// The lines that a query drew in the last `seconds`.
async fn lines(prometheus: &Prometheus, target: &Target, seconds: f64) -> Vec<draw::Line> {
    let query = utf8_percent_encode(&target.query, NON_ALPHANUMERIC);
    let now = prometheus.number("time()").await;
    let url = format!(
        "{}/api/v1/query_range?query={query}&start={}&end={now}&step=1",
        prometheus.url,
        now - seconds
    );
    let answer = prometheus.client.get(url).send().await.unwrap();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let series = body["data"]["result"].as_array().unwrap().iter();
    series
        .map(|series| {
            let mut name = target.legend.clone();
            for (label, value) in series["metric"].as_object().unwrap() {
                name = name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap());
            }
            // Prometheus leaves empty labels out: the group of requests for groups that don't
            // exist.
            if name.contains("{{") {
                name = "(none)".into();
            }
            let points = series["values"].as_array().unwrap().iter();
            let points = points.map(|point| {
                let value: f64 = point[1].as_str().unwrap().parse().unwrap();
                (point[0].as_f64().unwrap() - (now - seconds), value)
            });
            (
                name,
                points.filter(|(_, value)| value.is_finite()).collect(),
            )
        })
        .collect()
}

/// Draws every panel, one file for each row of the dashboard.
async fn draw_all(prometheus: &Prometheus, folder: &str, seconds: f64) {
    let mut rows: BTreeMap<String, Vec<draw::Panel>> = BTreeMap::new();
    for panel in panels() {
        let mut all = Vec::new();
        for target in &panel.targets {
            all.extend(lines(prometheus, target, seconds).await);
        }
        rows.entry(panel.row).or_default().push(draw::Panel {
            title: panel.title,
            unit: panel.unit,
            lines: all,
        });
    }
    for (title, panels) in rows {
        let name = title.to_lowercase().replace([' ', '-'], "_");
        let file = format!("{folder}/dashboard_{name}.svg");
        std::fs::write(file, draw::row(&title, &panels)).unwrap();
    }
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
    // Panels and alerts about certificates need some.
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let cert = file("tls.crt", made.cert.pem());
    let key = file("tls.key", made.signing_key.serialize_pem());
    let tls = [
        format!("grpc.tls.cert={cert}"),
        format!("grpc.tls.key={key}"),
    ];
    let tls = tls.each_ref().map(String::as_str);
    let nodes: Vec<NodeProcess> = ["n0", "n1", "n2"]
        .map(|id| NodeProcess::start(id, &[&etcd.url], &origin.url(), &tls))
        .into();
    agree(&nodes).await;
    let prometheus = Prometheus::scraping(&nodes, &etcd).await;
    prometheus
        .until_data("three nodes", "count(gaocache_build_info) == 3")
        .await;
    let pictures = std::env::var("PICTURES").ok().filter(|it| !it.is_empty());
    // One life has everything in it; a picture wants some more of it.
    let lives = if pictures.is_some() { 100 } else { 1 };
    let began = prometheus.number("time()").await;
    for _ in 0..lives {
        life(&nodes, &origin, &etcd).await;
    }
    let mut queries = 0;
    for panel in panels() {
        for target in panel.targets {
            queries += 1;
            if EMPTY_WHEN_WELL.contains(&panel.title.as_str()) {
                // It must be valid all the same.
                let series = prometheus.series(&target.query).await;
                assert!(series.is_some(), "{}", panel.title);
            } else {
                prometheus.until_data(&panel.title, &target.query).await;
            }
        }
    }
    if let Some(folder) = pictures {
        let seconds = prometheus.number("time()").await - began;
        draw_all(&prometheus, &folder, seconds).await;
    }
    let alerts = include_str!("../charts/gaocache/alerts/gaocache.yaml");
    let series = series_of(alerts);
    for name in &series {
        prometheus.until_data("an alert", name).await;
    }
    println!(
        "{} queries of panels, {} series of alerts have data",
        queries,
        series.len()
    );
    let url = format!("http://127.0.0.1:{}/metrics", nodes[0].admin);
    let text = common::text_at(&common::http(), &url).await;
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
