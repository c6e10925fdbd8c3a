//! Nodes as processes of their own.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use gaocache_testing::Process;
use parking_lot::Mutex;

use super::{LONG, etcd::free_port, within};

/// `gaocache serve` as a process of its own.
pub struct NodeProcess {
    process: Process,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    asks: reqwest::Client,
    /// The lines of its log.
    pub log: Arc<Mutex<Vec<String>>>,
    /// Reads its log until it ends.
    reader: Option<std::thread::JoinHandle<()>>,
    pub id: String,
    pub grpc: u16,
    pub http: u16,
    pub peer: u16,
    pub admin: u16,
}

impl NodeProcess {
    /// A node on etcd; not yet ready.
    pub fn start(id: &str, etcd: &[&str], origin: &str, further: &[&str]) -> Self {
        Self::with_variables(id, etcd, origin, further, &[])
    }

    /// The same, with these environment variables.
    pub fn with_variables(
        id: &str,
        etcd: &[&str],
        origin: &str,
        further: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut node = Self::prepared(id, etcd, origin, further, variables);
        node.revive();
        node
    }

    /// The same, not yet started.
    pub fn prepared(
        id: &str,
        etcd: &[&str],
        origin: &str,
        further: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let (grpc, http, admin) = (free_port(), free_port(), free_port());
        let peer = free_port();
        let groups = format!(
            "groups=[{{ name = \"users\", ttl_seconds = 600, origin = {{ kind = \"http\", url = \"{origin}\", timeout_seconds = 5 }} }}]"
        );
        let mut settings = vec![
            format!("node.id={id}"),
            format!("grpc.listen=127.0.0.1:{grpc}"),
            format!("http.listen=127.0.0.1:{http}"),
            format!("peer.listen=127.0.0.1:{peer}"),
            format!("admin.listen=127.0.0.1:{admin}"),
            format!("registry.etcd.endpoints={}", etcd.join(",")),
            "registry.etcd.lease_ttl_seconds=3".into(),
            "node.worker_threads=1".into(),
            "cache.capacity=64MiB".into(),
            super::EVERYBODY_MAY.into(),
            groups,
        ];
        settings.extend(further.iter().map(|&it| it.to_owned()));
        let mut arguments = vec!["serve".to_owned()];
        for setting in settings {
            arguments.extend(["--set".to_owned(), setting]);
        }
        Self {
            process: Process::default(),
            arguments,
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            asks: super::http(),
            log: Arc::default(),
            reader: None,
            id: id.into(),
            grpc,
            http,
            peer,
            admin,
        }
    }

    pub fn revive(&mut self) {
        self.run(Command::new(env!("CARGO_BIN_EXE_gaocache")));
    }

    /// Starts another program under its id and on its ports, with these settings on top.
    pub fn revive_as(&mut self, program: &std::path::Path, settings: &[&str]) {
        let name = |setting: &str| setting.split_once('=').map(|(name, _)| name.to_owned());
        let given = self.arguments.clone();
        for setting in settings {
            self.arguments
                .retain(|it| name(it).is_none() || name(it) != name(setting));
            self.arguments.push((*setting).to_owned());
        }
        // Each setting has its `--set` again.
        let values = self.arguments.drain(..).filter(|it| it.contains('='));
        let values: Vec<String> = values.collect();
        self.arguments.push("serve".into());
        let pairs = values.into_iter().flat_map(|it| ["--set".into(), it]);
        self.arguments.extend(pairs);
        self.run(Command::new(program));
        self.arguments = given;
    }

    /// The same, in a process that may open so many files.
    pub fn revive_with_descriptors(&mut self, most: u32) {
        let mut shell = Command::new("sh");
        let limited = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_gaocache")]);
        self.run(shell);
    }

    fn run(&mut self, mut command: Command) {
        let child = command
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            // As in the image: a huge page is zeroed at once, which holds up a worker for
            // milliseconds.
            .env("MIMALLOC_ALLOW_THP", "0")
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("starts");
        // Its log is read away, or the pipe would fill; kept, and shown with GAOCACHE_TEST_LOG.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (id, shown) = (
            self.id.clone(),
            std::env::var_os("GAOCACHE_TEST_LOG").is_some(),
        );
        let log = self.log.clone();
        self.reader = Some(std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if shown {
                    eprintln!("{id}: {line}");
                }
                log.lock().push(line);
            }
        }));
        self.process = Process::of(child);
    }

    /// Its resident memory.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.process.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Freezes it (SIGSTOP), until [`NodeProcess::thaw`].
    pub fn freeze(&self) {
        self.process.freeze();
    }

    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// SIGTERM, and its end, which must be a good one.
    pub async fn terminate(&mut self) {
        assert!(self.terminated().await.success());
    }

    /// SIGTERM, and how it ended. Its log is complete then.
    pub async fn terminated(&mut self) -> std::process::ExitStatus {
        let mut child = self.process.terminate();
        let reader = self.reader.take();
        let ended = tokio::task::spawn_blocking(move || {
            let status = child.wait();
            // Its last lines may still be in the pipe.
            reader.into_iter().for_each(|it| it.join().unwrap());
            status
        });
        within("the node's end", ended).await.unwrap().unwrap()
    }

    /// The owner of a key, as it sees it.
    pub async fn owner(&self, key: &str) -> String {
        let url = format!("http://127.0.0.1:{}/ring?key={key}", self.admin);
        let answer = self.asks.get(url).send().await.expect("answers");
        let report: gaocache::internal::RingReport =
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        report.owners[0].owner.clone()
    }

    /// The first `count` of `k0`, `k1`, … that it owns, as it sees it.
    pub async fn own_keys(&self, count: usize) -> Vec<String> {
        let mut keys = Vec::new();
        for number in 0.. {
            let key = format!("k{number}");
            if self.owner(&key).await == self.id {
                keys.push(key);
            }
            if keys.len() == count {
                break;
            }
        }
        keys
    }

    pub async fn ring(&self) -> Option<gaocache::internal::RingReport> {
        let url = format!("http://127.0.0.1:{}/ring", self.admin);
        let answer = self.asks.get(url).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    /// The value of a metric, summed over the samples whose labels contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.admin);
        super::metric_at(&self.asks, &url, name, &[label]).await
    }

    pub async fn readyz(&self) -> Option<(u16, String)> {
        let url = format!("http://127.0.0.1:{}/readyz", self.admin);
        let answer = self.asks.get(url).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Resolves when its ring has exactly these members, asking again whenever it answers
    /// otherwise.
    pub async fn until_ring(&self, ids: &[&str]) -> gaocache::internal::RingReport {
        let mut seen = None;
        let wanted = async {
            loop {
                if let Some(ring) = self.ring().await {
                    let members: Vec<&str> = ring.members.iter().map(|it| &*it.id).collect();
                    if members == ids && ring.members.iter().all(|it| it.state == "serving") {
                        return ring;
                    }
                    seen = Some(ring);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(LONG, wanted).await {
            Ok(ring) => ring,
            Err(_) => panic!("{} never saw {ids:?}, but {seen:?}", self.id),
        }
    }

    pub async fn until_ready(&self) {
        within("readiness", async {
            while self.readyz().await.is_none_or(|(status, _)| status != 200) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Resolves when all are ready and each sees exactly these.
pub async fn agree(nodes: &[NodeProcess]) {
    let ids: Vec<&str> = nodes.iter().map(|node| &*node.id).collect();
    for node in nodes {
        node.until_ring(&ids).await;
        node.until_ready().await;
    }
}
