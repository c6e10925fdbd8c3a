//! Who is on the list: lost keys and leases, wiped and compacted history, members that die.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{config, keys, lease_of, registered, until};
use etcd_client::PutOptions;
use gaocache_discovery::{Discovery, Endpoint, Registration, RegistrationEvent};
use gaocache_testing::{Etcd, Proxy, TTL, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::Instant,
};

/// What etcd reports about itself.
async fn metrics(etcd: &Etcd) -> String {
    let address = etcd.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.0 200"), "{text}");
    text
}

#[tokio::test]
async fn a_key_that_somebody_deleted_is_put_back_and_a_lost_lease_is_replaced() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    // A long lease, so that neither a renewal nor the periodic look can help out: the watch must
    // see it.
    let long = config(&[&etcd.url]).with_lease_ttl(Duration::from_secs(300));
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
async fn a_write_whose_answer_was_lost_is_known_once_it_is_found() {
    let etcd = Etcd::start().await;
    let address = etcd.url.trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::to(address).await;
    let registration = Registration::start(config(&[&proxy.url()]), "svc/a", Endpoint::new("h:1"));
    registered(&mut registration.status()).await;
    let set = |name: &'static str| {
        move |endpoint: &mut Endpoint| drop(endpoint.metadata.insert(name.into(), 1.into()))
    };
    // It is written within a session, which is open then.
    registration.update(set("first")).await.expect("updates");
    proxy.mute();
    let stored = async {
        while !etcd.keys("svc/a").await[0].1.contains("second") {
            tokio::task::yield_now().await;
        }
        proxy.mend();
    };
    let both = async { tokio::join!(registration.update(set("second")), stored).0 };
    within("the update", both).await.expect("updates");
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
    let mut told = false;
    loop {
        within("a change", changes.changed()).await.unwrap();
        let snapshot = changes.borrow_and_update().clone();
        told |= snapshot.held.iter().eq(&[Arc::from("svc/gone")]);
        assert!(
            snapshot.endpoints.contains_key("svc/living"),
            "the living never leaves the list"
        );
        if keys(&snapshot) == ["svc/living"] {
            assert!(snapshot.held.is_empty());
            break;
        }
    }
    assert!(told, "the list tells that only the dead is held");
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
async fn a_watch_on_which_nothing_happens_is_not_taken_for_a_dead_one() {
    let etcd = Etcd::start().await;
    etcd.client().await.put("svc/a", "h:1", None).await.unwrap();
    // The revision that is listed is also the oldest one that etcd still has.
    etcd.compact().await;
    let (tell, mut events) = mpsc::channel(4);
    let discovery = Discovery::start_with(config(&[&etcd.url]), ["svc/"], move |event| {
        // Only the first few are looked at.
        drop(tell.try_send(format!("{event:?}")));
    });
    // The list, the watch, and two answers on how far it is.
    for what in ["list", "watch", "progress", "progress"] {
        let event = within("an event", events.recv()).await.unwrap();
        assert_eq!(event, "Heard", "in place of the {what}");
    }
    assert_eq!(discovery.list().problem.as_ref(), "");
}

#[tokio::test]
async fn several_prefixes_make_one_list_and_what_is_no_endpoint_is_suppressed() {
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

/// Each prefix has a watch of its own, and etcd brings those of one stream up to date one by one.
#[tokio::test]
async fn what_changes_under_several_prefixes_while_they_are_opened_is_all_heard() {
    const PREFIXES: [&str; 4] = ["a/", "b/", "c/", "d/"];
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let discovery = Discovery::start(config(&[&etcd.url]), PREFIXES);
    let mut written = 0;
    // Some of the changes come between the listing and the last of the watches.
    for number in 0..100 {
        for prefix in PREFIXES.iter().rev() {
            let key = format!("{prefix}{number}");
            client.put(key, "10.0.0.1:1", None).await.unwrap();
            written += 1;
        }
    }
    until(&discovery, "all of them", |it| {
        it.endpoints.len() == written
    })
    .await;
}

#[tokio::test]
async fn steady_state_costs_etcd_one_renewal_a_third_of_the_lease_and_nothing_else() {
    let etcd = Etcd::start().await;
    let requests = async || {
        let text = metrics(&etcd).await;
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
    // One that is quiet for long: etcd hangs up on clients that ping it too often, and only traffic
    // would hide that.
    let disconnects = Arc::new(AtomicUsize::new(0));
    let counted = disconnects.clone();
    let long = config(&[&etcd.url]).with_lease_ttl(Duration::from_secs(300));
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
    // Three a lease, and one that may fall on the edge; fewer on a machine that stalls, but not
    // none.
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
    // What a killed process leaves: a key under a lease that is not renewed.
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
