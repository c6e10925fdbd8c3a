//! Which cluster a node belongs to: two on one etcd stay two, and none loses its id with etcd's
//! data.

use etcd_client::DeleteOptions;
use gaocache::{EtcdConfig, NodeBuilder, Registry, Settings, internal};
use gaocache_discovery::Endpoint;

use super::{
    common::{
        CountingOrigin, TestNode, builder,
        etcd::{Etcd, node_settings},
        http, text_at, within,
    },
    node, nodes,
};

const KEY: &str = "gaocache.cluster";

async fn id_in(etcd: &Etcd, key: &str) -> Option<String> {
    let found = etcd.keys(key).await.into_iter().next()?;
    let stored = Endpoint::from_stored(found.1.as_bytes());
    Some(stored.expect("an id").address.to_string())
}

async fn node_of(etcd: &Etcd, origin: &CountingOrigin, further: &[&str]) -> TestNode {
    let settings = node_settings("n9", &etcd.url, origin, further);
    TestNode::start(builder(&settings).bind().await.expect("binds"))
}

async fn refuses(node: &mut TestNode, ours: &str, theirs: &str) {
    let words = [
        format!("its id is '{theirs}'"),
        format!("belongs to '{ours}'"),
    ];
    let why = node
        .readiness
        .wait_for(|why| words.iter().all(|it| why.contains(it)));
    within("a reason", why).await.expect("running");
}

#[tokio::test]
async fn a_cluster_has_one_id_which_each_member_registers_and_which_outlives_it() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut members = nodes(3, &etcd, &origin).await;
    for member in &mut members {
        member.ready().await;
    }
    let id = id_in(&etcd, KEY).await.expect("an id");
    assert_eq!(id.len(), 16, "{id}");
    for (key, value) in etcd.keys("gaocache/").await {
        let registered = Endpoint::from_stored(value.as_bytes()).expect("an endpoint");
        assert_eq!(registered.text("cluster"), Some(&*id), "{key}");
    }
    for member in members {
        member.stopped().await;
    }
    let mut again = node("n0", &etcd.url, &origin).await;
    again.ready().await;
    assert_eq!(id_in(&etcd, KEY).await, Some(id));
}

#[tokio::test]
async fn releases_of_one_name_in_two_namespaces_of_one_etcd_are_two_clusters() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut members = Vec::new();
    for (namespace, id) in [("prod", "n0"), ("staging", "n0"), ("prod", "n1")] {
        let service = format!("registry.service={namespace}.cache-gaocache");
        let settings = node_settings(id, &etcd.url, &origin, &[&service]);
        let mut node = TestNode::start(builder(&settings).bind().await.expect("binds"));
        node.ready().await;
        members.push(node);
    }
    members[0].ring_of(2).await;
    members[2].ring_of(2).await;
    assert_eq!(members[1].rings.borrow().ring_len(), 1);
    // What the one keeps, the other doesn't see, nor does it hear of removals.
    for (member, loads) in [(0, 1), (2, 1), (1, 2), (1, 2)] {
        text_at(&http(), &members[member].http("/v1/users/k")).await;
        assert_eq!(origin.loads_of("k"), loads);
    }
    let removed = http().delete(members[1].http("/v1/users/k")).send().await;
    assert_eq!(removed.expect("an answer").status(), 204);
    text_at(&http(), &members[0].http("/v1/users/k")).await;
    assert_eq!(origin.loads_of("k"), 2, "removed in staging, not in prod");
    let prod = id_in(&etcd, "prod.cache-gaocache.cluster").await;
    let staging = id_in(&etcd, "staging.cache-gaocache.cluster").await;
    assert!(prod.is_some() && staging.is_some() && prod != staging);
}

#[tokio::test]
async fn a_node_that_is_configured_for_another_cluster_registers_nothing_and_says_why() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut first = node("n0", &etcd.url, &origin).await;
    first.ready().await;
    let id = id_in(&etcd, KEY).await.expect("an id");
    let mut other = node_of(&etcd, &origin, &["registry.cluster_id=mine"]).await;
    refuses(&mut other, "mine", &id).await;
    let members = etcd.keys("gaocache/").await;
    assert_eq!(members.len(), 1, "{members:?}");
    other.stopped().await;
    let configured = format!("registry.cluster_id={id}");
    let mut same = node_of(&etcd, &origin, &[&configured]).await;
    same.ready().await;
    first.ring_of(2).await;
}

