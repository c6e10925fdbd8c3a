//! The program as users type it: `gaocache dev` asked by `curl`, the other commands against it,
//! exit codes, drain by signal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod certificates;
mod check;
#[path = "../common/mod.rs"]
mod common;
mod contexts;
mod dev;
mod errors;
mod etcd;
mod explain;
mod hints;
mod large;
mod live;
mod mounted;
mod reload;
mod secrets;
mod serve;
mod settings;
mod transcripts;
mod warnings;
mod zone;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
};

use common::LONG;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gaocache");

/// `gaocache dev` over a folder, with the addresses that it printed. Stopped when dropped.
struct Dev {
    child: Child,
    output: BufReader<ChildStdout>,
    grpc: Vec<String>,
    http: Vec<String>,
    admin: Vec<String>,
    try_line: String,
    /// Further lines to try.
    hints: Vec<String>,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        Self::with(folder.to_str().expect("text"), &[], Stdio::inherit())
    }

    fn with(origin: &str, further: &[&str], errors: Stdio) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--nodes", "3", "--origin", origin])
            .args(further)
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("starts");
        let mut dev = Self {
            output: BufReader::new(child.stdout.take().expect("piped")),
            child,
            grpc: Vec::new(),
            http: Vec::new(),
            admin: Vec::new(),
            try_line: String::new(),
            hints: Vec::new(),
        };
        loop {
            let mut line = String::new();
            assert!(
                dev.output.read_line(&mut line).expect("readable") > 0,
                "it ended early"
            );
            let words: Vec<&str> = line.split_whitespace().collect();
            if line.starts_with("dev-") {
                dev.grpc.push(words[2].into());
                dev.http.push(words[4].into());
                dev.admin.push(words[6].into());
            } else if line.starts_with("Try:") {
                dev.try_line = line.trim_start_matches("Try:").trim().into();
            } else if line.starts_with("Stop:") {
                return dev;
            } else if !dev.try_line.is_empty() {
                dev.hints.push(line.trim().into());
            }
        }
    }

    fn stop(mut self) -> bool {
        kill("-INT", &self.child);
        ended(&mut self.child).success()
    }
}

fn kill(signal: &str, child: &Child) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process; bounded, so that one that hangs fails its test.
fn ended(child: &mut Child) -> ExitStatus {
    let (tell, told) = mpsc::channel();
    let id = child.id().to_string();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if told.recv_timeout(LONG).is_err() {
                let _ = Command::new("kill").args(["-KILL", &id]).status();
            }
        });
        let status = child.wait().expect("ends");
        let _ = tell.send(());
        status
    })
}

/// The lines of an output as they come; a thread reads them, so that waiting for one has a bound.
fn lines(output: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        lines.try_for_each(|line| tell.send(line))
    });
    told
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.txt"), "first").expect("written");
    fs::create_dir(folder.path().join("deep")).expect("made");
    fs::write(folder.path().join("deep/b.txt"), "second").expect("written");
    folder
}

/// Takes connections and never answers.
struct SilentOrigin {
    address: std::net::SocketAddr,
    asked: mpsc::Receiver<()>,
}

impl SilentOrigin {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (tell, asked) = mpsc::channel();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                held.push(stream);
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Self { address, asked }
    }

    /// Returns when somebody is connected.
    fn is_asked(&self) {
        self.asked.recv_timeout(LONG).expect("it is asked");
    }
}
