//! What the origin said goes with a value wherever it goes.

use gaocache::{
    Error, GroupDefinition, Loaded, Metadata, NodeBuilder, Registry, Settings,
    internal::wire::{GetManyRequest, get_many_response::Outcome},
};

use super::*;

const KEEP: &str = "keep_headers = [\"X-Kept\", \"Cache-Control\"],";

/// In the order in which they are kept.
const SAID: [(&str, &str); 8] = [
    ("content-type", "text/html; charset=utf-8"),
    ("etag", "W/\"w\""),
    ("last-modified", origin::MODIFIED),
    ("content-encoding", "x-unheard-of"),
    ("content-language", "de"),
    ("x-kept", "a"),
    ("x-kept", "b"),
    ("cache-control", "max-age=900"),
];

fn assert_said(got: &Response) {
    for name in [
        "content-type",
        "etag",
        "last-modified",
        "content-encoding",
        "content-language",
    ] {
        let said = SAID.iter().find(|it| it.0 == name).unwrap().1;
        assert_eq!(lines(got, name), [said], "{name}");
    }
    assert_eq!(lines(got, "x-kept"), ["a", "b"]);
    assert_eq!(lines(got, "cache-control"), ["max-age=900"]);
    let age: u64 = lines(got, "age")[0].parse().unwrap();
    assert!((100..200).contains(&age), "{age}");
    for never in ["x-other", "set-cookie"] {
        assert!(lines(got, never).is_empty(), "{never}");
    }
}

#[tokio::test]
async fn it_comes_from_every_node_over_http_and_grpc() {
    let origin = Origin::start().await;
    let nodes = nodes(3, &origin, "", KEEP, &["cache.hot_after_requests=2"]).await;
    for node in &nodes {
        for _ in 0..4 {
            assert_said(&get(node, "all", &[]).await);
        }
        let mut client = node.client().await;
        let answer = client.get(get_request("all")).await.unwrap().into_inner();
        let headers = answer.headers.iter().map(|it| (&*it.name, &*it.value));
        assert_eq!(headers.collect::<Vec<_>>(), SAID);
        let many = GetManyRequest {
            group: "users".into(),
            keys: vec!["all".into()],
        };
        let mut many = client.get_many(many).await.unwrap().into_inner();
        let many = many.message().await.unwrap().unwrap();
        let Some(Outcome::Found(found)) = many.outcome else {
            panic!("{many:?}");
        };
        assert_eq!(found.headers, answer.headers);
    }
    assert_eq!(origin.asked("/all").len(), 1);
}

#[tokio::test]
async fn it_is_handed_over_by_an_owner_that_leaves_and_to_one_that_comes_back() {
    let origin = Origin::start().await;
    let url = format!("http://{}/{{+key}}", origin.address);
    let groups = format!(
        "groups=[{{ name = \"users\", max_value = \"1MiB\", origin = {{ kind = \"http\", url = \"{url}\", {KEEP} }} }}]"
    );
    let registry = Registry::memory();
    let further = ["cache.hot_after_requests=0", &groups];
    let mut nodes = Vec::new();
    for id in ["n0", "n1"] {
        nodes.push(joining(&registry, id, &url, &further).await);
    }
    for node in &mut nodes {
        node.ring_of(2).await;
        node.ready().await;
    }
    let keys: Vec<String> = (0..20).map(|number| format!("all.{number}")).collect();
    for key in &keys {
        assert_said(&get(&nodes[0], key, &[]).await);
    }
    nodes.remove(1).stopped().await;
    nodes[0].ring_of(1).await;
    for key in &keys {
        let got = get(&nodes[0], key, &[]).await;
        assert_eq!(lines(&got, "x-cache"), ["hit"], "{key}");
        assert_said(&got);
    }
    // The owner comes back with nothing in memory.
    let mut again = joining(&registry, "n1", &url, &further).await;
    again.ring_of(2).await;
    again.ready().await;
    for key in &keys {
        let got = get(&again, key, &[]).await;
        assert_ne!(lines(&got, "x-cache"), ["origin"], "{key}");
        assert_said(&got);
        assert_eq!(origin.asked(&format!("/{key}")).len(), 1, "{key}");
    }
}

#[tokio::test]
async fn it_is_part_of_a_replica() {
    let origin = Origin::start().await;
    let more = ["cache.hot_after_requests=0", "cache.replicas=2"];
    let nodes = nodes(2, &origin, "", KEEP, &more).await;
    get(&nodes[0], "all", &[]).await;
    for node in &nodes {
        // From its own memory: as owner, or as who has the copy.
        let got = until(node, "all", "hit").await;
        assert_said(&got);
    }
    assert_eq!(origin.asked("/all").len(), 1);
}

