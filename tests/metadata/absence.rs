//! The body of an origin's 404, from every node and over every protocol.

use tonic::Code;

use super::*;

const KEPT: &str = "keep_not_found_body = true";

#[tokio::test]
async fn the_origin_s_404_is_answered_by_every_node_and_asked_for_once() {
    let origin = Origin::start().await;
    let nodes = nodes(3, &origin, "negative_ttl_seconds = 600,", KEPT, &[]).await;
    for node in &nodes {
        for method in [Method::GET, Method::HEAD] {
            let got = ask(node, method.clone(), "nobody", &[]).await;
            assert_eq!(got.status(), 404);
            for (name, values) in [
                ("gaocache-error", vec!["not_found"]),
                ("content-type", vec!["text/html"]),
                ("content-language", vec!["de"]),
                ("content-length", vec!["14"]),
                ("x-content-type-options", vec!["nosniff"]),
                ("x-kept", vec![]),
                ("cache-status", vec!["gaocache; detail=not_found"]),
            ] {
                assert_eq!(lines(&got, name), values, "{name}");
            }
            let body = if method == Method::GET {
                "<p>niemand</p>"
            } else {
                ""
            };
            assert_eq!(got.text().await.unwrap(), body);
        }
        let refused = node.client().await.get(get_request("nobody")).await;
        assert_eq!(refused.expect_err("absent").code(), Code::NotFound);
    }
    assert_eq!(origin.asked("/nobody").len(), 1);
    let removed = ask(&nodes[1], Method::DELETE, "nobody", &[]).await;
    assert_eq!(removed.status(), 204);
    let got = get(&nodes[2], "nobody", &[]).await;
    assert_eq!(got.text().await.unwrap(), "<p>niemand</p>");
    assert_eq!(origin.asked("/nobody").len(), 2);
}

#[tokio::test]
async fn a_404_without_a_body_that_can_be_kept_is_answered_with_our_own() {
    let origin = Origin::start().await;
    let kept = nodes(1, &origin, "negative_ttl_seconds = 600,", KEPT, &[]).await;
    let plain = nodes(1, &origin, "negative_ttl_seconds = 600,", "", &[]).await;
    for (node, key, body) in [
        (&kept[0], "gone", Some("gone")),
        (&kept[0], "bare", None),
        (&kept[0], "much", None),
        (&kept[0], "broken", None),
        (&plain[0], "nobody", None),
    ] {
        for _ in 0..2 {
            let got = get(node, key, &[]).await;
            assert_eq!(got.status(), 404, "{key}");
            assert_eq!(lines(&got, "gaocache-error"), ["not_found"], "{key}");
            let (kind, text) = match body {
                Some(body) => ("application/octet-stream", body),
                None => ("application/json", "{\"error\":\"not_found\""),
            };
            assert_eq!(lines(&got, "content-type"), [kind], "{key}");
            let told = got.text().await.unwrap();
            assert!(told.starts_with(text), "{key}: {told}");
        }
        assert_eq!(origin.asked(&format!("/{key}")).len(), 1, "{key}");
    }
}
