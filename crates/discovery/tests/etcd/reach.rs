//! How etcd is reached: frozen and dead members, changes of leader, TLS.

use std::time::Duration;

use super::{config, keys, registered, until};
use etcd_client::Client;
use gaocache_discovery::{Credentials, Discovery, Endpoint, Registration, TlsFiles};
use gaocache_testing::{Etcd, SecuredEtcd, free_port, within};

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
    let etcd = SecuredEtcd::start().await;
    let files = TlsFiles::default()
        .with_ca(etcd.file("ca.pem"))
        .with_identity(etcd.file("client.pem"), etcd.file("client.key"));
    let secured = config(&[etcd.url()]).with_tls(files);
    let registration = Registration::start(secured.clone(), "svc/a", Endpoint::new("h:1"));
    registered(&mut registration.status()).await;
    registration.close().await.expect("closes");

    // Now with a user; the certificate alone won't do any more (its common name is no user).
    etcd.demand_a_password().await;
    let discovery = Discovery::start(secured.clone(), ["svc/"]);
    let refused = until(&discovery, "a refusal", |it| !it.problem.is_empty()).await;
    assert!(!refused.known);
    let user = secured.with_credentials(Credentials::new("root", etcd.file("password")));
    let discovery = Discovery::start(user.clone(), ["svc/"]);
    let registration = Registration::start(user, "svc/b", Endpoint::new("h:1"));
    until(&discovery, "the key", |it| it.endpoints.len() == 1).await;
    registration.close().await.expect("closes");
}
