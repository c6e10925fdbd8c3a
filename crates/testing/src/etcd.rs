//! etcd as real processes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use etcd_client::{Client, ConnectOptions};

use crate::{Process, free_port, within};

/// One etcd member.
pub struct Etcd {
    process: Process,
    arguments: Vec<String>,
    /// Where clients reach it.
    pub url: String,
    data: PathBuf,
    _folder: Arc<tempfile::TempDir>,
}

impl Etcd {
    /// A single member on a fresh folder, answering.
    pub async fn start() -> Self {
        let mut cluster = Self::cluster(1, &[]).await;
        cluster.remove(0)
    }

    /// Members that form one cluster; `further` arguments go to each.
    pub async fn cluster(size: usize, further: &[&str]) -> Vec<Self> {
        Self::with_scheme(size, "http", further).await
    }

    /// The same over `http` or `https`; over `https`, only its listener is awaited, not an answer.
    pub async fn with_scheme(size: usize, scheme: &str, further: &[&str]) -> Vec<Self> {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let ports: Vec<(u16, u16)> = (0..size).map(|_| (free_port(), free_port())).collect();
        let initial: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"))
            .collect();
        let mut members = Vec::new();
        for (n, (client, peer)) in ports.iter().enumerate() {
            let url = format!("{scheme}://127.0.0.1:{client}");
            let data = folder.path().join(format!("m{n}"));
            let mut arguments: Vec<String> = [
                ("name", format!("m{n}")),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", url.clone()),
                ("advertise-client-urls", url.clone()),
                ("listen-peer-urls", format!("http://127.0.0.1:{peer}")),
                (
                    "initial-advertise-peer-urls",
                    format!("http://127.0.0.1:{peer}"),
                ),
                ("initial-cluster", initial.join(",")),
                ("log-level", "error".into()),
                ("heartbeat-interval", "50".into()),
                ("election-timeout", "500".into()),
            ]
            .map(|(name, value)| format!("--{name}={value}"))
            .into();
            arguments.extend(further.iter().map(|&it| it.to_owned()));
            let mut member = Self {
                process: Process::default(),
                arguments,
                url,
                data,
                _folder: folder.clone(),
            };
            member.spawn();
            members.push(member);
        }
        for member in &members {
            if scheme == "http" {
                member.answers().await;
            } else {
                member.listens().await;
            }
        }
        members
    }

    fn spawn(&mut self) {
        let program = std::env::var("GAOCACHE_TEST_ETCD").unwrap_or_else(|_| "etcd".into());
        let child = Command::new(&program)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Process::of(child.unwrap_or_else(|error| {
            panic!("{program}: {error}; `make test` installs it, or set GAOCACHE_TEST_ETCD")
        }));
    }

    async fn answers(&self) {
        within("etcd answers", async {
            loop {
                if let Ok(mut client) = self.try_client().await {
                    let got =
                        tokio::time::timeout(Duration::from_secs(1), client.get("x", None)).await;
                    if matches!(got, Ok(Ok(_))) {
                        return;
                    }
                }
                // Between two attempts at a process that is just starting.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn listens(&self) {
        let address = self.url.rsplit('/').next().unwrap();
        within("etcd listens", async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                // Between two attempts at a process that is just starting.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn try_client(&self) -> Result<Client, etcd_client::Error> {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
        Client::connect([&self.url], Some(options)).await
    }

    /// A client of it.
    pub async fn client(&self) -> Client {
        self.try_client().await.expect("etcd answers")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Freezes it (SIGSTOP); its connections stay open.
    pub fn freeze(&self) {
        self.process.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.thaw();
    }

    /// Starts it again on its data.
    pub async fn revive(&mut self) {
        self.spawn();
        self.answers().await;
    }

    /// Kills it and starts it on an empty folder.
    pub async fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.data).unwrap();
        self.revive().await;
    }

    /// A copy of its data, as a backup: it is down for a moment.
    pub async fn back_up(&mut self) -> tempfile::TempDir {
        let backup = tempfile::tempdir().unwrap();
        self.kill();
        copy(&self.data, backup.path());
        self.revive().await;
        backup
    }

    /// Kills it and starts it on that backup.
    pub async fn restore(&mut self, backup: &tempfile::TempDir) {
        self.kill();
        std::fs::remove_dir_all(&self.data).unwrap();
        copy(backup.path(), &self.data);
        self.revive().await;
    }

    /// What is stored under a prefix: keys and values.
    pub async fn keys(&self, prefix: &str) -> Vec<(String, String)> {
        let options = etcd_client::GetOptions::new().with_prefix();
        let got = self
            .client()
            .await
            .get(prefix, Some(options))
            .await
            .unwrap();
        got.kvs()
            .iter()
            .map(|kv| {
                (
                    kv.key_str().unwrap().to_owned(),
                    kv.value_str().unwrap().to_owned(),
                )
            })
            .collect()
    }

    /// Forgets all history up to now.
    pub async fn compact(&self) {
        let mut client = self.client().await;
        let revision = client
            .get("x", None)
            .await
            .unwrap()
            .header()
            .unwrap()
            .revision();
        client.compact(revision, None).await.unwrap();
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let (path, target) = {
            let file = file.unwrap();
            (file.path(), to.join(file.file_name()))
        };
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
