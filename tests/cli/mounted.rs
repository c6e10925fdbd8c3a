//! A node whose settings file changes under a load of gets.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use super::{serve::Serve, *};
use common::within;

/// A folder as a ConfigMap is mounted: the file is a link into a folder that is a link itself, and
/// that link is replaced.
pub(super) struct Mounted {
    folder: tempfile::TempDir,
    versions: usize,
}

impl Mounted {
    pub(super) fn new(toml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("..data/gaocache.toml", folder.path().join("gaocache.toml"))
            .expect("linked");
        let mut mounted = Self {
            folder,
            versions: 0,
        };
        mounted.change(toml);
        mounted
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("gaocache.toml")
    }

    pub(super) fn change(&mut self, toml: &str) {
        self.versions += 1;
        let version = format!("..{}", self.versions);
        let at = |name: &str| self.folder.path().join(name);
        fs::create_dir(at(&version)).expect("made");
        fs::write(at(&version).join("gaocache.toml"), toml).expect("written");
        std::os::unix::fs::symlink(&version, at("..data_tmp")).expect("linked");
        fs::rename(at("..data_tmp"), at("..data")).expect("replaced");
    }
}

pub(super) fn group(name: &str, ttl: u32, origin: &str) -> String {
    format!(
        "[[groups]]\nname = \"{name}\"\nttl_seconds = {ttl}\norigin.kind = \"http\"\norigin.url = \"{origin}\"\n"
    )
}

/// The listeners of a node, asked over HTTP.
pub(super) struct Asked {
    asks: reqwest::Client,
    /// The beginning of URLs.
    http: String,
    admin: String,
}

impl Asked {
    /// Of that node, over HTTPS if the client is given.
    pub(super) fn of(serve: &Serve, https: Option<reqwest::Client>) -> Self {
        let scheme = https.as_ref().map_or("http", |_| "https");
        Self {
            http: format!("{scheme}://{}", serve.http),
            admin: serve.admin.clone(),
            asks: https.unwrap_or_else(common::http),
        }
    }

    pub(super) async fn get(&self, group: &str, key: &str) -> (u16, String, String) {
        let url = format!("{}/v1/{group}/{key}", self.http);
        let answer = self.asks.get(url).send().await.expect("answers");
        let life = answer.headers().get("cache-control");
        let life = life.map_or("", |it| it.to_str().expect("text")).to_owned();
        (
            answer.status().as_u16(),
            life,
            answer.text().await.expect("a body"),
        )
    }

    pub(super) async fn admin(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.admin);
        let answer = self.asks.get(url).send().await.expect("answers");
        answer.text().await.expect("a body")
    }

    pub(super) async fn metric(&self, name: &str, label: &str) -> f64 {
        let url = format!("http://{}/metrics", self.admin);
        common::metric_at(&self.asks, &url, name, &[label]).await
    }

    /// What `/config` shows of a setting.
    pub(super) async fn setting(&self, name: &str) -> Value {
        let shown: Value = serde_json::from_str(&self.admin("/config").await).expect("JSON");
        let settings = shown["settings"].as_array().expect("a list");
        let found = settings.iter().find(|it| it["name"] == name);
        found.map_or(Value::Null, |it| it["value"].clone())
    }

    pub(super) async fn until(&self, name: &str, value: Value) {
        within(name, async {
            while self.setting(name).await != value {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    pub(super) async fn reload(&self) -> (u16, Value) {
        let url = format!("http://{}/reload", self.admin);
        let answer = self.asks.post(url).send().await.expect("answers");
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }
}

/// Gets without a pause, until it is stopped.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    gets: Arc<AtomicUsize>,
    running: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    pub(super) fn start(asked: &Arc<Asked>) -> Self {
        let (stop, gets) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let running = (0..4).map(|number| {
            let (asked, stop, gets): (_, _, Arc<AtomicUsize>) =
                (asked.clone(), stop.clone(), Arc::clone(&gets));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // Keys that are held, and keys that have to be loaded.
                    let key = match round % 2 {
                        0 => format!("k{number}"),
                        _ => format!("k{number}-{round}"),
                    };
                    let (status, _, body) = asked.get("users", &key).await;
                    if (status, body.as_str()) != (200, &format!("value of {key}")) {
                        failed.push(format!("{key}: {status} {body}"));
                    }
                    gets.fetch_add(1, Ordering::SeqCst);
                }
                failed
            })
        });
        Self {
            running: running.collect(),
            stop,
            gets,
        }
    }

    /// Returns when so many more were answered.
    pub(super) async fn goes_on(&self) {
        let before = self.gets.load(Ordering::SeqCst);
        within("further gets", async {
            while self.gets.load(Ordering::SeqCst) < before + 50 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub(super) async fn ended(self) {
        self.stop.store(true, Ordering::SeqCst);
        for running in self.running {
            let failed = running.await.expect("no panic");
            assert_eq!(failed, Vec::<String>::new());
        }
    }
}
