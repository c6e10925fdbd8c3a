//! How etcd is reached: frozen and dead members, changes of leader, TLS.

use std::time::Duration;

use super::common::{
    CountingOrigin, TestNode, builder,
    etcd::{Etcd, certificates, config, free_port, node_settings},
    within,
};
use super::{keys, registered, until};
use etcd_client::Client;
use gaocache_discovery::{Credentials, Discovery, Endpoint, Registration, TlsFiles};

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
    let secured = config(&[&etcd.url]).with_tls(
        TlsFiles::default()
            .with_ca(path("ca.pem"))
            .with_identity(path("client.pem"), path("client.key")),
    );
    let registration = Registration::start(secured.clone(), "svc/a", Endpoint::new("h:1"));
    registered(&mut registration.status()).await;
    registration.close().await.expect("closes");

    // Now with a user; the certificate alone won't do any more (its common name is no user).
    etcd.demand_a_password().await;
    let discovery = Discovery::start(secured.clone(), ["svc/"]);
    let refused = until(&discovery, "a refusal", |it| !it.problem.is_empty()).await;
    assert!(!refused.known);
    let user = secured.with_credentials(Credentials::new("root", path("password")));
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
    let mut node = TestNode::start(builder(&settings).bind().await.expect("binds"));
    node.ready().await;
    node.stopped().await;
}
