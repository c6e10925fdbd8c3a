//! Membership in a real etcd: what a node, a registration and a discovery do when etcd, its keys and its history come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{
    CountingOrigin, TestNode,
    etcd::{Etcd, Proxy, certificates, free_port},
    settings, within,
};
use etcd_client::{Client, PutOptions};
use gaocache::{
    NodeBuilder,
    config::Settings,
    discovery::{
        Credentials, Discovery, Endpoint, EtcdConfig, Registration, RegistrationStatus, Snapshot,
        TlsFiles,
    },
};
use tokio::{sync::watch, time::Instant};

const TTL: Duration = Duration::from_secs(2);

fn config(urls: &[&str]) -> EtcdConfig {
    EtcdConfig {
        lease_ttl: TTL,
        ..EtcdConfig::new(urls.iter().copied())
    }
}

async fn registered(status: &mut watch::Receiver<RegistrationStatus>) -> RegistrationStatus {
    let until = status.wait_for(|it| it.registered.is_some());
    within("registration", until)
        .await
        .expect("running")
        .clone()
}

async fn until(
    discovery: &Discovery,
    what: &str,
    wanted: impl FnMut(&Snapshot) -> bool,
) -> Snapshot {
    let mut changes = discovery.changes();
    let snapshot = within(what, changes.wait_for(wanted))
        .await
        .expect("running");
    snapshot.clone()
}

fn keys(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.endpoints.keys().map(|key| &**key).collect()
}

fn node_settings(id: &str, etcd: &str, origin: &CountingOrigin, further: &[&str]) -> Settings {
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

async fn node(id: &str, etcd: &str, origin: &CountingOrigin) -> TestNode {
    let builder = NodeBuilder::new(node_settings(id, etcd, origin, &[]));
    TestNode::start(builder.bind().await.expect("binds"))
}

/// The lease of a key.
async fn lease_of(client: &mut Client, key: &str) -> i64 {
    client
        .get(key, None)
        .await
        .unwrap()
        .kvs()
        .first()
        .map_or(0, |kv| kv.lease())
}

#[tokio::test]
async fn a_node_stands_in_etcd_as_go_writes_it_and_is_ready_when_it_has_seen_itself() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut node = node("gaocache-0", &etcd.url, &origin).await;
    node.ready().await;
    let keys = etcd.keys("gaocache/").await;
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].0, "gaocache/gaocache-0");
    let stored: serde_json::Value = serde_json::from_str(&keys[0].1).unwrap();
    assert_eq!(stored["Op"], 0);
    assert_eq!(stored["Addr"], node.addresses.grpc.to_string());
    assert_eq!(stored["Metadata"]["state"], "serving");
    assert_eq!(
        stored["Metadata"]["admin_port"],
        node.addresses.admin.port()
    );
    let mut client = etcd.client().await;
    let written = client.get("gaocache/gaocache-0", None).await.unwrap();
    let revision = written.kvs()[0].mod_revision();
    assert_eq!(
        node.rings.borrow().view.revision,
        revision as u64,
        "the view counts in etcd's revisions"
    );
    for (name, labels) in [
        ("gaocache_lease_renewals_total", ["outcome=\"ok\""]),
        ("gaocache_registrations_total", ["reason=\"start\""]),
    ] {
        assert!(common::metric(&node, name, &labels).await >= 1.0, "{name}");
    }
    assert_eq!(
        common::metric(&node, "gaocache_ring_members", &[]).await,
        1.0
    );
    node.stopped().await;
    assert!(etcd.keys("gaocache/").await.is_empty(), "deregistered");
}

#[tokio::test]
async fn nodes_join_and_leave_and_all_agree() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(node(&format!("n{n}"), &etcd.url, &origin).await);
    }
    for node in &mut nodes {
        node.ring_of(3).await;
    }
    let view = nodes[0].rings.borrow().view.clone();
    for node in &nodes {
        assert_eq!(node.rings.borrow().view, view);
    }
    // The leaving one waits until the others have seen it go.
    let leaving = nodes.pop().unwrap();
    leaving.stop();
    for node in &mut nodes {
        node.ring_of(2).await;
    }
    leaving.stopped().await;
}

