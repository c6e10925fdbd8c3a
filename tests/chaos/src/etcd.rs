//! The members of etcd.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::Method;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::{Mutex, MutexGuard},
    time::{sleep, timeout},
};

use crate::{
    http::Http,
    net::{Party, Plan},
    process::Process,
    world::Folders,
};

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// One member.
pub struct Member {
    /// Its name.
    pub name: String,
    party: Party,
    command: Vec<String>,
    data: PathBuf,
    log: PathBuf,
    /// Its process, if it runs. The holder of the lock may stop and start it.
    pub process: Mutex<Option<Process>>,
}

impl Member {
    fn new(number: usize, plan: &Plan, folders: &Folders) -> Self {
        let party = plan.members[number].clone();
        let name = format!("e{number}");
        let (client, peer) = (client_url(&party), peer_url(&party));
        let initial = plan.members.iter().enumerate();
        let initial: Vec<String> = initial
            .map(|(n, party)| format!("e{n}={}", peer_url(party)))
            .collect();
        let data = folders.data.join(&name);
        let flags = [
            format!("--name={name}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", initial.join(",")),
            "--log-level=warn".into(),
            "--heartbeat-interval=50".into(),
            "--election-timeout=500".into(),
            // Members are killed here, the machine isn't.
            "--unsafe-no-fsync".into(),
        ];
        let program = std::env::var("GAOCACHE_TEST_ETCD").unwrap_or_else(|_| "etcd".into());
        Self {
            log: folders.logs.join(format!("{name}.log")),
            name,
            party,
            data,
            command: [program].into_iter().chain(flags).collect(),
            process: Mutex::default(),
        }
    }

    /// Starts it, on the data that it had.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&self) -> Result<Process> {
        Process::start(&self.party.namespace, &self.command, &self.log)
    }
}

/// Copies a folder. etcd reserves much more than it has written.
async fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    let copied = copy.args(["-r", "--sparse=always"]).args([from, to]);
    if !copied.status().await.context("cp")?.success() {
        bail!("{} can't be copied", from.display());
    }
    Ok(())
}

fn client_url(party: &Party) -> String {
    format!("http://{}:2379", party.ip)
}

fn peer_url(party: &Party) -> String {
    format!("http://{}:2380", party.ip)
}

/// The cluster of members.
pub struct Etcd {
    /// Its members.
    pub members: Vec<Arc<Member>>,
    http: Http,
}

impl Etcd {
    /// Starts all members; resolves when they answer.
    ///
    /// # Errors
    /// If one doesn't.
    pub async fn start(plan: &Plan, folders: &Folders, http: Http) -> Result<Self> {
        let numbers = 0..plan.members.len();
        let members = numbers.map(|n| Arc::new(Member::new(n, plan, folders)));
        let etcd = Self {
            members: members.collect(),
            http,
        };
        etcd.revive().await?;
        etcd.until_well().await?;
        Ok(etcd)
    }

    /// Where clients of etcd reach it.
    pub fn endpoints(&self) -> String {
        let urls: Vec<String> = self
            .members
            .iter()
            .map(|it| client_url(&it.party))
            .collect();
        urls.join(",")
    }

    /// SIGKILL for all members.
    ///
    /// # Errors
    /// If one can't be killed.
    pub async fn kill(&self) -> Result<()> {
        for member in &self.members {
            if let Some(process) = member.process.lock().await.take() {
                process.kill().await?;
            }
        }
        Ok(())
    }

    /// Kills all members at once, and keeps others from starting them; returns their processes'
    /// places.
    async fn stopped(&self) -> Result<Vec<MutexGuard<'_, Option<Process>>>> {
        let mut places = Vec::new();
        for member in &self.members {
            places.push(member.process.lock().await);
        }
        for place in &mut places {
            if let Some(process) = place.take() {
                process.kill().await?;
            }
        }
        Ok(places)
    }

    /// A copy of the data of all members; they are down for a moment.
    ///
    /// # Errors
    /// If it can't be made, or they aren't well afterwards.
    pub async fn back_up(&self) -> Result<TempDir> {
        let backup = tempfile::tempdir()?;
        let mut places = self.stopped().await?;
        for (member, place) in self.members.iter().zip(&mut places) {
            copy(&member.data, &backup.path().join(&member.name)).await?;
            **place = Some(member.start()?);
        }
        drop(places);
        self.until_well().await?;
        Ok(backup)
    }

    /// Kills all members. After `away` they come back with the data of a backup, or without any.
    ///
    /// # Errors
    /// If a step fails, or they aren't well afterwards.
    pub async fn lose(&self, backup: Option<&TempDir>, away: Duration) -> Result<()> {
        let mut places = self.stopped().await?;
        sleep(away).await;
        for (member, place) in self.members.iter().zip(&mut places) {
            std::fs::remove_dir_all(&member.data)?;
            if let Some(backup) = backup {
                copy(&backup.path().join(&member.name), &member.data).await?;
            }
            **place = Some(member.start()?);
        }
        drop(places);
        self.until_well().await
    }

    /// Starts the members that don't run.
    ///
    /// # Errors
    /// If one can't be started.
    pub async fn revive(&self) -> Result<()> {
        for member in &self.members {
            let mut process = member.process.lock().await;
            if process.is_none() {
                *process = Some(member.start()?);
            }
        }
        Ok(())
    }

    /// Stops all members where they stand, or lets them go on.
    ///
    /// # Errors
    /// If one is gone.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        for member in &self.members {
            if let Some(process) = &*member.process.lock().await {
                process.signal(signal)?;
            }
        }
        Ok(())
    }

    /// Resolves when every member says that it is well.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn until_well(&self) -> Result<()> {
        for member in &self.members {
            let url = format!("{}/health", client_url(&member.party));
            let well = async {
                while !self
                    .http
                    .json(&url)
                    .await
                    .is_ok_and(|it| it["health"] == "true")
                {
                    // Between two questions to a process that is just starting.
                    sleep(Duration::from_millis(50)).await;
                }
            };
            let answered = timeout(ANSWERS_WITHIN, well).await;
            answered.with_context(|| format!("etcd's {} isn't well", member.name))?;
        }
        Ok(())
    }

    /// Deletes a key by hand; whether there was one.
    ///
    /// # Errors
    /// If no member does.
    pub async fn delete(&self, key: &str) -> Result<bool> {
        let body = json!({ "key": BASE64_STANDARD.encode(key) }).to_string();
        for member in &self.members {
            let url = format!("{}/v3/kv/deleterange", client_url(&member.party));
            let bound = Duration::from_secs(2);
            let sent = self.http.send(Method::POST, &url, body.clone(), bound);
            if let Ok(answer) = sent.await
                && answer.status.is_success()
            {
                let told: serde_json::Value = serde_json::from_slice(&answer.body)?;
                return Ok(told["deleted"] == "1");
            }
        }
        bail!("no member of etcd deletes {key}")
    }
}
