//! The commands that find the nodes in etcd.

use gaocache_testing::SecuredEtcd;

use super::*;
use common::{
    CountingOrigin,
    etcd::Etcd,
    process::{NodeProcess, agree},
};

/// Exit code, standard output and standard error.
pub(super) fn told(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(PROGRAM, arguments);
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_logs_in_to_etcd() {
    let (etcd, origin) = (SecuredEtcd::start().await, CountingOrigin::start().await);
    etcd.demand_a_password().await;
    let path = |name: &str| etcd.file(name).display().to_string();
    let files = [
        path("ca.pem"),
        path("client.pem"),
        path("client.key"),
        path("password"),
    ];
    let settings: Vec<String> = ["tls.ca", "tls.cert", "tls.key", "password_file"]
        .iter()
        .zip(&files)
        .map(|(name, file)| format!("registry.etcd.{name}={file}"))
        .collect();
    let mut further: Vec<&str> = settings.iter().map(String::as_str).collect();
    further.push("registry.etcd.username=root");
    let node = NodeProcess::start("n0", &[etcd.url()], &origin.url(), &further);
    node.until_ready().await;

    let tls = [
        "--etcd-ca",
        &files[0],
        "--etcd-cert",
        &files[1],
        "--etcd-key",
        &files[2],
    ];
    let user = ["--etcd-user", "root", "--etcd-password-file", &files[3]];
    for command in [
        &["get", "users", "alice"][..],
        &["remove", "users", "alice"],
        &["purge", "users"],
        &["ring"],
        &["check"],
    ] {
        let all = [command, &["--etcd", etcd.url()], &tls, &user].concat();
        let (code, shown, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(0), "{command:?}: {shown}{errors}");
        let unknown = [command, &["--etcd", etcd.url()], &tls].concat();
        let (code, shown, errors) = tokio::task::block_in_place(|| told(&unknown));
        assert_eq!(code, Some(1), "{command:?}: {shown}{errors}");
        assert!(
            errors.contains("etcd: ") && errors.contains("permission denied"),
            "{errors}"
        );
        assert!(!errors.contains("no node"), "{errors}");
    }
    let alone = ["ring", "--etcd", etcd.url(), "--etcd-user", "root"];
    assert_eq!(
        tokio::task::block_in_place(|| told(&alone)).0,
        Some(2),
        "without a password"
    );
    let missing = ["ring", "--etcd", etcd.url(), "--etcd-ca", "/no/such/ca.pem"];
    let (code, _, errors) = tokio::task::block_in_place(|| told(&missing));
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("--etcd-ca /no/such/ca.pem: the file can't be read"),
        "{errors}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_sees_that_groups_differ() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let node =
        |id: &str, further: &[&str]| NodeProcess::start(id, &[&etcd.url], &origin.url(), further);
    let mut nodes = vec![node("n0", &[]), node("n1", &["groups[0].ttl_seconds=60"])];
    agree(&nodes).await;
    let check = || tokio::task::block_in_place(|| told(&["check", "--etcd", &etcd.url]));
    let (code, shown, errors) = check();
    assert_eq!(code, Some(1), "{shown}");
    let expected = "n0 and n1 have different groups: ttl_seconds of 'users' is 600 and 60";
    assert!(errors.contains(expected), "{errors}");
    let json = ["check", "--json", "--etcd", &etcd.url];
    let (_, shown, _) = tokio::task::block_in_place(|| told(&json));
    let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(json["ok"], false);
    assert_eq!(json["nodes"].as_array().expect("a list").len(), 2);
    nodes[1].terminate().await;
    nodes[1] = node("n1", &[]);
    agree(&nodes).await;
    let (code, shown, errors) = check();
    assert_eq!(code, Some(0), "{shown}{errors}");
}

#[test]
fn an_etcd_that_is_away_is_told_as_such() {
    for command in [
        &["get", "users", "alice"][..],
        &["purge", "users"],
        &["ring"],
        &["check"],
    ] {
        let all = [command, &["--etcd", "http://127.0.0.1:1"]].concat();
        let (code, shown, errors) = told(&all);
        assert_eq!(code, Some(1), "{command:?}: {shown}");
        assert!(
            errors.starts_with("gaocache: etcd: http://127.0.0.1:1: "),
            "{command:?}: {errors}"
        );
        assert!(!errors.contains("no node"), "{command:?}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_ring_is_a_failure() {
    let etcd = Etcd::start().await;
    for command in [
        &["get", "users", "alice"][..],
        &["ring"],
        &["ring", "--json"],
    ] {
        let all = [command, &["--etcd", &etcd.url, "--service", "nobody"]].concat();
        let (code, _, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(1), "{command:?}: {errors}");
        assert!(
            errors.contains("no node is registered as 'nobody' in etcd"),
            "{errors}"
        );
    }
}

fn on(etcd: &Etcd, arguments: &[&str]) -> (Option<i32>, String, String) {
    let all = [arguments, &["--etcd", &etcd.url]].concat();
    tokio::task::block_in_place(|| told(&all))
}

/// The states of the members, by id.
fn states(etcd: &Etcd) -> Vec<(String, String)> {
    let (_, shown, _) = on(etcd, &["members", "--json"]);
    let members: Vec<serde_json::Value> = serde_json::from_str(&shown).expect("JSON");
    let text = |it: &serde_json::Value| it.as_str().expect("text").to_owned();
    let named = members
        .iter()
        .map(|it| (text(&it["id"]), text(&it["state"])));
    named.collect()
}

/// Two of three crash: the one that is left may not expel them by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_forgets_members_that_are_gone_for_good() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let node = |id: &str| NodeProcess::start(id, &[&etcd.url], &origin.url(), &[]);
    let mut nodes = vec![node("n0"), node("n1"), node("n2")];
    agree(&nodes).await;
    let admin = format!("127.0.0.1:{}", nodes[0].admin);
    let alive = on(&etcd, &["forget", "n1"]);
    assert_eq!(alive.0, Some(1), "{}", alive.2);
    assert!(
        alive.2.contains("n1 at 127.0.0.1") && alive.2.contains("is not gone"),
        "{}",
        alive.2
    );
    assert_eq!(on(&etcd, &["forget", "n9"]).0, Some(1));

    nodes[1].kill();
    // Its key stays until its lease ends.
    let (code, _, errors) = on(&etcd, &["forget", "n1"]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("wait until its lease ends"), "{errors}");
    nodes[2].kill();
    common::within("both vanish", async {
        let gone = |state: &str| state == "vanished";
        while states(&etcd).iter().filter(|it| gone(&it.1)).count() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    common::within("the metric", async {
        while nodes[0].metric("gaocache_members_vanished", "").await != 2.0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let (_, ring, _) = tokio::task::block_in_place(|| told(&["ring", "--admin", &admin]));
    assert_eq!(ring.matches("vanished").count(), 2, "{ring}");
    let (_, table, _) = on(&etcd, &["members"]);
    assert!(
        table.starts_with("id  address") && table.contains("  registered "),
        "{table}"
    );

    let (_, _, errors) = on(&etcd, &["check"]);
    let gone = "vanished; see `gaocache forget` if it never comes back: no answer";
    assert_eq!(errors.matches(gone).count(), 2, "{errors}");
    assert!(!errors.contains("can't connect to n"), "{errors}");
    let target = format!("127.0.0.1:{}", nodes[0].grpc);
    let removed = ["remove", "users", "alice", "--target", &target];
    let (code, _, errors) = tokio::task::block_in_place(|| told(&removed));
    let hint = "`gaocache forget` takes those that never come back off the list";
    assert!(code == Some(1) && errors.contains(hint), "{errors}");
    for id in ["n1", "n2"] {
        let (code, shown, errors) = on(&etcd, &["forget", id]);
        // The last one may be expelled as soon as half of those left agree.
        let expelled = errors.contains("etcd has no member") || errors.contains("was changed");
        assert!(code == Some(0) || expelled, "{id}: {shown}{errors}");
    }
    nodes[0].until_ring(&["n0"]).await;
    let (code, _, errors) = tokio::task::block_in_place(|| told(&removed));
    assert_eq!(code, Some(0), "{errors}");
}

/// Anyone who may write to etcd can leave such a key; nothing renews it, and nothing ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_key_without_a_lease_can_be_forgotten() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &[]);
    node.until_ready().await;
    let mut client = etcd.client().await;
    let dead = r#"{"Op":0,"Addr":"127.0.0.1:1","Metadata":{"state":"serving"}}"#;
    client
        .put("gaocache/dead", dead, None)
        .await
        .expect("written");
    node.until_ring(&["dead", "n0"]).await;
    let target = format!("127.0.0.1:{}", node.grpc);
    let remove = ["remove", "users", "alice", "--target", &target];
    let (code, _, errors) = tokio::task::block_in_place(|| told(&remove));
    assert_eq!(code, Some(1), "it waits for the dead one");
    assert!(errors.contains("dead at 127.0.0.1:1"), "{errors}");
    let (code, _, errors) = on(&etcd, &["forget", "dead"]);
    assert_eq!(code, Some(0), "{errors}");
    node.until_ring(&["n0"]).await;
    let (code, _, errors) = tokio::task::block_in_place(|| told(&remove));
    assert_eq!(code, Some(0), "{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ring_invents_no_owner_and_check_shows_the_get() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &[]);
    node.until_ready().await;
    let admin = format!("127.0.0.1:{}", node.admin);
    let by_admin = ["ring", "--admin", &admin, "--key", "k", "--group", "nope"];
    let (code, _, errors) = tokio::task::block_in_place(|| told(&by_admin));
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("n0 has no group 'nope'; it has: users"),
        "{errors}"
    );
    let (code, shown, errors) = on(&etcd, &["ring", "--key", "k", "--group", "nope"]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(errors.contains("n0 has no group 'nope'"), "{errors}");
    let (code, shown, _) = on(&etcd, &["ring", "--key", "k", "--group", "users"]);
    assert_eq!(code, Some(0));
    assert!(shown.contains("owner in group users: n0"), "{shown}");
    assert_eq!(on(&etcd, &["ring", "--key", "k"]).0, Some(2));

    let (code, shown, _) = on(&etcd, &["check", "--group", "users", "--key", "alice"]);
    assert_eq!(code, Some(0));
    assert!(
        shown.contains(", get: ") && shown.contains("bytes"),
        "{shown}"
    );
    assert!(shown.ends_with("ok: 1 node agrees\n"), "{shown}");
}

/// A node that can't take its registration back has not drained.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_fails_is_no_success() {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &["log.format=json"]);
    node.until_ready().await;
    etcd.kill();
    let status = node.terminated().await;
    assert_eq!(status.code(), Some(1));
    let log = node.log.lock().join("\n");
    assert!(log.contains("\"drained\":false"), "{log}");
}

/// An etcd that wants a user and a password.
async fn with_a_login() -> Etcd {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let added = client.user_add("root", "geheim", None).await;
    added.expect("a user");
    client.role_add("root").await.expect("a role");
    let granted = client.user_grant_role("root", "root").await;
    granted.expect("granted");
    client.auth_enable().await.expect("enabled");
    etcd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_way_to_etcd_is_told_with_what_to_do() {
    let (plain, secured) = (with_a_login().await, SecuredEtcd::start().await);
    let origin = CountingOrigin::start().await;
    let over_tls = plain.url.replace("http://", "https://");
    let over_plaintext = secured.url().replace("https://", "http://");
    let no_etcd = format!("http://{}", origin.address);
    let ca = secured.file("ca.pem").display().to_string();
    for (further, wanted) in [
        (
            &["--etcd", &plain.url][..],
            "etcd wants a login; see --etcd-user and --etcd-password-file",
        ),
        (&["--etcd", &over_tls], "does it speak TLS?"),
        (
            &["--etcd", secured.url()],
            "no trusted CA signed the certificate of etcd; see --etcd-ca",
        ),
        (
            &["--etcd", secured.url(), "--etcd-ca", &ca],
            "a client certificate",
        ),
        (&["--etcd", &over_plaintext], "begins with https://"),
        (
            &["--etcd", &no_etcd],
            "is this the port of an etcd for clients",
        ),
    ] {
        let all = [&["ring"], further].concat();
        let (code, _, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(1), "{further:?}: {errors}");
        assert!(errors.contains(wanted), "{further:?}: {errors}");
    }
    // A node says so in its log and where it is asked whether it is ready.
    let node = NodeProcess::start("n0", &[&plain.url], &origin.url(), &[]);
    let wanted = "etcd wants a login; see registry.etcd.username and registry.etcd.password_file";
    let url = format!("http://127.0.0.1:{}/readyz", node.admin);
    common::within("both tell", async {
        loop {
            let told = match common::http().get(&url).send().await {
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            let logged = node.log.lock().iter().any(|line| line.contains(wanted));
            if told.contains(wanted) && logged {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Until the end of `--timeout`, the certificate would be the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_trusted_is_told_at_once() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let files = tempfile::tempdir().expect("a folder");
    common::etcd::certificates(files.path());
    let file = |name: &str| files.path().join(name).display().to_string();
    let further = [
        format!("grpc.tls.cert={}", file("server.pem")),
        format!("grpc.tls.key={}", file("server.key")),
    ];
    let further = further.each_ref().map(String::as_str);
    let node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &further);
    node.until_ready().await;
    let get = ["get", "users", "alice", "--etcd", &etcd.url];
    let patient = [&get[..], &["--timeout", "86400"]].concat();
    let status = tokio::task::block_in_place(|| {
        let started = Command::new(PROGRAM).args(&patient).spawn();
        ended(&mut started.expect("starts"))
    });
    assert_eq!(status.code(), Some(1), "it had to be killed");
    let ca = file("ca.pem");
    let trusting = [&get[..], &["--ca", &ca]].concat();
    let (code, _, errors) = tokio::task::block_in_place(|| told(&trusting));
    assert_eq!(code, Some(0), "{errors}");
}
