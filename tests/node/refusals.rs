//! Requests that are refused, and with which status.

use gaocache::internal::wire::{self, peer_client::PeerClient};
use tonic::Code;

use super::common::{get_request as get, *};

#[tokio::test]
async fn bad_requests_get_the_right_status_at_both_listeners() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &[]).await;
    let node = &nodes[0];
    let mut client = node.client().await;
    let long = "k".repeat(4097);
    for (group, key, code, status, kind) in [
        ("nobody", "k", Code::NotFound, 404, "unknown_group"),
        ("users", "missing", Code::NotFound, 404, "not_found"),
        ("users", "", Code::InvalidArgument, 400, "invalid_request"),
        (
            "users",
            &long,
            Code::InvalidArgument,
            400,
            "invalid_request",
        ),
    ] {
        let request = wire::GetRequest {
            group: group.into(),
            key: key.into(),
        };
        let error = client.get(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{kind}");
        assert_eq!(error.metadata().get("gaocache-error").unwrap(), kind);
        let path = node.http(&format!("/v1/{group}/{key}"));
        let answer = http().get(path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{kind}");
        assert_eq!(answer.headers()["gaocache-error"], kind);
    }
    let refused = metric(
        node,
        "gaocache_requests_total",
        &["group=\"users\"", "invalid_request"],
    )
    .await;
    assert_eq!(refused, 4.0, "two kinds at two listeners");
    assert_eq!(
        metric(
            node,
            "gaocache_requests_total",
            &["group=\"\"", "unknown_group"]
        )
        .await,
        2.0
    );
}

#[tokio::test]
async fn what_is_no_request_of_a_group_is_refused() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &[]).await;
    let node = &nodes[0];
    let mut client = node.client().await;
    let huge = client.get(get(&"k".repeat(100_000))).await.unwrap_err();
    assert_eq!(huge.code(), Code::InvalidArgument);
    let garbled = http()
        .get(node.http("/v1/users/%FF%FE"))
        .send()
        .await
        .unwrap();
    assert_eq!(garbled.status(), 400);
    // A query string is no part of a key, and never dropped silently.
    for method in [http::Method::GET, http::Method::DELETE] {
        let request = http().request(method, node.http("/v1/users/alice?version=2"));
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 400);
        assert_eq!(refused.headers()["gaocache-error"], "invalid_request");
    }
    assert_eq!(
        http()
            .get(node.http("/v2/x"))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    assert_eq!(
        http()
            .post(node.http("/v1/users/k"))
            .send()
            .await
            .unwrap()
            .status(),
        405
    );
    let counted = metric(node, "gaocache_requests_total", &["group=\"users\""]).await;
    assert_eq!(counted, 0.0);
}

#[tokio::test]
async fn calls_of_peers_are_not_answered_where_clients_call_nor_the_other_way_round() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &["peer.insecure=true"]).await;
    let at = nodes[0].addresses;
    let mut peer = PeerClient::connect(format!("http://{}", at.grpc))
        .await
        .unwrap();
    let remove = wire::RemoveHereRequest {
        group: "users".into(),
        key: None,
        tag: None,
    };
    let refused = peer.remove(remove).await.expect_err("not here");
    assert_eq!(refused.code(), Code::Unimplemented);
    let fetch = wire::FetchRequest {
        group: "users".into(),
        key: "alice".into(),
    };
    let refused = peer.fetch(fetch).await.expect_err("not here");
    assert_eq!(refused.code(), Code::Unimplemented);
    let refused = client(at.peer).await.get(get("alice")).await;
    assert_eq!(refused.expect_err("not here").code(), Code::Unimplemented);
    assert_eq!(origin.loads(), 0);
}
