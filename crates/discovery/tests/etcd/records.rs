//! What a registration leaves beside its key: records that outlive the lease, and marks of the
//! history.

use super::{config, records, registered, until};
use gaocache_discovery::{Discovery, Endpoint, RegistrationEvent, RegistrationStatus, expulsion};
use gaocache_testing::{Etcd, Proxy, within};

#[tokio::test]
async fn a_new_lease_counts_only_once_the_key_stands_under_it() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let target = etcd.url.trim_start_matches("http://");
    let proxy = Proxy::to(target.parse().unwrap()).await;
    let (told, mut renewals) = tokio::sync::watch::channel(0);
    let endpoint = Endpoint::new("h:1").with_metadata("instance", "1");
    let registration = expulsion::register(
        config(&[&proxy.url()]),
        "svc/a",
        records("a"),
        endpoint,
        std::future::ready(()),
        move |event| {
            if matches!(event, RegistrationEvent::Renewed { .. }) {
                told.send_modify(|count| *count += 1);
            }
        },
    );
    let mut status = registration.status();
    registered(&mut status).await;
    let discovery = Discovery::start(config(&[&etcd.url]), ["svc/"]);
    until(&discovery, "the key", |it| it.endpoints.len() == 1).await;
    within("a renewal", renewals.wait_for(|count| *count > 0))
        .await
        .unwrap();
    proxy.cut();
    until(&discovery, "its end", |it| it.endpoints.is_empty()).await;
    let before = *renewals.borrow();
    // The others take it off the list; when it is back, it gets a lease and finds out.
    client.delete("svc.roster/a", None).await.unwrap();
    proxy.mend();
    within("expelled", status.wait_for(|it| it.expelled))
        .await
        .unwrap();
    assert_eq!(*renewals.borrow(), before);
}

#[tokio::test]
async fn who_registers_first_marks_the_history_as_young_for_a_while() {
    let etcd = Etcd::start().await;
    let register = |id: &str| {
        let endpoint = Endpoint::new("h:1").with_metadata("instance", id);
        let (key, records) = (format!("svc/{id}"), records(id));
        let begin = std::future::ready(());
        let config = config(&[&etcd.url]);
        expulsion::register(config, key, records, endpoint, begin, |_| {})
    };
    let discovery = Discovery::start(config(&[&etcd.url]), ["svc"]);
    // The mark comes first: a node that sees the key sees the mark.
    let first = register("a");
    let seen = until(&discovery, "the first", |it| {
        it.endpoints.contains_key("svc/a")
    })
    .await;
    assert!(seen.endpoints.contains_key("svc.young"));
    assert!(seen.endpoints.contains_key("svc.history"));
    until(&discovery, "its end", |it| {
        !it.endpoints.contains_key("svc.young")
    })
    .await;
    // It is old from then on, even when all have left.
    first.close().await.unwrap();
    let second = register("b");
    registered(&mut second.status()).await;
    let standing = etcd.keys("svc").await;
    let standing: Vec<&str> = standing.iter().map(|(key, _)| &**key).collect();
    assert_eq!(standing, ["svc.history", "svc.roster/b", "svc/b"]);
}

#[tokio::test]
async fn a_lease_has_ended_only_when_it_can_not_be_renewed_any_more() {
    let etcd = Etcd::start().await;
    let records = expulsion::Records::new(config(&[&etcd.url]));
    let mut client = etcd.client().await;
    // Less than a second is left of it, most of the time.
    let lease = client.lease_grant(1, None).await.unwrap().id();
    let ended = async { while !records.has_ended(lease).await.expect("answers") {} };
    within("its end", ended).await;
    let renewed = client.lease_keep_alive(lease).await;
    assert!(renewed.is_err(), "it was renewed");
}

#[tokio::test]
async fn who_names_a_cluster_is_written_beside_its_id_alone_and_brings_the_id_along() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    let register = |id: &str, cluster: &str| {
        let endpoint = Endpoint::new("h:1")
            .with_metadata("instance", id)
            .with_metadata(expulsion::CLUSTER, cluster);
        let (key, records) = (format!("svc/{id}"), records(id));
        let begin = std::future::ready(());
        let config = config(&[&etcd.url]);
        expulsion::register(config, key, records, endpoint, begin, |_| {})
    };
    let first = register("a", "ours");
    registered(&mut first.status()).await;
    let id = etcd.keys("svc.cluster").await;
    assert_eq!(id[0].1.as_bytes(), Endpoint::new("ours").to_json());
    let stranger = register("b", "theirs");
    let mut status = stranger.status();
    let told = |it: &RegistrationStatus| it.problem.contains("the cluster in etcd is 'ours'");
    within("a reason", status.wait_for(told)).await.unwrap();
    assert!(etcd.keys("svc/b").await.is_empty());
    assert!(etcd.keys("svc.roster/b").await.is_empty());
    // It would found its own cluster where there is no id.
    stranger.close().await.unwrap();
    // The key goes, and the id with it, as from an etcd that lost its data: both come back.
    client.delete("svc.cluster", None).await.unwrap();
    client.delete("svc/a", None).await.unwrap();
    let discovery = Discovery::start(config(&[&etcd.url]), ["svc"]);
    let seen = until(&discovery, "the key", |it| {
        it.endpoints.contains_key("svc/a")
    })
    .await;
    assert_eq!(&*seen.endpoints["svc.cluster"].address, "ours");
    // Beside another's id nothing is written, also by who is written already.
    let theirs = Endpoint::new("theirs").to_json();
    client.put("svc.cluster", theirs, None).await.unwrap();
    let update = first.update(|it| drop(it.metadata.insert("state".into(), "serving".into())));
    let refused = async {
        let mut status = first.status();
        let told = |it: &RegistrationStatus| it.problem.contains("the cluster in etcd is 'theirs'");
        status.wait_for(told).await.map(|_| ())
    };
    tokio::select! {
        _ = update => panic!("was written in another cluster"),
        refused = within("a reason", refused) => refused.unwrap(),
    }
}
