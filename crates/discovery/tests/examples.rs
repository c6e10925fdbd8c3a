//! The examples do what their first lines say, each in one command, against a real etcd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use gaocache_testing::{Etcd, example, run_example, signal};
use tokio::time::Instant;

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(example(name))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// The next line that `wanted` says yes to.
    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let found = self
            .lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| wanted(line));
        found.expect("the line comes")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_greeter(name: &str, etcd: &Etcd) -> Running {
    let arguments = [
        "--name",
        name,
        "--etcd",
        &etcd.url,
        "--lease-ttl-seconds",
        "2",
    ];
    let mut server = Running::start("greeter_server", &arguments);
    server.until(|line| line.contains("serves on"));
    server
}

/// What the client prints that waits for so many servers, then makes so many calls.
fn ask_greeters(etcd: &Etcd, time: &str, count: &str, servers: &str) -> String {
    let arguments = [
        "--etcd",
        &etcd.url,
        "--time",
        time,
        "--count",
        count,
        "--servers",
        servers,
    ];
    run_example("greeter_client", &arguments)
}

#[tokio::test]
async fn greeters_come_in_turn_leave_at_once_by_signal_and_with_their_lease_when_killed() {
    let etcd = Etcd::start().await;
    let mut list = Running::start(
        "service_list",
        &["demo/greeter/", "other/", "--etcd", &etcd.url],
    );
    let mut servers =
        BTreeMap::from(["one", "two", "three"].map(|it| (it, start_greeter(it, &etcd))));
    list.until(|line| line.contains(": 3 endpoints"));
    let ask = |time: &str, count: &str, servers: &str| ask_greeters(&etcd, time, count, servers);
    let mornings = ask("morning", "9", "3");
    for name in ["one", "two", "three"] {
        let answers = mornings
            .matches(&format!("Good morning, world, from {name}\n"))
            .count();
        assert_eq!(answers, 3, "in turn:\n{mornings}");
    }

    let mut one = servers.remove("one").unwrap();
    signal(&one.child, "-TERM");
    assert!(one.child.wait().expect("ends").success());
    assert_eq!(
        etcd.keys("demo/greeter/").await.len(),
        2,
        "gone when it has ended, not later"
    );
    list.until(|line| line.contains(": 2 endpoints"));
    let nights = ask("night", "8", "2");
    assert!(
        nights.contains("Good night, world, from two") && nights.contains("from three"),
        "{nights}"
    );
    assert!(
        !nights.contains("from one") && !nights.contains("failed"),
        "{nights}"
    );

    let mut two = servers.remove("two").unwrap();
    two.child.kill().expect("killed");
    let killed_at = Instant::now();
    two.child.wait().expect("ends");
    assert_eq!(
        etcd.keys("demo/greeter/").await.len(),
        2,
        "its lease still stands"
    );
    // Calls don't wait for that: only what is connected gets them.
    let alone = ask("morning", "4", "1");
    assert_eq!(alone.matches("from three").count(), 4, "{alone}");
    list.until(|line| line.ends_with(": 1 endpoint"));
    let took = killed_at.elapsed();
    println!("killed: off the list after {took:?}, lease 2 s");
    assert!(took < Duration::from_secs(10), "{took:?}");

    let mut etcd_client = etcd.client().await;
    etcd_client
        .put("other/x", "10.0.0.1:1", None)
        .await
        .unwrap();
    let line = list.until(|line| line.contains("other/x"));
    assert!(line.contains("10.0.0.1:1"), "{line}");
}
