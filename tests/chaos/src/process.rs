//! Processes in namespaces, each with a log file.

use std::{fs::OpenOptions, path::Path, process::ExitStatus, time::Duration};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// A process that is killed when this is dropped.
pub struct Process {
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts `command` (program, then arguments) in a namespace; what it says is added to `log`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(namespace: &str, command: &[String], log: &Path) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        // `ip` becomes the command itself: the id is the command's.
        let child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(command)
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("ip")?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.context("ended before it began")?;
        Ok(Self { child, pid })
    }

    /// Its id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("{signal:?} to {}", self.pid()))
    }

    /// SIGKILL, and its end.
    ///
    /// # Errors
    /// If it can't be killed.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("kill")
    }

    /// SIGTERM, and its end within `bound`.
    ///
    /// # Errors
    /// If it goes on for longer.
    pub async fn terminate(mut self, bound: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        match timeout(bound, self.child.wait()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => bail!("process {} goes on {bound:?} after SIGTERM", self.pid()),
        }
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its resident memory in bytes, as the kernel reports it.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.context("VmRSS")? * 1024)
    }
}
