//! A process that is started under the id of another one, which still runs, is frozen, or can't be
//! reached.

use std::{net::SocketAddr, time::Duration};

use etcd_client::PutOptions;
use gaocache::ErrorKind;
use tokio::net::TcpListener;

use super::{
    CountingOrigin, Etcd, NodeProcess, TestNode, builder, http, metric, node, node_settings,
    text_at, within,
};

/// Gets a key; returns where the answer came from.
async fn get(node: &NodeProcess, key: &str) -> String {
    let url = format!("http://127.0.0.1:{}/v1/users/{key}", node.http);
    let answer = http().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.headers()["x-cache"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn who_starts_under_the_id_of_a_node_that_runs_is_refused_and_disturbs_nothing() {
    for identity in ["peer.insecure=false", "peer.insecure=true"] {
        let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
        let settings = node_settings("twin", &etcd.url, &origin, &[identity]);
        let mut first = TestNode::start(builder(&settings).bind().await.expect("binds"));
        first.ready().await;
        let client = http();
        text_at(&client, &first.http("/v1/users/k")).await;
        let second = TestNode::start(builder(&settings).bind().await.expect("binds"));
        let ended = within("its end", second.running).await.expect("no panic");
        let error = ended.expect_err("the id is taken");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        let what = error.to_string();
        let address = first.addresses.peer.to_string();
        assert!(what.contains("'twin'") && what.contains(&address), "{what}");
        text_at(&client, &first.http("/v1/users/k")).await;
        assert_eq!(origin.loads_of("k"), 1, "it is still kept");
        let written = metric(&first, "gaocache_registrations_total", &[]).await;
        let start = metric(&first, "gaocache_registrations_total", &["start"]).await;
        let changed = metric(&first, "gaocache_registrations_total", &["changed"]).await;
        assert_eq!(written, start + changed, "nobody touched its key");
    }
}

#[tokio::test]
async fn an_older_node_where_nobody_listens_says_that_its_id_was_taken_and_comes_back_later() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    // Connections are refused there: it listens at another address of this machine.
    let further = ["node.advertise_host=127.0.0.2"];
    let settings = node_settings("twin", &etcd.url, &origin, &further);
    let mut first = TestNode::start(builder(&settings).bind().await.expect("binds"));
    first.ready().await;
    let client = http();
    text_at(&client, &first.http("/v1/users/k")).await;
    text_at(&client, &first.http("/v1/users/k")).await;
    assert_eq!(origin.loads_of("k"), 1, "it is kept");
    let mut second = node("twin", &etcd.url, &origin).await;
    second.ready().await;
    let why = first
        .readiness
        .wait_for(|why| why.contains("ids must be distinct"));
    within("the conflict", why).await.unwrap();
    within("what it had is dropped", async {
        while metric(&first, "gaocache_expulsions_total", &[]).await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Nobody tells the first of removals any more, so what it had is worth nothing, now and later.
    let removed = client
        .delete(second.http("/v1/users/k"))
        .send()
        .await
        .unwrap();
    assert_eq!(removed.status(), 204);
    text_at(&client, &first.http("/v1/users/k")).await;
    assert_eq!(origin.loads_of("k"), 2, "a removed value was served");
    second.stopped().await;
    first.ready().await;
    text_at(&client, &first.http("/v1/users/k")).await;
    assert_eq!(origin.loads_of("k"), 3, "a removed value came back");
    assert!(etcd.keys("gaocache/twin").await[0].1.contains("127.0.0.2"));
}

/// Accepts connections and ends them.
async fn breaks_off() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    address
}

#[tokio::test]
async fn a_process_that_can_not_be_asked_loses_its_id_only_when_its_lease_has_ended() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let start = || NodeProcess::start("twin", &[&etcd.url], &origin.url(), &[]);
    let mut first = start();
    first.until_ready().await;
    let mut client = etcd.client().await;
    let stored = etcd.keys("gaocache/twin").await.remove(0).1;
    let peer = format!("127.0.0.1:{}", first.peer);
    assert!(stored.contains(&peer), "{stored}");
    first.kill();
    // The second is a name that nobody may have (RFC 6761).
    for address in [breaks_off().await.to_string(), "gone.invalid:1".into()] {
        let lease = client.lease_grant(600, None).await.unwrap().id();
        let options = PutOptions::new().with_lease(lease);
        let moved = stored.replace(&peer, &address);
        client
            .put("gaocache/twin", moved.clone(), Some(options))
            .await
            .unwrap();
        let second = start();
        until_it_waits(&second).await;
        let (status, why) = second.readyz().await.expect("an answer");
        assert!(status == 503 && why.contains("id before"), "{why}");
        assert_eq!(etcd.keys("gaocache/twin").await[0].1, moved, "{address}");
        client.lease_revoke(lease).await.unwrap();
        let registers = async {
            let at = format!("127.0.0.1:{}", second.peer);
            while !etcd
                .keys("gaocache/twin")
                .await
                .iter()
                .any(|it| it.1.contains(&at))
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        within("it registers", registers).await;
    }
}

/// Returns when the process says that it waits for its id.
async fn until_it_waits(node: &NodeProcess) {
    let says_so = || {
        let log = node.log.lock();
        log.iter().any(|line| line.contains("may still run"))
    };
    within("it waits", async {
        while !says_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_process_that_waits_for_its_id_confirms_no_removal_for_the_one_that_has_it() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let start = |id| NodeProcess::start(id, &[&etcd.url], &origin.url(), &[]);
    let (first, other) = (start("twin"), start("other"));
    first.until_ready().await;
    other.until_ready().await;
    let mut client = etcd.client().await;
    let stored = client.get("gaocache/twin", None).await.unwrap();
    let lease = stored.kvs()[0].lease();
    first.freeze();
    let second = start("twin");
    until_it_waits(&second).await;
    let url = format!("http://127.0.0.1:{}/v1/users/k", other.http);
    let removed = within("the removal", http().delete(url).send()).await;
    assert_eq!(removed.unwrap().status(), 204);
    let left = client.lease_time_to_live(lease, None).await.unwrap().ttl();
    assert!(left < 0, "the frozen one's lease has {left} s left");
}

#[tokio::test]
async fn a_frozen_process_loses_its_id_only_when_its_lease_has_ended() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let start = || NodeProcess::start("twin", &[&etcd.url], &origin.url(), &[]);
    let first = start();
    first.until_ready().await;
    get(&first, "k").await;
    assert_eq!(get(&first, "k").await, "hit");
    let mut client = etcd.client().await;
    let stored = client.get("gaocache/twin", None).await.unwrap();
    let lease = stored.kvs()[0].lease();
    first.freeze();
    let second = start();
    let key = async || etcd.keys("gaocache/twin").await;
    let at = |node: &NodeProcess| format!(":{}", node.grpc);
    within("the other's registration", async {
        loop {
            match &key().await[..] {
                [(_, value)] if value.contains(&at(&second)) => return,
                [(_, value)] => assert!(value.contains(&at(&first)), "{value}"),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let left = client.lease_time_to_live(lease, None).await.unwrap().ttl();
    assert!(left < 0, "the first one's lease has {left} s left");
    second.until_ready().await;
    let url = format!("http://127.0.0.1:{}/v1/users/k", second.http);
    let removed = http().delete(url).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    first.thaw();
    assert_ne!(get(&first, "k").await, "hit", "a removed value was served");
}
