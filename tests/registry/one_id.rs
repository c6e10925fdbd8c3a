//! A process that is started under the id of another one, which still runs, is frozen, or can't be
//! reached.

use std::time::Duration;

use gaocache::ErrorKind;

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
async fn an_older_node_that_can_t_be_asked_says_that_its_id_was_taken_and_comes_back_later() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    // An address for documentation (RFC 5737): nobody can be asked there.
    let further = ["node.advertise_host=192.0.2.1"];
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
    assert!(etcd.keys("gaocache/twin").await[0].1.contains("192.0.2.1"));
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
