//! Registration and discovery against a real etcd: lost keys and leases, wiped and compacted history, frozen and dead members, TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    CountingOrigin, TestNode,
    etcd::{Etcd, Proxy, TTL, certificates, config, free_port, node_settings},
    within,
};
use etcd_client::{Client, PutOptions};
use gaocache::{
    NodeBuilder,
    discovery::{
        Credentials, Discovery, Endpoint, EtcdConfig, Registration, RegistrationEvent,
        RegistrationStatus, Snapshot, TlsFiles,
    },
};
use tokio::{sync::watch, time::Instant};

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
async fn a_key_that_somebody_deleted_is_put_back_and_a_lost_lease_is_replaced() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    // A long lease, so that neither a renewal nor the periodic look can help out: the watch must see it.
    let long = EtcdConfig {
        lease_ttl: Duration::from_secs(300),
        ..config(&[&etcd.url])
    };
    let registration = Registration::start(long, "svc/a", Endpoint::new("h:1"));
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
    let standing = async || {
        let got = etcd.client().await.get("svc/a", None).await.unwrap();
        // Deleted and put back by its owner, it would be another key.
        got.kvs()
            .first()
            .map(|kv| (kv.lease(), kv.create_revision()))
    };
    let successor = standing().await;
    old.close().await.expect("closes");
    assert_eq!(standing().await, successor, "still the successor's");
    assert!(etcd.keys("svc/a").await[0].1.contains("new:1"));
    new.close().await.expect("closes");
    assert!(etcd.keys("svc/").await.is_empty());
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
async fn steady_state_costs_etcd_one_renewal_a_third_of_the_lease_and_nothing_else() {
    let etcd = Etcd::start().await;
    let requests = async || {
        let url = format!("{}/metrics", etcd.url);
        let text = common::text_at(&common::http(), &url).await;
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
    // One that is quiet for long: etcd hangs up on who pings it too often, and only traffic would hide that.
    let disconnects = Arc::new(AtomicUsize::new(0));
    let counted = disconnects.clone();
    let long = EtcdConfig {
        lease_ttl: Duration::from_secs(300),
        ..config(&[&etcd.url])
    };
    let quiet = Registration::start_after(
        long,
        "quiet/a",
        Endpoint::new("h:1"),
        std::future::ready(()),
        move |event| {
            if matches!(event, RegistrationEvent::Disconnected { .. }) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        },
    );
    registered(&mut quiet.status()).await;
    let (renewals, others) = requests().await;
    let began = Instant::now();
    // The measured time itself.
    tokio::time::sleep(TTL * 8).await;
    let (renewals_after, others_after) = requests().await;
    let (took, renewed) = (began.elapsed(), renewals_after - renewals);
    println!(
        "in {took:?}: {renewed} renewals, {} other requests",
        others_after - others
    );
    // Three a lease, and one that may fall on the edge; fewer on a machine that stalls, but not none.
    let most = 3.0 * took.as_secs_f64() / TTL.as_secs_f64() + 1.0;
    assert!((1.0..=most).contains(&renewed), "{renewed} in {took:?}");
    assert_eq!(
        disconnects.load(Ordering::SeqCst),
        0,
        "the quiet one was cut off"
    );
    assert_eq!(others_after, others, "no polling");
    registration.close().await.expect("closes");
    quiet.close().await.expect("closes");
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
