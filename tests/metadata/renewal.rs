//! What is asked of the origin once a life is over: by the value's validator, and late.

use super::*;

const SHORT: &str = "ttl_seconds = 0.02, stale_if_error_seconds = 86400,";

#[tokio::test]
async fn a_value_is_asked_for_by_its_validator_and_lives_on() {
    let origin = Origin::start().await;
    let nodes = nodes(3, &origin, SHORT, "keep_headers = [\"X-Kept\"],", &[]).await;
    for (key, condition) in [
        ("tagged", "if-none-match: \"1\""),
        ("dated", "if-modified-since: sun, 06 nov 1994 08:49:37 gmt"),
    ] {
        let path = format!("/{key}");
        let first = get(&nodes[0], key, &[]).await;
        assert_eq!(
            lines(&first, "cache-status")[0].split("; ttl").next(),
            Some("gaocache; fwd=miss")
        );
        let before = first.headers().clone();
        within("an unchanged value", async {
            while origin.asked(&path).len() < 3 {
                for node in &nodes {
                    let got = get(node, key, &[]).await;
                    assert_eq!(got.headers()["etag"], before["etag"]);
                    assert_eq!(got.headers()["content-type"], before["content-type"]);
                    if lines(&got, "x-cache") == ["origin"] {
                        let status = lines(&got, "cache-status")[0].to_owned();
                        assert!(status.starts_with("gaocache; fwd=stale"), "{status}");
                        let renewed = (key == "tagged").then_some("renewed");
                        assert_eq!(lines(&got, "x-kept"), Vec::from_iter(renewed));
                    }
                    assert_eq!(got.text().await.unwrap(), "first");
                }
            }
        })
        .await;
        let asked = origin.asked(&path);
        assert!(!asked[0].contains("if-"), "{}", asked[0]);
        assert!(
            asked[1..].iter().all(|it| it.contains(condition)),
            "{asked:?}"
        );
    }
    origin.changes();
    within("the second value", async {
        while get(&nodes[1], "tagged", &[]).await.text().await.unwrap() != "second" {}
    })
    .await;
    assert_eq!(
        lines(&until(&nodes[1], "tagged", "origin").await, "etag"),
        ["\"2\""]
    );
}

/// What a removal took is never named to the origin, so the origin can't bring it back.
#[tokio::test]
async fn a_removed_value_is_not_asked_for_by_its_validator() {
    let origin = Origin::start().await;
    let nodes = nodes(2, &origin, SHORT, "", &[]).await;
    get(&nodes[0], "tagged", &[]).await;
    let removed = ask(&nodes[1], Method::DELETE, "tagged", &[]).await;
    assert_eq!(removed.status(), 204);
    let asked = origin.asked("/tagged").len();
    get(&nodes[0], "tagged", &[]).await;
    let after = origin.asked("/tagged");
    assert!(!after[asked].contains("if-none-match"), "{}", after[asked]);
    origin.is_down(true);
    until(&nodes[0], "tagged", "stale").await;
    ask(&nodes[1], Method::DELETE, "tagged", &[]).await;
    assert_eq!(get(&nodes[0], "tagged", &[]).await.status(), 502, "removed");
}

#[tokio::test]
async fn a_304_about_another_value_is_an_error_of_the_origin() {
    let origin = Origin::start().await;
    let nodes = nodes(1, &origin, SHORT, "", &[]).await;
    get(&nodes[0], "other-tag", &[]).await;
    // The error itself is not seen: the old value stands in for it.
    let stale = until(&nodes[0], "other-tag", "stale").await;
    assert_eq!(
        lines(&stale, "cache-status"),
        ["gaocache; fwd=stale; detail=stale"]
    );
    let failed = metric(&nodes[0], "gaocache_origin_loads_total", &["origin_failed"]).await;
    assert!(failed >= 1.0);
}

#[tokio::test]
async fn a_slow_load_is_not_waited_for_if_there_is_an_old_value() {
    let origin = Origin::start().await;
    let group = format!("{SHORT} soft_timeout_seconds = 0.05,");
    let nodes = nodes(2, &origin, &group, "", &[]).await;
    get(&nodes[0], "tagged", &[]).await;
    origin.is_open(false);
    for node in &nodes {
        // Once its life is over, the load hangs: a get would wait for twenty seconds.
        let stale = until(node, "tagged", "stale").await;
        assert_eq!(
            lines(&stale, "cache-status"),
            ["gaocache; fwd=stale; detail=stale"]
        );
    }
    let asked = origin.asked("/tagged").len();
    origin.is_open(true);
    within("the load that went on", async {
        while lines(&get(&nodes[0], "tagged", &[]).await, "x-cache") == ["stale"] {}
    })
    .await;
    assert!(origin.asked("/tagged").len() >= asked);
}

#[tokio::test]
async fn who_waits_for_the_load_of_another_is_told_so() {
    let origin = Origin::start().await;
    let nodes = nodes(1, &origin, "", "", &[]).await;
    origin.is_open(false);
    let first = tokio::spawn(http().get(nodes[0].http("/v1/users/plain")).send());
    within("the load", async {
        while origin.asked("/plain").is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let second = tokio::spawn(http().get(nodes[0].http("/v1/users/plain")).send());
    within("the second get", async {
        while metric(&nodes[0], "gaocache_flight_waits_total", &["users"]).await < 1.0 {}
    })
    .await;
    origin.is_open(true);
    for (got, wanted) in [
        (first, "gaocache; fwd=miss"),
        (second, "gaocache; fwd=miss; collapsed"),
    ] {
        let got = within("an answer", got).await.unwrap().unwrap();
        assert_eq!(lines(&got, "cache-status"), [wanted]);
    }
}
