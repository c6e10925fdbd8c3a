//! A node of gaocache.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use crate::{
    board::Board,
    health::{Health, Ill},
    http::Http,
    net::Party,
    process::Process,
};

/// Where Debian's packages put libfaketime.
const FAKETIME: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
];

/// How long a node that gets SIGTERM may go on: drain, shutdown, and something on top.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// libfaketime, if it is installed.
pub fn faketime() -> Option<&'static str> {
    FAKETIME
        .iter()
        .copied()
        .find(|path| Path::new(path).exists())
}

/// What a node needs to be started.
pub struct Launch {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether its wall clock can be set.
    pub clock: bool,
}

/// A node, running or not.
pub struct Node {
    pub id: String,
    pub party: Party,
    /// Its process. Ill: it isn't ready, is paused, is leaving, or can't reach the origin.
    pub health: Arc<Health>,
    /// Its links to etcd and to the other nodes.
    pub links: Arc<Health>,
    /// The process, if it runs. The holder of the lock may stop and start it.
    pub process: Arc<Mutex<Option<Process>>>,
    /// Whether gets can be asked of it at all.
    pub running: AtomicBool,
    /// Held until it is ready.
    not_ready: parking_lot::Mutex<Option<Ill>>,
    launch: parking_lot::Mutex<Launch>,
    clock: PathBuf,
    log: PathBuf,
    http: Http,
}

impl Node {
    /// A node that doesn't run yet.
    pub fn new(id: &str, party: Party, launch: Launch, logs: &Path, http: Http) -> Self {
        let health: Arc<Health> = Arc::default();
        Self {
            id: id.to_owned(),
            party,
            not_ready: parking_lot::Mutex::new(Some(health.ill())),
            health,
            links: Arc::default(),
            process: Arc::default(),
            running: AtomicBool::new(false),
            launch: parking_lot::Mutex::new(launch),
            clock: logs.join(format!("{id}.clock")),
            log: logs.join(format!("{id}.log")),
            http,
        }
    }

    /// Other arguments from the next start on.
    pub fn relaunch_with(&self, arguments: Vec<String>) {
        self.launch.lock().arguments = arguments;
    }

    /// Starts it into `process`, which the caller has locked.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&self, process: &mut Option<Process>) -> Result<()> {
        let command = self.command();
        *process = Some(Process::start(&self.party.namespace, &command, &self.log)?);
        self.running.store(true, SeqCst);
        Ok(())
    }

    fn command(&self) -> Vec<String> {
        let launch = self.launch.lock();
        let mut command = vec!["env".to_owned()];
        // As in the image.
        command.extend(["MIMALLOC_ALLOW_THP=0", "MIMALLOC_PURGE_DELAY=0"].map(str::to_owned));
        if let (true, Some(library)) = (launch.clock, faketime()) {
            command.extend([
                format!("LD_PRELOAD={library}"),
                format!("FAKETIME_TIMESTAMP_FILE={}", self.clock.display()),
                "FAKETIME_CACHE_DURATION=1".into(),
                "DONT_FAKE_MONOTONIC=1".into(),
            ]);
        }
        command.push(launch.program.clone());
        command.extend(launch.arguments.iter().cloned());
        command
    }

    /// Sets its wall clock off by so many seconds; it sees so within a second.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn set_clock(&self, offset: i64) -> Result<()> {
        // A whole file appears at once: half a line would be another time.
        let written = self.clock.with_extension("new");
        std::fs::write(&written, format!("{offset:+}\n"))?;
        Ok(std::fs::rename(written, &self.clock)?)
    }

    /// From now on nothing that fails there is its fault. Whether it was ready until now.
    fn goes(&self) -> bool {
        let mut not_ready = self.not_ready.lock();
        let was_ready = not_ready.is_none();
        if was_ready {
            *not_ready = Some(self.health.ill());
        }
        was_ready
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If it can't be killed.
    pub async fn kill(&self, process: &mut Option<Process>) -> Result<()> {
        self.goes();
        self.running.store(false, SeqCst);
        match process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM, and its end. It answers until then.
    ///
    /// # Errors
    /// If it doesn't end, or not with 0 though it was ready and etcd well: without etcd, it can't
    /// take its registration back. The signal may come before anything handles it.
    pub async fn terminate(&self, process: &mut Option<Process>, board: &Board) -> Result<()> {
        let was_ready = self.goes() && board.etcd_is_well();
        let losses = board.etcd_losses();
        let Some(taken) = process.take() else {
            return Ok(());
        };
        let ended = taken.terminate(ENDS_WITHIN).await;
        self.running.store(false, SeqCst);
        let status = ended?;
        // Etcd may have been ill for a moment in between, or the link to it cut.
        let stayed_well = board.etcd_is_well() && board.etcd_losses() == losses;
        if was_ready && stayed_well && !status.success() {
            bail!("{} ended with {status}", self.id);
        }
        Ok(())
    }

    /// Whether it says that it is ready; from then on it has to answer.
    pub async fn is_ready(&self) -> bool {
        let url = format!("http://{}:9090/readyz", self.party.ip);
        let answer = self.http.get(&url, Duration::from_secs(2)).await;
        let ready = answer.is_ok_and(|it| it.status.is_success());
        if ready && self.running.load(SeqCst) {
            *self.not_ready.lock() = None;
        }
        ready
    }

    /// Resolves to whether it was ready before `deadline`.
    pub async fn until_ready(&self, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if self.is_ready().await {
                return true;
            }
            // Between two questions to a process that is just starting.
            sleep(Duration::from_millis(50)).await;
        }
        false
    }

    /// The members that it lists, those who serve; none: it doesn't answer.
    pub async fn ring(&self) -> Option<Vec<String>> {
        let url = format!("http://{}:9090/ring", self.party.ip);
        let ring = self.http.json(&url).await.ok()?;
        let members = ring["members"].as_array()?.iter();
        let serving = members.filter(|member| member["state"] == "serving");
        let mut ids: Vec<String> = serving
            .filter_map(|member| Some(member["id"].as_str()?.to_owned()))
            .collect();
        ids.sort();
        Some(ids)
    }

    /// Where a key is asked for and removed.
    pub fn url(&self, key: &str) -> String {
        format!("http://{}:8080/v1/{key}", self.party.ip)
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// If it doesn't run.
    pub async fn resident_bytes(&self) -> Result<u64> {
        match &*self.process.lock().await {
            Some(process) => process.resident_bytes(),
            None => bail!("{} doesn't run", self.id),
        }
    }
}
