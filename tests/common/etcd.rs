//! Real etcd processes for tests, and a proxy that can be cut.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use etcd_client::{Client, ConnectOptions};
use gaocache::internal::Config;
use gaocache_discovery::EtcdConfig;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::{CountingOrigin, settings, within};

/// A port that was free a moment ago and that no other test of this process gets. Below the range
/// that the system gives out by itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::SeqCst);
        let base = (std::process::id() % 97) as u16 * 100;
        let port = 20_000 + (base + offset) % 12_000;
        if StdListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success(), "kill {name}");
}

/// One etcd member.
pub struct Etcd {
    child: Option<Child>,
    arguments: Vec<String>,
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
                child: None,
                arguments,
                url,
                data,
                _folder: folder.clone(),
            };
            member.spawn();
            members.push(member);
        }
        if scheme == "http" {
            for member in &members {
                member.answers().await;
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
        self.child = Some(child.unwrap_or_else(|error| {
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

    async fn try_client(&self) -> Result<Client, etcd_client::Error> {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
        Client::connect([&self.url], Some(options)).await
    }

    pub async fn client(&self) -> Client {
        self.try_client().await.expect("etcd answers")
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops it where it stands, its connections open.
    pub fn freeze(&self) {
        signal(self.child.as_ref().unwrap(), "-STOP");
    }

    pub fn thaw(&self) {
        signal(self.child.as_ref().unwrap(), "-CONT");
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

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP proxy to an address that can be cut.
pub struct Proxy {
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    _task: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let changes = open.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let mut changes = changes.clone();
                if !*changes.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut outside) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            open,
            _task: task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts what is connected, and everything that connects from now on.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

/// Writes files of a small certificate authority: `ca.pem`, `server.pem`, `server.key`,
/// `client.pem`, `client.key`.
pub fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(DnType::CommonName, "test authority");
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    std::fs::write(folder.join("ca.pem"), ca_certificate.pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// The lease of the tests: short, so that its end can be waited for.
pub const TTL: Duration = Duration::from_secs(2);

pub fn config(urls: &[&str]) -> EtcdConfig {
    EtcdConfig::new(urls.iter().copied()).with_lease_ttl(TTL)
}

/// Settings of a node of the tests that registers in etcd.
pub fn node_settings(id: &str, etcd: &str, origin: &CountingOrigin, further: &[&str]) -> Config {
    let endpoints = format!("registry.etcd.endpoints={etcd}");
    let mut given = vec![
        "registry.kind=etcd",
        &endpoints,
        "registry.etcd.lease_ttl_seconds=2",
        "node.worker_threads=1",
    ];
    given.extend(further);
    settings(id, &origin.url(), &given)
}