#[tokio::test]
async fn a_key_that_somebody_deleted_is_put_back_and_a_lost_lease_is_replaced() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let registration = Registration::start(config(&[&etcd.url]), "svc/a", Endpoint::new("h:1"));
    let mut status = registration.status();
    let first = registered(&mut status).await;
    let lease = lease_of(&mut client, "svc/a").await;
    assert_ne!(lease, 0);

    client.delete("svc/a", None).await.unwrap();
    let again = within(
        "the key again",
        status.wait_for(|it| it.revision > first.revision),
    )
    .await
    .unwrap()
    .clone();
    assert_eq!(
        lease_of(&mut client, "svc/a").await,
        lease,
        "under the lease that still lives"
    );

    client.lease_revoke(lease).await.unwrap();
    within(
        "a new lease",
        status.wait_for(|it| it.revision > again.revision),
    )
    .await
    .unwrap();
    let new_lease = lease_of(&mut client, "svc/a").await;
    assert!(new_lease != 0 && new_lease != lease);

    registration.close().await.expect("closes");
    assert!(etcd.keys("svc/").await.is_empty());
    let leases = client.leases().await.unwrap();
    assert!(leases.leases().is_empty(), "no lease is left behind");
}

#[tokio::test]
async fn an_update_stands_in_etcd_when_it_returns() {
    let etcd = Etcd::start().await;
    let registration = Registration::start(config(&[&etcd.url]), "svc/a", Endpoint::new("h:1"));
    registered(&mut registration.status()).await;
    let change = |endpoint: &mut Endpoint| {
        endpoint.metadata.insert("state".into(), "draining".into());
    };
    registration.update(change).await.expect("updates");
    assert!(etcd.keys("svc/a").await[0].1.contains("draining"));
    registration.close().await.expect("closes");
}

#[tokio::test]
async fn leaving_never_removes_a_successor_s_key_and_nobody_fights_over_an_id() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let old = Registration::start(config(&[&etcd.url]), "svc/a", Endpoint::new("old:1"));
    let mut old_status = old.status();
    registered(&mut old_status).await;
    let new = Registration::start(config(&[&etcd.url]), "svc/a", Endpoint::new("new:1"));
    registered(&mut new.status()).await;
    let superseded = within("supersession", old_status.wait_for(|it| it.superseded))
        .await
        .unwrap()
        .clone();
    assert!(superseded.problem.contains("svc/a"), "{superseded:?}");
    let successor = lease_of(&mut client, "svc/a").await;
    old.close().await.expect("closes");
    assert_eq!(
        lease_of(&mut client, "svc/a").await,
        successor,
        "still the successor's"
    );
    assert!(etcd.keys("svc/a").await[0].1.contains("new:1"));
    new.close().await.expect("closes");
    assert!(etcd.keys("svc/").await.is_empty());
}

#[tokio::test]
async fn of_two_nodes_with_one_id_the_older_says_so_and_comes_back_when_the_other_goes() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut first = node("twin", &etcd.url, &origin).await;
    first.ready().await;
    let mut second = node("twin", &etcd.url, &origin).await;
    second.ready().await;
    let why = first
        .readiness
        .wait_for(|why| why.contains("ids must be distinct"));
    within("the conflict", why).await.unwrap();
    second.stopped().await;
    first.ready().await;
    assert!(
        etcd.keys("gaocache/twin").await[0]
            .1
            .contains(&first.addresses.grpc.to_string())
    );
}

