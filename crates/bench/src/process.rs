//! Processes of servers: pinned to a core, ended on drop, and how much CPU they have used.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// The core of the servers that are measured.
pub const SERVERS: &str = "0";
/// The core of the clients and of the origins.
pub const CLIENTS: &str = "1";

/// Whether a program is installed.
pub fn find(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let candidates = places.map(|place| format!("{place}/{program}"));
    candidates.into_iter().find(|it| Path::new(it).is_file())
}

/// Moves this process to the core of the clients.
pub fn pin_this() {
    let id = std::process::id().to_string();
    let moved = Command::new("taskset")
        .args(["-pc", CLIENTS, &id])
        .stdout(Stdio::null())
        .status();
    if !moved.is_ok_and(|it| it.success()) {
        eprintln!("taskset or a second core is missing: servers and clients share their cores");
    }
}

/// One server.
pub struct Process(Child);

impl Process {
    /// Starts it on that core.
    pub fn start(core: &str, program: &str, arguments: &[&str]) -> Self {
        Self(Self::command(core, program, arguments).spawn().unwrap())
    }

    /// Starts it on that core; returns the line that it prints first, too.
    pub fn told(core: &str, program: &str, arguments: &[&str]) -> (Self, String) {
        let mut command = Self::command(core, program, arguments);
        let mut process = Self(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        let output = process.0.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{program} {arguments:?} has ended");
        (process, line.trim().to_owned())
    }

    fn command(core: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = match find("taskset") {
            Some(taskset) => {
                let mut command = Command::new(taskset);
                command.args(["-c", core, program]);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).stdout(Stdio::null());
        command
    }

    /// It and the processes that it has started.
    pub fn ids(&self) -> Vec<u32> {
        let id = self.0.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().map(|it| it.parse().unwrap());
        std::iter::once(id).chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With those that it has started: nginx's workers outlive a master that is killed.
        let ids = self.ids().into_iter().map(|it| it.to_string());
        let _ = Command::new("kill").arg("-9").args(ids).status();
        let _ = self.0.wait();
    }
}

/// CPU of processes at a moment, by thread, in nanoseconds: user and system time as the scheduler
/// counts it, which is finer than the hundredths of a second in `/proc/PID/stat`.
pub struct Cpu(HashMap<String, u64>);

impl Cpu {
    pub fn of(ids: &[u32]) -> Self {
        let mut all = HashMap::new();
        for id in ids {
            for task in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
                let path = task.unwrap().path();
                // A thread may have ended meanwhile.
                let Ok(text) = fs::read_to_string(path.join("schedstat")) else {
                    continue;
                };
                let used = text.split(' ').next().unwrap().parse().unwrap();
                all.insert(path.to_str().unwrap().to_owned(), used);
            }
        }
        Self(all)
    }

    /// Seconds that were used between `before` and this. Threads that have ended since are left
    /// out: only idle ones end.
    pub fn since(&self, before: &Self) -> f64 {
        let used = self.0.iter().map(|(thread, used)| {
            let earlier = before.0.get(thread).copied().unwrap_or_default();
            used.saturating_sub(earlier)
        });
        used.sum::<u64>() as f64 / 1e9
    }
}

/// An address that nobody listens on.
pub fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Waits until somebody listens there.
pub async fn listens(address: &str) {
    for _ in 0..500 {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("nobody listens on {address}");
}
