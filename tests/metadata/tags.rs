//! Tags: what their purge takes, through every listener, and values whose tags can't be kept.

use gaocache::internal::wire::PurgeTagRequest;

use super::*;

async fn purge(node: &TestNode, path: &str) -> u16 {
    let purged = http().delete(node.http(path)).send();
    within(path, purged).await.unwrap().status().as_u16()
}

/// Gets each key from each node.
async fn read(nodes: &[TestNode]) {
    for key in ["red/1", "red/2", "blue/1", "plain/1"] {
        for node in nodes {
            assert_eq!(get(node, key, &[]).await.status(), 200);
        }
    }
}

#[tokio::test]
async fn a_purge_of_a_tag_takes_its_values_from_all_nodes_and_leaves_the_others() {
    let origin = Origin::start().await;
    let nodes = nodes(3, &origin, "", "", &["cache.hot_after_requests=1"]).await;
    let loads = || ["/red/1", "/red/2", "/blue/1", "/plain/1"].map(|it| origin.asked(it).len());
    for _ in 0..3 {
        read(&nodes).await;
    }
    assert_eq!(loads(), [1, 1, 1, 1]);
    assert_eq!(purge(&nodes[0], "/v1/users?tag=red").await, 204);
    read(&nodes).await;
    assert_eq!(loads(), [2, 2, 1, 1]);
    let mut client = nodes[1].client().await;
    let mut over_grpc = async |tag: &str| {
        let request = PurgeTagRequest {
            group: "users".into(),
            tag: tag.into(),
        };
        within("a purge", client.purge_tag(request)).await
    };
    over_grpc("cold").await.expect("purged");
    read(&nodes).await;
    assert_eq!(loads(), [2, 2, 2, 1]);
    // The values that were loaded since carry it, too.
    over_grpc("warm").await.expect("purged");
    over_grpc("nobody has it").await.expect_err("no tag");
    over_grpc("nobody-has-it").await.expect("purged");
    read(&nodes).await;
    assert_eq!(loads(), [3, 3, 2, 1]);
    for wrong in [
        "/v1/users",
        "/v1/users?tag=",
        "/v1/users?tag=a%20b",
        "/v1/users?tags=red",
        // What is not UTF-8 is not replaced by what is.
        "/v1/users?tag=%ff",
        "/v1/users?tag=red&key=1",
    ] {
        assert_eq!(purge(&nodes[0], wrong).await, 400, "{wrong}");
    }
    assert_eq!(purge(&nodes[0], "/v1/nobody?tag=red").await, 404);
    read(&nodes).await;
    assert_eq!(loads(), [3, 3, 2, 1]);
    let swept = async {
        while metric(&nodes[0], "gaocache_store_purged_tags", &[]).await != 0.0 {
            tokio::task::yield_now().await;
        }
    };
    within("they are forgotten", swept).await;
}

#[tokio::test]
async fn a_stale_or_renewed_value_is_gone_with_its_tag() {
    let origin = Origin::start().await;
    let group = "ttl_seconds = 0.02, stale_if_error_seconds = 86400,";
    let nodes = nodes(2, &origin, group, "", &[]).await;
    get(&nodes[0], "red/1", &[]).await;
    origin.is_down(true);
    until(&nodes[0], "red/1", "stale").await;
    assert_eq!(purge(&nodes[1], "/v1/users?tag=warm").await, 204);
    for node in &nodes {
        assert_eq!(get(node, "red/1", &[]).await.status(), 502, "removed");
    }
    origin.is_down(false);
    let asked = origin.asked("/red/1").len();
    get(&nodes[0], "red/1", &[]).await;
    let after = origin.asked("/red/1");
    assert!(!after[asked].contains("if-none-match"), "{}", after[asked]);
}

#[tokio::test]
async fn a_value_with_more_tags_than_can_be_kept_is_served_and_not_kept() {
    let origin = Origin::start().await;
    let nodes = nodes(2, &origin, "", "", &[]).await;
    for count in 1..4 {
        let got = get(&nodes[0], "many-tags", &[]).await;
        assert_eq!(got.text().await.unwrap(), "first");
        assert_eq!(origin.asked("/many-tags").len(), count);
    }
}

#[tokio::test]
async fn explain_tells_what_the_origin_said_of_a_value_and_clients_see_no_tags() {
    let origin = Origin::start().await;
    let nodes = nodes(1, &origin, "", "", &[]).await;
    let got = get(&nodes[0], "red/1", &[]).await;
    assert_eq!(lines(&got, "cache-tag"), Vec::<&str>::new());
    assert!(
        got.headers()
            .keys()
            .all(|name| !name.as_str().contains("tags"))
    );
    let url = nodes[0].admin("/explain?group=users&key=red/1");
    let told = text_at(&http(), &url).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let held = &told["held"][0];
    assert_eq!(held["tags"], 2, "{told}");
    assert_eq!(held["headers"][0]["name"], "etag");
    assert_eq!(held["headers"][0]["value"], "\"1\"");
}