#[tokio::test]
async fn nothing_comes_of_what_was_not_said() {
    let origin = Origin::start().await;
    let nodes = nodes(1, &origin, "", KEEP, &[]).await;
    for source in ["origin", "hit"] {
        let got = get(&nodes[0], "plain", &[]).await;
        assert_eq!(lines(&got, "x-cache"), [source]);
        assert_eq!(lines(&got, "content-type"), ["application/octet-stream"]);
        for name in ["last-modified", "content-encoding", "age", "cache-control"] {
            assert!(lines(&got, name).is_empty(), "{name}");
        }
    }
    let mut client = nodes[0].client().await;
    let answer = client.get(get_request("plain")).await.unwrap();
    assert!(answer.into_inner().headers.is_empty());
}

/// Each is served or refused as `docs/http.md` says, and nothing half-read is kept.
#[tokio::test]
async fn each_odd_response_has_its_answer() {
    let origin = Origin::start().await;
    let rest = "keep_headers = [\"X-Kept\"], honour_cache_control = true,";
    let nodes = nodes(1, &origin, "", rest, &[]).await;
    let node = &nodes[0];
    let good = get(node, "plain", &[]).await;
    let own_tag = lines(&good, "etag")[0].to_owned();
    for (key, header, wanted) in [
        ("unquoted", "etag", own_tag.as_str()),
        ("two-tags", "etag", &own_tag),
        ("two-types", "content-type", "application/octet-stream"),
        ("all", "content-encoding", "x-unheard-of"),
        ("long-other", "etag", &own_tag),
        ("absurd", "etag", &own_tag),
        ("negative", "cache-control", "max-age=0"),
        ("contradicts", "cache-control", "max-age=0"),
        ("many-tags", "cache-control", "max-age=0"),
    ] {
        let got = get(node, key, &[]).await;
        assert_eq!(got.status(), 200, "{key}");
        assert_eq!(lines(&got, header), [wanted], "{key}");
        assert_eq!(got.text().await.unwrap(), "first", "{key}");
    }
    for (key, kind) in [
        ("short", "origin_failed"),
        ("half-chunked", "origin_failed"),
        ("two-lengths", "origin_failed"),
        ("megabyte", "origin_failed"),
        ("many-headers", "origin_failed"),
        ("garbled-encoding", "origin_failed"),
        ("always-304", "origin_failed"),
        ("long-kept", "value_too_large"),
    ] {
        for asked in 1..=2 {
            let got = get(node, key, &[]).await;
            assert_eq!(got.status(), 502, "{key}");
            assert_eq!(lines(&got, "gaocache-error"), [kind], "{key}");
            let status = format!("gaocache; detail={kind}");
            assert_eq!(lines(&got, "cache-status"), [status], "{key}");
            assert_eq!(
                origin.asked(&format!("/{key}")).len(),
                asked,
                "{key} is not kept"
            );
        }
        assert_eq!(get(node, "plain", &[]).await.status(), 200, "after {key}");
    }
}

#[tokio::test]
async fn a_loader_of_a_program_says_what_its_values_are() {
    let loader = gaocache::loader(async |key: String| {
        let metadata = Metadata::new([("content-type", "image/png"), ("x-key", key.as_str())])?;
        Ok::<_, Error>(Loaded::from("v").with_metadata(metadata))
    });
    let mut settings = Settings::standalone("only");
    let anywhere = "127.0.0.1:0".parse().unwrap();
    (settings.grpc, settings.peer) = (Some(anywhere), Some(anywhere));
    (settings.http, settings.admin) = (Some(anywhere), Some(anywhere));
    let builder = NodeBuilder::new(settings).group(GroupDefinition::new("users", loader));
    let node = builder.bind().await.unwrap();
    let cache = node.cache();
    let mut node = TestNode::start(node);
    node.ready().await;
    let answer = cache.get("users", "k").await.unwrap();
    assert_eq!(answer.metadata.get("x-key"), Some("k"));
    let got = get(&node, "k", &[]).await;
    assert_eq!(lines(&got, "content-type"), ["image/png"]);
    // What would break the response is an error of the loader.
    let failed = cache.get("users", "a\r\nset-cookie: b").await.unwrap_err();
    assert_eq!(failed.kind(), gaocache::ErrorKind::OriginFailed);
}
