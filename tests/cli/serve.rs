//! `gaocache serve`: how settings take effect, and how signals end it.

use std::net::TcpListener;

use super::*;
use common::{CountingOrigin, etcd::Etcd, process::NodeProcess};

/// `gaocache serve` on free ports, alone. Killed when dropped.
pub(super) struct Serve {
    pub(super) child: Child,
    log: mpsc::Receiver<String>,
    pub(super) grpc: String,
    pub(super) http: String,
    /// Empty if it doesn't listen for Redis clients.
    pub(super) redis: String,
    pub(super) admin: String,
}

impl Serve {
    pub(super) fn start(further: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--set", "log.format=json"]);
        Self::run(command, further, variables)
    }

    /// With the settings of this file.
    pub(super) fn with_file(file: &Path, further: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--set", "log.format=json", "--config"]);
        command.arg(file);
        Self::run(command, further, &[])
    }

    /// With the settings of this file and no others.
    pub(super) fn with_only(file: &Path) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--config"]).arg(file);
        Self::spawn(command)
    }

    fn run(mut command: Command, further: &[&str], variables: &[(&str, &str)]) -> Self {
        for listener in ["grpc", "http", "peer", "admin"] {
            command.args(["--set", &format!("{listener}.listen=127.0.0.1:0")]);
        }
        command.args(["--set", common::EVERYBODY_MAY]);
        for setting in further {
            command.args(["--set", setting]);
        }
        command.envs(variables.iter().copied());
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).spawn();
        let mut child = child.expect("starts");
        let log = lines(child.stdout.take().expect("piped"));
        let mut serve = Self {
            child,
            log,
            grpc: String::new(),
            http: String::new(),
            redis: String::new(),
            admin: String::new(),
        };
        let open = serve.logs("listeners are open");
        let open: serde_json::Value = serde_json::from_str(&open).expect("JSON");
        let address = |of: &str| open[of].as_str().unwrap_or_default().to_owned();
        serve.grpc = address("grpc");
        serve.http = address("http");
        serve.redis = address("redis");
        serve.admin = address("admin");
        serve
    }

    /// The next line; `None` when it has ended.
    pub(super) fn next_line(&mut self) -> Option<String> {
        self.log.recv_timeout(LONG).ok()
    }

    /// The next line with these words.
    pub(super) fn logs(&mut self, words: &str) -> String {
        loop {
            let line = self.log.recv_timeout(LONG);
            let line = line.unwrap_or_else(|error| panic!("{words}: {error}"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn files(folder: &Path, further: &str) -> String {
    let path = folder.display();
    format!(
        "groups=[{{ name = \"files\", {further} origin = {{ kind = \"file\", path = \"{path}\" }} }}]"
    )
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
            "peer.listen=127.0.0.1:0",
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

#[test]
fn a_setting_of_one_group_takes_effect() {
    let folder = folder();
    let groups = files(folder.path(), "ttl_seconds = 300,");
    let max_age = |further: &[&str], variables: &[(&str, &str)]| {
        let mut given = vec!["registry.kind=memory", &groups];
        given.extend(further);
        let mut serve = Serve::start(&given, variables);
        serve.logs("\"ready\"");
        let url = format!("http://{}/v1/files/a.txt", serve.http);
        let head = text(&run("curl", &["-sI", &url]).stdout);
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix("cache-control: max-age="));
        let seconds: u32 = line.expect("a life").trim().parse().expect("seconds");
        seconds
    };
    assert!((200..=300).contains(&max_age(&[], &[])));
    assert!(max_age(&["groups[0].ttl_seconds=50"], &[]) <= 50);
    for variable in [
        "GAOCACHE__GROUPS__0__TTL_SECONDS",
        "GAOCACHE__GROUPS[0]__TTL_SECONDS",
    ] {
        // The list comes from a flag, so a variable for one of its groups has no say.
        assert!((200..=300).contains(&max_age(&[], &[(variable, "50")])));
    }
}

#[test]
fn sighup_does_not_kill_and_sigterm_drains_after_it() {
    let folder = folder();
    let mut serve = Serve::start(&["registry.kind=memory", &files(folder.path(), "")], &[]);
    serve.logs("\"ready\"");
    kill("-HUP", &serve.child);
    serve.logs("\"cause\":\"SIGHUP\"");
    let url = format!("http://{}/v1/files/a.txt", serve.http);
    assert_eq!(text(&run("curl", &["-s", &url]).stdout), "first");
    kill("-TERM", &serve.child);
    serve.logs("draining");
    serve.logs("stopped");
    assert!(ended(&mut serve.child).success());
}

#[test]
fn a_reload_by_signal_is_in_the_audit() {
    let folder = folder();
    let files = files(folder.path(), "");
    let settings = ["registry.kind=memory", &files, "log.audit=stdout"];
    let mut serve = Serve::start(&settings, &[]);
    serve.logs("\"ready\"");
    kill("-HUP", &serve.child);
    serve.logs("\"audit\":\"reload\",\"from\":\"SIGHUP\"");
}

/// As a supervisor sends them that signals the process and its group.
#[test]
fn two_signals_at_once_are_one() {
    let folder = folder();
    let mut serve = Serve::start(&["registry.kind=memory", &files(folder.path(), "")], &[]);
    serve.logs("\"ready\"");
    kill("-TERM", &serve.child);
    kill("-INT", &serve.child);
    serve.logs("\"stopped\"");
    assert!(ended(&mut serve.child).success());
}

#[test]
fn errors_of_http_and_admin_have_a_kind() {
    let folder = folder();
    let mut serve = Serve::start(&["registry.kind=memory", &files(folder.path(), "")], &[]);
    serve.logs("\"ready\"");
    let (http, admin) = (serve.http.clone(), serve.admin.clone());
    for (method, url, status) in [
        ("POST", format!("http://{http}/v1/files/a.txt"), 405),
        ("PUT", format!("http://{http}/v1/files/a.txt"), 405),
        ("GET", format!("http://{admin}/no-such-path"), 404),
        ("POST", format!("http://{admin}/ring"), 405),
        ("PUT", format!("http://{admin}/log"), 400),
        ("PUT", format!("http://{admin}/log?level=bogus"), 400),
    ] {
        let answer = text(&run("curl", &["-si", "-X", method, &url]).stdout);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{method} {url}: {answer}"
        );
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(
            head.contains("gaocache-error: invalid_request"),
            "{method} {url}: {head}"
        );
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"], "invalid_request", "{method} {url}");
        if status == 405 {
            assert!(head.contains("allow: GET,HEAD"), "{method} {url}: {head}");
        }
    }
}

#[test]
fn a_second_signal_ends_a_node_whose_requests_hang() {
    let origin = SilentOrigin::start();
    let groups = format!(
        "groups=[{{ name = \"web\", origin = {{ kind = \"http\", url = \"http://{}/{{key}}\", timeout_seconds = 3600 }} }}]",
        origin.address
    );
    let mut serve = Serve::start(
        &[
            "registry.kind=memory",
            "node.shutdown_timeout_seconds=3600",
            &groups,
        ],
        &[],
    );
    serve.logs("\"ready\"");
    let mut asking = Command::new("curl")
        .args(["-s", &format!("http://{}/v1/web/k", serve.http)])
        .spawn()
        .expect("curl starts");
    origin.is_asked();
    kill("-TERM", &serve.child);
    serve.logs("closing the listeners");
    // One within a second of the first counts as the first.
    let shell = format!(
        "while kill -TERM {} 2>/dev/null; do sleep 0.2; done",
        serve.child.id()
    );
    let mut again = Command::new("sh").args(["-c", &shell]).spawn().expect("sh");
    assert_eq!(ended(&mut serve.child).code(), Some(1));
    ended(&mut again);
    ended(&mut asking);
}

/// Half of the drain's time, as it was, would be half an hour.
#[test]
fn a_node_whose_etcd_is_away_does_not_wait_for_it_when_it_ends() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let etcd = format!(
        "registry.etcd.endpoints=http://{}",
        nobody.local_addr().expect("bound")
    );
    drop(nobody);
    let folder = folder();
    let groups = files(folder.path(), "");
    let mut serve = Serve::start(&[&etcd, "node.drain_timeout_seconds=3600", &groups], &[]);
    serve.logs("the watch on etcd broke");
    kill("-TERM", &serve.child);
    assert!(ended(&mut serve.child).success());
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let folder = folder();
    let groups = files(folder.path(), "");
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--set", "log.format=json"]);
    for setting in [
        "registry.kind=memory",
        "log.requests=all",
        "log.max_requests_per_second=1000000",
        &groups,
    ] {
        command.args(["--set", setting]);
    }
    for listener in ["grpc", "http", "peer", "admin"] {
        command.args(["--set", &format!("{listener}.listen=127.0.0.1:0")]);
    }
    let mut serve = Serve {
        child: command.stdout(Stdio::piped()).spawn().expect("starts"),
        log: mpsc::channel().1,
        grpc: String::new(),
        http: String::new(),
        redis: String::new(),
        admin: String::new(),
    };
    let mut lines = BufReader::new(serve.child.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    let open = lines
        .find(|line| line.contains("listeners are open"))
        .expect("it opens listeners");
    let open: serde_json::Value = serde_json::from_str(&open).expect("JSON");
    assert!(lines.any(|line| line.contains("\"ready\"")));
    // From here on nobody reads. The lines of these requests are more than the pipe holds.
    let host = open["http"].as_str().expect("an address");
    let url = format!("http://{host}/v1/files/a.txt#[1-2000]");
    let codes = run(
        "curl",
        &[
            "-s",
            "--fail-early",
            "-m",
            "30",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} ",
            &url,
        ],
    );
    let codes = text(&codes.stdout);
    assert_eq!(codes.matches("200").count(), 2000, "{codes}");
    kill("-TERM", &serve.child);
    let ended = ended(&mut serve.child);
    assert!(ended.success(), "it drains and ends all the same");
}

/// A proxy sees what is sent to origins, and whoever can set variables could put one in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_of_the_environment_are_used_only_if_a_setting_says_so() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let proxy = CountingOrigin::start().await;
    let at = format!("http://{}", proxy.address);
    let variables = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|it| (it, &*at));
    let none = [("NO_PROXY", ""), ("no_proxy", "")];
    let variables = [&variables[..], &none].concat();
    for (setting, wanted) in [("false", (1, 0)), ("true", (1, 1))] {
        let setting = format!("node.proxy_from_environment={setting}");
        let url = origin.url();
        let mut node =
            NodeProcess::with_variables("n0", &[&etcd.url], &url, &[&setting], &variables);
        node.until_ready().await;
        let (grpc, admin) = (
            format!("127.0.0.1:{}", node.grpc),
            format!("127.0.0.1:{}", node.admin),
        );
        for command in [
            &["get", "users", "alice", "--target", &grpc][..],
            &["explain", "users", "alice", "--admin", &admin],
            &["ring", "--admin", &admin],
            &["check", "--etcd", &etcd.url],
        ] {
            let mut told = Command::new(PROGRAM);
            told.args(command).envs(variables.iter().copied());
            let told = tokio::task::block_in_place(|| told.output()).expect("runs");
            assert!(told.status.success(), "{command:?}: {}", text(&told.stderr));
        }
        assert_eq!((origin.loads(), proxy.loads()), wanted, "{setting}");
        node.terminate().await;
    }
}