#[tokio::test]
async fn a_node_waits_for_an_etcd_that_is_down_and_says_so() {
    let origin = CountingOrigin::start().await;
    let mut etcd = Etcd::start().await;
    etcd.kill();
    let mut node = node("n0", &etcd.url, &origin).await;
    let why = node.readiness.wait_for(|why| why.contains("etcd"));
    within("a reason", why).await.unwrap();
    let answer = common::http()
        .get(node.admin("/readyz"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("etcd"));
    etcd.revive().await;
    node.ready().await;
}

#[tokio::test]
async fn the_last_ring_stays_while_etcd_is_away_and_reads_go_on() {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut nodes = vec![
        node("n0", &etcd.url, &origin).await,
        node("n1", &etcd.url, &origin).await,
    ];
    for node in &mut nodes {
        node.ring_of(2).await;
        node.ready().await;
    }
    etcd.kill();
    within("it is noticed", async {
        while common::metric(&nodes[0], "gaocache_watch_reconnects_total", &[]).await == 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for key in 0..20 {
        for node in &nodes {
            let answer = common::http()
                .get(node.http(&format!("/v1/users/k{key}")))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
    assert_eq!(origin.loads(), 20, "the ring is as it was");
    assert_eq!(
        common::http()
            .get(nodes[0].admin("/readyz"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    etcd.wipe().await;
    within("both keys again", async {
        while etcd.keys("gaocache/").await.len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for node in &mut nodes {
        node.ring_of(2).await;
    }
}

#[tokio::test]
async fn a_wiped_etcd_does_not_shrink_the_list_while_the_living_register_again() {
    let mut etcd = Etcd::start().await;
    let proxy = Proxy::to(etcd.url.trim_start_matches("http://").parse().unwrap()).await;
    let discovery = Discovery::start(config(&[&etcd.url]), ["svc/"]);
    let living = Registration::start(config(&[&etcd.url]), "svc/living", Endpoint::new("h:1"));
    // Reaches etcd through the proxy: cut off, it can't come back.
    let gone = Registration::start(config(&[&proxy.url()]), "svc/gone", Endpoint::new("h:2"));
    until(&discovery, "both", |it| it.endpoints.len() == 2).await;
    let mut changes = discovery.changes();
    changes.mark_unchanged();
    proxy.cut();
    let wiped_at = Instant::now();
    etcd.wipe().await;
    loop {
        within("a change", changes.changed()).await.unwrap();
        let snapshot = changes.borrow_and_update().clone();
        assert!(
            snapshot.endpoints.contains_key("svc/living"),
            "the living never leaves the list"
        );
        if keys(&snapshot) == ["svc/living"] {
            break;
        }
    }
    println!(
        "the dead was held until {:?} after the wipe",
        wiped_at.elapsed()
    );
    living.close().await.expect("closes");
    drop(gone);
}

#[tokio::test]
async fn what_was_missed_and_compacted_is_in_the_list_after_the_watch_is_back() {
    let etcd = Etcd::start().await;
    let proxy = Proxy::to(etcd.url.trim_start_matches("http://").parse().unwrap()).await;
    let mut client = etcd.client().await;
    for key in ["svc/a", "svc/b", "other/x"] {
        client.put(key, "h:1", None).await.unwrap();
    }
    let discovery = Discovery::start(config(&[&proxy.url()]), ["svc/"]);
    let before = until(&discovery, "the list", |it| it.known).await;
    assert_eq!(keys(&before), ["svc/a", "svc/b"]);
    proxy.cut();
    until(&discovery, "the loss", |it| !it.problem.is_empty()).await;
    assert_eq!(
        keys(&discovery.list()),
        ["svc/a", "svc/b"],
        "the last known list stays"
    );
    client.delete("svc/a", None).await.unwrap();
    client.put("svc/c", "h:3", None).await.unwrap();
    for _ in 0..10 {
        client.put("other/x", "noise", None).await.unwrap();
    }
    etcd.compact().await;
    proxy.mend();
    let after = until(&discovery, "the list again", |it| {
        it.problem.is_empty() && it.endpoints.len() == 2 && it != &before
    })
    .await;
    assert_eq!(keys(&after), ["svc/b", "svc/c"]);
    // And it goes on following.
    client.put("svc/d", "h:4", None).await.unwrap();
    until(&discovery, "the next change", |it| it.endpoints.len() == 3).await;
}

#[tokio::test]
async fn an_etcd_that_freezes_is_left_for_another_member() {
    let members = Etcd::cluster(3, &[]).await;
    let urls: Vec<&str> = members.iter().map(|it| &*it.url).collect();
    let discovery = Discovery::start(config(&urls), ["svc/"]);
    let registration = Registration::start(config(&urls), "svc/a", Endpoint::new("h:1"));
    until(&discovery, "the key", |it| it.endpoints.len() == 1).await;
    for frozen in 0..3 {
        members[frozen].freeze();
        let writer = Client::connect([&members[(frozen + 1) % 3].url], None)
            .await
            .unwrap();
        let key = format!("svc/while-{frozen}");
        within("a write without the frozen", async {
            loop {
                let mut client = writer.clone();
                let put = client.put(key.clone(), "h:2", None);
                if matches!(
                    tokio::time::timeout(Duration::from_secs(2), put).await,
                    Ok(Ok(_))
                ) {
                    return;
                }
            }
        })
        .await;
        until(&discovery, "the change without the frozen", |it| {
            it.endpoints.contains_key(&*key)
        })
        .await;
        members[frozen].thaw();
        assert!(
            discovery.list().endpoints.contains_key("svc/a"),
            "its lease was kept"
        );
    }
    registration.close().await.expect("closes");
}

#[tokio::test]
async fn dead_endpoints_among_the_living_and_a_change_of_leader_do_no_harm() {
    let mut members = Etcd::cluster(3, &[]).await;
    let dead = format!("http://127.0.0.1:{}", free_port());
    let mut urls: Vec<String> = members.iter().map(|it| it.url.clone()).collect();
    urls.insert(0, dead);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let discovery = Discovery::start(config(&urls), ["svc/"]);
    let registration = Registration::start(config(&urls), "svc/a", Endpoint::new("h:1"));
    until(&discovery, "the key", |it| it.endpoints.len() == 1).await;
    let mut ids = Vec::new();
    for member in &members {
        let status = member.client().await.status().await.unwrap();
        ids.push((status.header().unwrap().member_id(), status.leader()));
    }
    let leader = ids
        .iter()
        .position(|(id, leader)| id == leader)
        .expect("a leader");
    members[leader].kill();
    let other = members[(leader + 1) % 3].url.clone();
    within("a write under a new leader", async {
        loop {
            let mut client = Client::connect([&other], None).await.unwrap();
            let put = client.put("svc/b", "h:2", None);
            if matches!(
                tokio::time::timeout(Duration::from_secs(1), put).await,
                Ok(Ok(_))
            ) {
                return;
            }
        }
    })
    .await;
    let after = until(&discovery, "the change", |it| it.endpoints.len() == 2).await;
    assert_eq!(keys(&after), ["svc/a", "svc/b"]);
    registration.close().await.expect("closes");
}

#[tokio::test]
async fn tls_with_client_certificates_and_a_user_with_a_password() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = |name: &str| folder.path().join(name);
    let argument = |name: &str, file: &str| format!("--{name}={}", path(file).display());
    let arguments = [
        argument("cert-file", "server.pem"),
        argument("key-file", "server.key"),
        argument("trusted-ca-file", "ca.pem"),
        "--client-cert-auth".to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let etcd = Etcd::with_scheme(1, "https", &arguments).await.remove(0);
    std::fs::write(path("password"), "secret\n").unwrap();
    let secured = EtcdConfig {
        tls: Some(TlsFiles {
            ca: Some(path("ca.pem")),
            identity: Some((path("client.pem"), path("client.key"))),
        }),
        ..config(&[&etcd.url])
    };
    let registration = Registration::start(secured.clone(), "svc/a", Endpoint::new("h:1"));
    registered(&mut registration.status()).await;
    registration.close().await.expect("closes");

    // Now with a user; the certificate alone won't do any more (its common name is no user).
    let tls = etcd_client::TlsOptions::new()
        .ca_certificate(etcd_client::Certificate::from_pem(
            std::fs::read(path("ca.pem")).unwrap(),
        ))
        .identity(etcd_client::Identity::from_pem(
            std::fs::read(path("client.pem")).unwrap(),
            std::fs::read(path("client.key")).unwrap(),
        ));
    let options = etcd_client::ConnectOptions::new().with_tls(tls);
    let mut admin = Client::connect([&etcd.url], Some(options)).await.unwrap();
    admin.user_add("root", "secret", None).await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();
    let discovery = Discovery::start(secured.clone(), ["svc/"]);
    let refused = until(&discovery, "a refusal", |it| !it.problem.is_empty()).await;
    assert!(!refused.known);
    let user = EtcdConfig {
        credentials: Some(Credentials {
            username: "root".into(),
            password_file: path("password"),
        }),
        ..secured
    };
    let discovery = Discovery::start(user.clone(), ["svc/"]);
    let registration = Registration::start(user, "svc/b", Endpoint::new("h:1"));
    until(&discovery, "the key", |it| it.endpoints.len() == 1).await;
    registration.close().await.expect("closes");

    // And a node, by its settings.
    let origin = CountingOrigin::start().await;
    let file =
        |setting: &str, name: &str| format!("registry.etcd.{setting}={}", path(name).display());
    let further = [
        file("tls.ca", "ca.pem"),
        file("tls.cert", "client.pem"),
        file("tls.key", "client.key"),
        "registry.etcd.username=root".to_owned(),
        file("password_file", "password"),
    ];
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let settings = node_settings("secured", &etcd.url, &origin, &further);
    let mut node = TestNode::start(NodeBuilder::new(settings).bind().await.expect("binds"));
    node.ready().await;
    node.stopped().await;
}

#[tokio::test]
async fn the_command_line_asks_the_cluster_through_etcd() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut nodes = vec![
        node("n0", &etcd.url, &origin).await,
        node("n1", &etcd.url, &origin).await,
    ];
    for node in &mut nodes {
        node.ring_of(2).await;
    }
    let run = async |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gaocache"));
        command.args(arguments).args(["--etcd", &etcd.url]);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = within("the command", output).await.unwrap().expect("runs");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    assert_eq!(
        run(&["get", "users", "alice"]).await,
        (Some(0), "value of alice".into())
    );
    assert_eq!(run(&["get", "users", "missing"]).await.0, Some(3));
    let (_, ring) = run(&["ring", "--key", "alice", "--group", "users"]).await;
    assert!(
        ring.contains("2 members") && ring.contains("owner in group users: n"),
        "{ring}"
    );
    assert_eq!(run(&["remove", "users", "alice"]).await.0, Some(0));
    assert_eq!(run(&["get", "users", "alice"]).await.0, Some(0));
    assert_eq!(origin.loads_of("alice"), 2);
    let (code, purged) = run(&["purge", "users"]).await;
    assert_eq!(code, Some(0), "{purged}");

    let (code, checked) = run(&[
        "check",
        "--members",
        "2",
        "--group",
        "users",
        "--key",
        "alice",
    ])
    .await;
    assert_eq!(code, Some(0), "{checked}");
    assert!(checked.ends_with("ok: 2 nodes agree\n"), "{checked}");
    let (code, checked) = run(&["check", "--members", "3"]).await;
    assert_eq!(code, Some(1));
    assert!(checked.contains("etcd knows 2 nodes, not 3"), "{checked}");
    // One that is registered and not there.
    let mut client = etcd.client().await;
    client
        .put("gaocache/ghost", "127.0.0.1:1", None)
        .await
        .unwrap();
    let (code, checked) = run(&["check"]).await;
    assert_eq!(code, Some(1));
    assert!(checked.contains("ghost at 127.0.0.1:1"), "{checked}");
}

#[tokio::test]
async fn several_prefixes_make_one_list_and_what_is_no_endpoint_is_left_out() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    client.put("users/a", "10.0.0.1:1", None).await.unwrap();
    client.put("users/bad", "no endpoint", None).await.unwrap();
    let discovery = Discovery::start(config(&[&etcd.url]), ["users/", "orders/"]);
    let first = until(&discovery, "the list", |it| it.known).await;
    assert_eq!(keys(&first), ["users/a"]);
    client
        .put(
            "orders/a",
            r#"{"Op":0,"Addr":"10.0.0.2:1","Metadata":{"zone":"b"}}"#,
            None,
        )
        .await
        .unwrap();
    let second = until(&discovery, "the other prefix", |it| it.endpoints.len() == 2).await;
    assert_eq!(second.endpoints["orders/a"].text("zone"), Some("b"));
    client.put("users/a", "garbage", None).await.unwrap();
    let third = until(&discovery, "what it was is not true any more", |it| {
        it.endpoints.len() == 1
    })
    .await;
    assert_eq!(keys(&third), ["orders/a"]);
}

#[tokio::test]
async fn a_hundred_comings_and_goings_in_a_second_change_the_ring_ten_times_at_most() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut node = node("n0", &etcd.url, &origin).await;
    node.ready().await;
    let before = common::metric(&node, "gaocache_ring_changes_total", &[]).await;
    let client = etcd.client().await;
    let started = Instant::now();
    // Spread over a second, as the requirement has it: this is load, not synchronisation.
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    for n in 0..100 {
        beat.tick().await;
        let mut client = client.clone();
        let key = format!("gaocache/burst-{}", n % 50);
        if n < 50 {
            client.put(key, "127.0.0.1:1", None).await.unwrap();
        } else {
            client.delete(key, None).await.unwrap();
        }
    }
    let took = started.elapsed();
    // The last change is a put, so that there is something to wait for.
    let mut client = client.clone();
    client
        .put("gaocache/last", "127.0.0.1:1", None)
        .await
        .unwrap();
    let last = node
        .rings
        .wait_for(|ring| ring.view.member("last").is_some() && ring.ring_len() == 2);
    within("the last change", last).await.unwrap();
    let changes = common::metric(&node, "gaocache_ring_changes_total", &[]).await - before;
    println!("101 changes in {took:?}: {changes} rings");
    // On a machine that took longer for it, a ring more for each 100 ms.
    let allowed = 10.0 * took.as_secs_f64().max(1.0);
    assert!(changes <= allowed, "{changes} rings in {took:?}");
}

#[tokio::test]
async fn ten_nodes_see_a_change_soon_after_etcd_has_it() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut nodes = Vec::new();
    for n in 0..10 {
        nodes.push(node(&format!("n{n}"), &etcd.url, &origin).await);
    }
    for node in &mut nodes {
        node.ring_of(10).await;
    }
    let mut client = etcd.client().await;
    let mut delays = Vec::new();
    for round in 0..20 {
        let id = format!("extra-{round}");
        let put = client
            .put(format!("gaocache/{id}"), "127.0.0.1:1", None)
            .await
            .unwrap();
        let committed = Instant::now();
        let revision = put.header().unwrap().revision() as u64;
        let seen = nodes.iter().map(|node| {
            let mut rings = node.rings.clone();
            async move {
                within(
                    "the change",
                    rings.wait_for(|ring| ring.view.revision >= revision),
                )
                .await
                .unwrap();
                committed.elapsed()
            }
        });
        delays.extend(futures::future::join_all(seen).await);
    }
    delays.sort();
    let (median, p99) = (delays[delays.len() / 2], delays[delays.len() * 99 / 100]);
    println!(
        "a change is in every ring after {median:?} (median), {p99:?} (p99); goals 100 ms, 500 ms"
    );
    assert!(
        p99 < Duration::from_secs(5),
        "several times the goal: {p99:?}"
    );
}

#[tokio::test]
async fn steady_state_costs_etcd_one_renewal_a_third_of_the_lease_and_nothing_else() {
    let etcd = Etcd::start().await;
    let requests = async || {
        let text = common::http()
            .get(format!("{}/metrics", etcd.url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let of = |method: &str| -> f64 {
            let wanted = format!("grpc_method=\"{method}\"");
            text.lines()
                .filter(|line| {
                    line.starts_with("grpc_server_msg_received_total{") && line.contains(&wanted)
                })
                .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
                .sum()
        };
        (of("LeaseKeepAlive"), of("Range") + of("Txn") + of("Put"))
    };
    let discovery = Discovery::start(config(&[&etcd.url]), ["svc/"]);
    let registration = Registration::start(config(&[&etcd.url]), "svc/a", Endpoint::new("h:1"));
    until(&discovery, "the key", |it| it.endpoints.len() == 1).await;
    let (renewals, others) = requests().await;
    // The measured time itself.
    tokio::time::sleep(TTL * 3).await;
    let (renewals_after, others_after) = requests().await;
    println!(
        "in {:?}: {} renewals, {} other requests",
        TTL * 3,
        renewals_after - renewals,
        others_after - others
    );
    assert!(
        (7.0..=10.0).contains(&(renewals_after - renewals)),
        "three a lease"
    );
    assert_eq!(others_after, others, "no polling");
    registration.close().await.expect("closes");
}

#[tokio::test]
async fn a_process_that_dies_leaves_with_its_lease() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let discovery = Discovery::start(config(&[&etcd.url]), ["svc/"]);
    // What a killed process leaves: a key under a lease that nobody renews.
    let lease = client
        .lease_grant(TTL.as_secs() as i64, None)
        .await
        .unwrap()
        .id();
    let granted = Instant::now();
    let options = PutOptions::new().with_lease(lease);
    client.put("svc/dead", "h:1", Some(options)).await.unwrap();
    until(&discovery, "the key", |it| it.endpoints.len() == 1).await;
    until(&discovery, "its end", |it| it.endpoints.is_empty()).await;
    let took = granted.elapsed();
    println!("gone {took:?} after the last sign of life, lease {TTL:?}");
    assert!(took < TTL * 4, "{took:?}");
}