#[tokio::test]
async fn who_joined_a_cluster_stands_aside_when_another_has_its_name() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut node = node_of(&etcd, &origin, &["registry.cluster_id=mine"]).await;
    node.ready().await;
    assert_eq!(id_in(&etcd, KEY).await.as_deref(), Some("mine"));
    // As if the address led to another etcd.
    let mut client = etcd.client().await;
    let theirs = Endpoint::new("theirs").to_json();
    client.put(KEY, theirs, None).await.expect("written");
    let range = DeleteOptions::new().with_range("gaocache0");
    client.delete("gaocache/", Some(range)).await.expect("gone");
    client
        .put("gaocache/a", "127.0.0.1:1", None)
        .await
        .expect("written");
    refuses(&mut node, "mine", "theirs").await;
    let members = etcd.keys("gaocache/").await;
    assert_eq!(members.len(), 1, "only theirs: {members:?}");
    let ring = node.rings.borrow().clone();
    assert!(ring.view.member("a").is_none(), "the last ring stays");
    // The mistake is corrected.
    client.delete(KEY, None).await.expect("gone");
    client.delete("gaocache/a", None).await.expect("gone");
    node.ready().await;
    assert_eq!(id_in(&etcd, KEY).await.as_deref(), Some("mine"));
}

#[tokio::test]
async fn an_etcd_that_lost_its_data_gets_the_id_back_from_whoever_registers_again() {
    let (mut etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut members = nodes(2, &etcd, &origin).await;
    for member in &mut members {
        member.ready().await;
    }
    let id = id_in(&etcd, KEY).await.expect("an id");
    etcd.wipe().await;
    // Also one that starts meanwhile, and has no id yet, must not found another cluster.
    let mut newcomer = node_of(&etcd, &origin, &[]).await;
    newcomer.ring_of(3).await;
    newcomer.ready().await;
    assert_eq!(id_in(&etcd, KEY).await, Some(id));
    for member in &mut members {
        member.ring_of(3).await;
        member.ready().await;
    }
}

#[tokio::test]
async fn an_id_that_is_deleted_or_overwritten_by_hand_is_written_back_and_nobody_founds_another() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let mut members = nodes(2, &etcd, &origin).await;
    for member in &mut members {
        member.ready().await;
    }
    let id = id_in(&etcd, KEY).await.expect("an id");
    let mut client = etcd.client().await;
    for (number, damage) in [None, Some("odd\n\u{1b}")].into_iter().enumerate() {
        match damage {
            None => drop(client.delete(KEY, None).await.expect("gone")),
            Some(value) => drop(client.put(KEY, value, None).await.expect("written")),
        }
        let name = format!("n{}", 8 + number);
        let settings = node_settings(&name, &etcd.url, &origin, &[]);
        let mut newcomer = TestNode::start(builder(&settings).bind().await.expect("binds"));
        newcomer.ready().await;
        assert_eq!(id_in(&etcd, KEY).await, Some(id.clone()));
        members.push(newcomer);
        let count = members.len();
        for member in &mut members {
            member.ring_of(count).await;
            member.ready().await;
        }
    }
}

#[tokio::test]
async fn services_whose_names_begin_alike_stay_apart_and_names_that_others_use_are_refused() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let of = |service: &str, id: &str| {
        let service = format!("registry.service={service}");
        node_settings(id, &etcd.url, &origin, &[&service])
    };
    for service in ["a.roster", "a-notices", "a.young", "a/", "a/b"] {
        let given = format!("registry.service={service}");
        let refused = internal::loopback("n0", &[&given]).expect_err("refused");
        assert!(format!("{refused:?}").contains(service), "{refused:?}");
        let registry = Registry::etcd(EtcdConfig::new([&*etcd.url]), service);
        let built = NodeBuilder::new(Settings::loopback("n0")).registry(registry);
        let refused = built.bind().await.expect_err("refused");
        assert!(refused.message().contains(service), "{refused}");
    }
    let mut members = Vec::new();
    for (service, id) in [
        ("a.roster.b", "n0"),
        ("a.c", "n0"),
        ("a", "n0"),
        ("a", "n1"),
    ] {
        let mut node = TestNode::start(builder(&of(service, id)).bind().await.expect("binds"));
        node.ready().await;
        members.push(node);
    }
    members[2].ring_of(2).await;
    for alone in [0, 1] {
        assert_eq!(members[alone].rings.borrow().ring_len(), 1);
    }
    let mut ids = std::collections::HashSet::new();
    for service in ["a.roster.b", "a.c", "a"] {
        ids.insert(id_in(&etcd, &format!("{service}.cluster")).await);
    }
    assert_eq!(ids.len(), 3, "{ids:?}");
    // Removals are noted in etcd, too.
    for member in &members {
        let removed = http().delete(member.http("/v1/users/k")).send().await;
        assert_eq!(removed.expect("an answer").status(), 204);
    }
    let ring = members[2].rings.borrow().clone();
    assert_eq!(ring.view.members.len(), 2, "{:?}", ring.view);
}
