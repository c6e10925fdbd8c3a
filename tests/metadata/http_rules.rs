//! What the HTTP listener makes of requests: conditions, ranges, and queries.

use super::*;

#[tokio::test]
async fn a_client_that_has_the_value_is_told_so_by_the_origin_s_validators() {
    let origin = Origin::start().await;
    let nodes = nodes(2, &origin, "", "", &[]).await;
    for node in &nodes {
        for (key, name, value, status) in [
            ("tagged", "if-none-match", "W/\"1\"", 304),
            ("tagged", "if-none-match", "\"2\"", 200),
            ("tagged", "if-modified-since", origin::MODIFIED, 200),
            ("dated", "if-modified-since", origin::MODIFIED, 304),
            (
                "dated",
                "if-modified-since",
                "Sat, 05 Nov 1994 08:49:37 GMT",
                200,
            ),
            ("dated", "if-modified-since", "whenever", 200),
            ("dated", "if-match", "\"nothing\"", 200),
        ] {
            let got = get(node, key, &[(name, value)]).await;
            assert_eq!(got.status(), status, "{key} {name}: {value}");
            let body = got.text().await.unwrap();
            assert_eq!(body.is_empty(), status == 304, "{key} {name}: {value}");
        }
    }
}

#[tokio::test]
async fn one_range_of_a_value_is_sent_and_several_are_the_whole() {
    let origin = Origin::start().await;
    let nodes = nodes(2, &origin, "", "", &[]).await;
    for (headers, status, content_range, body) in [
        (
            vec![("range", "bytes=2-4")],
            206,
            Some("bytes 2-4/10"),
            "234",
        ),
        (
            vec![("range", "bytes=-3")],
            206,
            Some("bytes 7-9/10"),
            "789",
        ),
        (
            vec![("range", "bytes=1-")],
            206,
            Some("bytes 1-9/10"),
            "123456789",
        ),
        (vec![("range", "bytes=10-")], 416, Some("bytes */10"), ""),
        (vec![("range", "bytes=0-1,3-4")], 200, None, "0123456789"),
        (vec![("range", "pages=1-2")], 200, None, "0123456789"),
        (
            vec![("range", "bytes=2-4"), ("if-range", "\"d\"")],
            206,
            Some("bytes 2-4/10"),
            "234",
        ),
        (
            vec![("range", "bytes=2-4"), ("if-range", "\"e\"")],
            200,
            None,
            "0123456789",
        ),
        (
            vec![("range", "bytes=2-4"), ("if-none-match", "\"d\"")],
            304,
            None,
            "",
        ),
    ] {
        for node in &nodes {
            let got = get(node, "digits", &headers).await;
            assert_eq!(got.status(), status, "{headers:?}");
            assert_eq!(
                lines(&got, "content-range"),
                Vec::from_iter(content_range),
                "{headers:?}"
            );
            assert_eq!(got.text().await.unwrap(), body, "{headers:?}");
        }
    }
    let head = ask(&nodes[0], Method::HEAD, "digits", &[("range", "bytes=2-4")]).await;
    assert_eq!(
        (head.status().as_u16(), lines(&head, "content-length")),
        (200, vec!["10"])
    );
    assert_eq!(lines(&head, "accept-ranges"), ["bytes"]);
}

#[tokio::test]
async fn a_query_means_what_the_group_says() {
    let origin = Origin::start().await;
    for (rule, path, status, asked) in [
        ("", "plain?a=1", 400, None),
        ("query = \"refuse\",", "plain?", 400, None),
        ("query = \"ignore\",", "ignored?a=1", 200, Some("/ignored")),
        (
            "query = \"append\",",
            "kept/x?A=%2f&b",
            200,
            Some("/kept/x?a=%2f&b"),
        ),
        ("query = \"append\",", "kept/y?", 200, Some("/kept/y?")),
        ("query = \"append\",", "?all=1", 200, Some("/?all=1")),
        ("query = \"append\",", "?", 200, Some("/?")),
        ("query = \"append\",", "", 400, None),
        ("query = \"ignore\",", "?a=1", 400, None),
        ("", "?a=1", 400, None),
    ] {
        let nodes = nodes(1, &origin, rule, "", &[]).await;
        let got = get(&nodes[0], path, &[]).await;
        assert_eq!(got.status(), status, "{rule} {path}");
        if let Some(asked) = asked {
            assert_eq!(origin.asked(asked).len(), 1, "{rule} {path}");
        }
        // A removal means the same key.
        let removed = ask(&nodes[0], Method::DELETE, path, &[]).await;
        let wanted = if status == 200 { 204 } else { 400 };
        assert_eq!(removed.status(), wanted, "{rule} {path}");
        let again = get(&nodes[0], path, &[]).await;
        if status == 200 {
            assert_eq!(lines(&again, "x-cache"), ["origin"], "{rule} {path}");
        }
    }
}

#[tokio::test]
async fn a_key_divides_its_url_and_never_leaves_its_place() {
    let origin = Origin::start().await;
    let nodes = nodes(1, &origin, "", "", &[]).await;
    let got = get(&nodes[0], "a/b%20c", &[]).await;
    assert_eq!(got.status(), 200);
    assert_eq!(origin.asked("/a/b%20c").len(), 1);
    for key in ["a%2F..%2Fb", "%252e%252e/b", "a%2F.%2Fb", "a%2F%252E."] {
        let got = get(&nodes[0], key, &[]).await;
        assert_eq!(got.status(), 404, "{key}");
        assert_eq!(lines(&got, "gaocache-error"), ["not_found"], "{key}");
    }
    let elsewhere = http().get(nodes[0].http("/v2/x")).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404);
}
