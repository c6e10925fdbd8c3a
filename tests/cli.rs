//! The program as users type it: `gaocache dev` asked by `curl`, the other commands against it,
//! exit codes, drain by signal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gaocache");

/// `gaocache dev` over a folder, with the addresses that it printed. Stopped when dropped.
struct Dev {
    child: Child,
    output: BufReader<ChildStdout>,
    grpc: Vec<String>,
    http: Vec<String>,
    admin: Vec<String>,
    try_line: String,
}

impl Dev {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["dev", "--nodes", "3", "--origin"])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut dev = Self {
            output: BufReader::new(child.stdout.take().expect("piped")),
            child,
            grpc: Vec::new(),
            http: Vec::new(),
            admin: Vec::new(),
            try_line: String::new(),
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
            }
        }
    }

    fn stop(mut self) -> bool {
        kill("-INT", &self.child);
        self.child.wait().expect("ends").success()
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

#[test]
fn dev_serves_a_folder_to_curl_from_every_node() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    assert_eq!(dev.http.len(), 3);
    // The very line that it tells people to try.
    let shown = run("sh", &["-c", &dev.try_line]);
    let shown = text(&shown.stdout);
    assert!(
        shown.starts_with("HTTP/1.1 200") && shown.ends_with("first"),
        "{shown}"
    );
    for http in &dev.http {
        let answer = run("curl", &["-sS", &format!("{http}/v1/files/deep/b.txt")]);
        assert_eq!(text(&answer.stdout), "second");
        let status = run(
            "curl",
            &[
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--path-as-is",
                &format!("{http}/v1/files/../a.txt"),
            ],
        );
        assert_eq!(text(&status.stdout), "404");
    }
    for admin in &dev.admin {
        let answer = run("curl", &["-sS", &format!("{admin}/readyz")]);
        assert_eq!(text(&answer.stdout), "ready\n");
    }
    assert!(dev.stop(), "Ctrl-C ends it well");
}

#[test]
fn the_other_commands_talk_to_a_node() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let on = |arguments: &[&str], target: &str| {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--target", target]);
        run(PROGRAM, &arguments)
    };
    let get = on(&["get", "files", "a.txt", "-v"], &dev.grpc[0]);
    assert_eq!(
        (text(&get.stdout).as_str(), get.status.code()),
        ("first", Some(0))
    );
    assert!(
        text(&get.stderr).contains("source Origin"),
        "{}",
        text(&get.stderr)
    );

    fs::write(folder.path().join("a.txt"), "changed").expect("written");
    assert_eq!(
        text(&on(&["get", "files", "a.txt"], &dev.grpc[1]).stdout),
        "first"
    );
    assert_eq!(
        on(&["remove", "files", "a.txt"], &dev.grpc[1])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(
        text(&on(&["get", "files", "a.txt"], &dev.grpc[2]).stdout),
        "changed"
    );
    let purge = on(&["purge", "files"], &dev.grpc[2]);
    assert!(
        text(&purge.stdout).starts_with("removed "),
        "{}",
        text(&purge.stdout)
    );

    let admin: Vec<&str> = dev
        .admin
        .iter()
        .map(|it| it.trim_start_matches("http://"))
        .collect();
    let table = text(&on(&["ring", "--key", "a.txt"], admin[0]).stdout);
    assert!(
        table.contains("3 members")
            && table.contains("dev-2")
            && table.contains("owner in group files: dev-"),
        "{table}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&on(&["ring", "--json"], admin[1]).stdout).expect("JSON");
    assert_eq!(json["members"].as_array().expect("a list").len(), 3);

    let missing = on(&["get", "files", "no-such-file"], &dev.grpc[0]);
    assert_eq!(missing.status.code(), Some(3));
    assert_eq!(
        on(&["get", "no-such-group", "k"], &dev.grpc[0])
            .status
            .code(),
        Some(1)
    );
    let nobody = on(&["get", "files", "a.txt"], "127.0.0.1:1");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("127.0.0.1:1"));
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    assert_eq!(run(PROGRAM, &["no-such-command"]).status.code(), Some(2));
    let wrong = run(
        PROGRAM,
        &[
            "serve",
            "--set",
            "node.wieght=1",
            "--set",
            "cache.capacity=much",
        ],
    );
    assert_eq!(wrong.status.code(), Some(64));
    let message = text(&wrong.stderr);
    assert!(
        message.contains("node.wieght") && message.contains("cache.capacity"),
        "{message}"
    );
    let no_groups = run(PROGRAM, &["serve", "--set", "registry.kind=memory"]);
    assert_eq!(no_groups.status.code(), Some(64));
    assert!(text(&no_groups.stderr).contains("[[groups]]"));
}

#[test]
fn config_prints_what_is_in_force_and_where_it_came_from() {
    let shown = Command::new(PROGRAM)
        .args(["config", "--set", "registry.kind=memory"])
        .env("GAOCACHE__NODE__ZONE", "zone-b")
        .env("GAOCACHE_PORT", "tcp://10.0.0.1:7070")
        .env("POD_NAME", "gaocache-7")
        .output()
        .expect("runs");
    let shown = text(&shown.stdout);
    let line = |name: &str| {
        let found = shown
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        found
            .unwrap_or_else(|| panic!("{name} is missing:\n{shown}"))
            .to_owned()
    };
    assert!(line("node.zone").ends_with("# environment variable GAOCACHE__NODE__ZONE"));
    assert!(
        line("node.id").contains("\"gaocache-7\"")
            && line("node.id").ends_with("# environment variable POD_NAME")
    );
    assert!(line("registry.kind").ends_with("# flag --set"));
    assert!(line("grpc.listen").contains("\"0.0.0.0:7070\""));
}

#[test]
fn serve_drains_on_sigterm_and_exits_with_0() {
    let folder = folder();
    let groups = format!(
        "groups=[{{ name = \"files\", origin = {{ kind = \"file\", path = {:?} }} }}]",
        folder.path()
    );
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--set", "registry.kind=memory", "--set", &groups])
        .args([
            "--set",
            "grpc.listen=127.0.0.1:0",
            "--set",
            "http.listen=127.0.0.1:0",
            "--set",
            "admin.listen=127.0.0.1:0",
        ])
        .args(["--set", "log.format=json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    assert!(
        lines.any(|line| line.contains("\"ready\"")),
        "it became ready"
    );
    kill("-TERM", &child);
    let rest: Vec<String> = lines.collect();
    assert!(child.wait().expect("ends").success());
    let position = |what: &str| {
        rest.iter()
            .position(|line| line.contains(what))
            .unwrap_or_else(|| panic!("{what}: {rest:#?}"))
    };
    assert!(position("draining") < position("deregistered"));
    assert!(position("deregistered") < position("closing the listeners"));
    assert!(position("closing the listeners") < position("stopped"));
}
