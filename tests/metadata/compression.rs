//! Values that are kept compressed: every client gets what the origin gave, and fewer bytes lie in
//! memory and travel between nodes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use gaocache::internal::wire::{GetManyRequest, PurgeTagRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const KEEP: &str = "compress_min_bytes = \"1KiB\"";
const ZSTD: (&str, &str) = ("accept-encoding", "gzip, zstd");

async fn compressing(size: usize, origin: &Origin, group: &str) -> Vec<TestNode> {
    nodes(size, origin, group, KEEP, &["redis.listen=127.0.0.1:0"]).await
}

/// What the node answers to a Redis command.
async fn redis(node: &TestNode, command: &str) -> Vec<u8> {
    let address = node.addresses.redis.expect("it listens");
    let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let sent = format!("{command}\r\nQUIT\r\n");
    connection.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("an answer", connection.read_to_end(&mut answer))
        .await
        .unwrap();
    answer
}

#[tokio::test]
async fn every_client_gets_what_the_origin_gave_from_every_node() {
    let (origin, text) = (Origin::start().await, origin::text());
    let nodes = compressing(3, &origin, "").await;
    for node in &nodes {
        let got = get(node, "text", &[]).await;
        assert_eq!(got.status(), 200);
        for (name, values) in [
            ("etag", vec!["\"1\""]),
            ("content-type", vec!["text/plain"]),
            ("content-length", vec![&*text.len().to_string()]),
            ("content-encoding", vec![]),
            ("vary", vec!["accept-encoding"]),
        ] {
            assert_eq!(lines(&got, name), values, "{name}");
        }
        assert_eq!(got.text().await.unwrap(), text);

        let mut client = node.client().await;
        let answer = client.get(get_request("text")).await.unwrap().into_inner();
        assert!(answer.value == text.as_bytes());
        assert_eq!(answer.headers.len(), 2, "{:?}", answer.headers);
        let many = GetManyRequest {
            group: "users".into(),
            keys: vec!["text".into()],
        };
        let mut many = client.get_many(many).await.unwrap().into_inner();
        let answer = many.message().await.unwrap().expect("an answer");
        assert!(format!("{answer:?}").len() > text.len());

        let length = redis(node, "STRLEN users:text").await;
        assert!(length.starts_with(format!(":{}\r\n", text.len()).as_bytes()));
        let value = redis(node, "GET users:text").await;
        assert!(value.starts_with(format!("${}\r\n{text}\r\n", text.len()).as_bytes()));
    }
    assert_eq!(origin.asked("/text").len(), 1);
    let mut saved = 0.0;
    for node in &nodes {
        saved += metric(node, "gaocache_origin_compression_saved_bytes_total", &[]).await;
        let held = metric(node, "gaocache_store_bytes", &["owned"]).await;
        assert!(held < text.len() as f64 / 10.0, "{held} bytes");
    }
    assert!(saved > text.len() as f64 * 0.9, "{saved} bytes");

    let request = PurgeTagRequest {
        group: "users".into(),
        tag: "prose".into(),
    };
    let purged = nodes[0].client().await.purge_tag(request).await;
    purged.expect("purged");
    assert_eq!(
        get(&nodes[1], "text", &[]).await.text().await.unwrap(),
        text
    );
    assert_eq!(origin.asked("/text").len(), 2);
}

#[tokio::test]
async fn who_takes_zstd_gets_it_as_another_representation_and_parts_are_of_the_plain_one() {
    let (origin, text) = (Origin::start().await, origin::text());
    let nodes = compressing(2, &origin, "").await;
    for node in &nodes {
        for method in [Method::GET, Method::HEAD] {
            let got = ask(node, method.clone(), "text", &[ZSTD]).await;
            for (name, values) in [
                ("etag", vec!["\"1-zstd\""]),
                ("content-encoding", vec!["zstd"]),
                ("content-type", vec!["text/plain"]),
                ("vary", vec!["accept-encoding"]),
            ] {
                assert_eq!(lines(&got, name), values, "{name}");
            }
            let length: usize = lines(&got, "content-length")[0].parse().unwrap();
            assert!(length < text.len() / 10, "{length}");
            if method == Method::GET {
                let frame = got.bytes().await.unwrap();
                let plain = zstd::bulk::decompress(&frame, text.len()).expect("a frame");
                assert!(plain == text.as_bytes());
            }
        }
        for (tag, given, status) in [
            ("\"1\"", None, 304),
            ("\"1-zstd\"", None, 200),
            ("\"1-zstd\"", Some(ZSTD), 304),
            ("\"1\"", Some(ZSTD), 200),
        ] {
            let mut headers = vec![("if-none-match", tag)];
            headers.extend(given);
            let got = get(node, "text", &headers).await;
            assert_eq!(got.status(), status, "{headers:?}");
            assert_eq!(lines(&got, "vary"), ["accept-encoding"]);
            let coded = status == 200 && given.is_some();
            assert_eq!(!lines(&got, "content-encoding").is_empty(), coded);
        }
        for range in [vec![], vec![("if-range", "\"1\"")]] {
            let asked = [&[ZSTD, ("range", "bytes=4-7")], &range[..]].concat();
            let part = get(node, "text", &asked).await;
            assert_eq!(part.status(), 206);
            assert_eq!(lines(&part, "etag"), ["\"1\""]);
            let told = format!("bytes 4-7/{}", text.len());
            assert_eq!(lines(&part, "content-range"), [told]);
            assert_eq!(part.text().await.unwrap(), text[4..8]);
        }
    }
}

#[tokio::test]
async fn what_is_small_or_encoded_or_does_not_shrink_is_left_alone() {
    let origin = Origin::start().await;
    let nodes = compressing(2, &origin, "").await;
    for (key, encoding) in [("plain", None), ("encoded", Some("gzip"))] {
        for node in &nodes {
            let got = get(node, key, &[ZSTD]).await;
            assert_eq!(
                lines(&got, "content-encoding"),
                Vec::from_iter(encoding),
                "{key}"
            );
            assert!(lines(&got, "vary").is_empty(), "{key}");
            let body = got.text().await.unwrap();
            let wanted = encoding.map_or("first".into(), |_| origin::text());
            assert!(body == wanted, "{key}");
        }
    }
    let saved = metric(
        &nodes[0],
        "gaocache_origin_compression_saved_bytes_total",
        &[],
    )
    .await;
    assert_eq!(saved, 0.0);
}

#[tokio::test]
async fn a_renewed_value_is_still_the_same() {
    let (origin, text) = (Origin::start().await, origin::text());
    let group = "ttl_seconds = 0.02, stale_if_error_seconds = 86400,";
    let nodes = compressing(2, &origin, group).await;
    within("a renewal", async {
        while !origin
            .asked("/text")
            .iter()
            .any(|it| it.contains("if-none-match: \"1\""))
        {
            for node in &nodes {
                assert!(get(node, "text", &[]).await.text().await.unwrap() == text);
            }
        }
    })
    .await;
    for node in &nodes {
        let got = get(node, "text", &[ZSTD]).await;
        assert_eq!(lines(&got, "etag"), ["\"1-zstd\""]);
        let frame = got.bytes().await.unwrap();
        assert!(zstd::bulk::decompress(&frame, text.len()).is_ok());
    }
}

/// A value that somebody reads slowly takes all the room that there is for large ones.
#[tokio::test]
async fn a_head_and_a_304_need_no_room_for_the_value() {
    let loader =
        gaocache::loader(async |_: String| Ok::<_, gaocache::BoxError>("x".repeat(16 << 20)));
    let group = gaocache::GroupDefinition::new("users", loader);
    let group = group.compress_min_bytes(1 << 10).max_value(16 << 20);
    let mut settings = gaocache::Settings::standalone("only");
    settings.http = Some("127.0.0.1:0".parse().unwrap());
    settings.in_flight = 24 << 20;
    let builder = gaocache::NodeBuilder::new(settings).group(group);
    let node = builder.bind().await.unwrap();
    let address = node.addresses().http.expect("it listens");
    tokio::spawn(node.run(std::future::pending()));
    let ask = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = http().request(method, format!("http://{address}/v1/users/k"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        within("an answer", request.send()).await.unwrap()
    };
    let small = ask(Method::GET, &[ZSTD]).await;
    assert_eq!(small.status(), 200);
    let etag = lines(&small, "etag")[0].replace("-zstd", "");
    // Its body is not read.
    let large = ask(Method::GET, &[]).await;
    assert_eq!(large.status(), 200, "it is counted once");
    assert_eq!(ask(Method::GET, &[]).await.status(), 503);
    let head = ask(Method::HEAD, &[]).await;
    assert_eq!(head.status(), 200);
    assert_eq!(lines(&head, "content-length"), [(16 << 20).to_string()]);
    assert_eq!(lines(&head, "etag"), [&etag]);
    assert!(lines(&head, "content-encoding").is_empty());
    let unchanged = ask(Method::GET, &[("if-none-match", &etag)]).await;
    assert_eq!(unchanged.status(), 304);
    drop(large);
}

#[tokio::test]
async fn a_program_sees_nothing_of_it_and_the_largest_value_is_that_of_the_origin() {
    let loads = Arc::<AtomicUsize>::default();
    let count = loads.clone();
    let loader = gaocache::loader(move |key: String| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let length: usize = key.parse()?;
            Ok::<_, gaocache::BoxError>("x".repeat(length))
        }
    });
    let group = gaocache::GroupDefinition::new("users", loader);
    let group = group.compress_min_bytes(1 << 10).max_value(1 << 20);
    let builder = gaocache::NodeBuilder::new(gaocache::Settings::standalone("only"));
    let node = builder.group(group).bind().await.unwrap();
    let cache = node.cache();
    tokio::spawn(node.run(std::future::pending()));
    for length in [9, 1 << 10, 1 << 20] {
        let key = length.to_string();
        for _ in 0..2 {
            let answer = cache.get("users", &key).await.unwrap();
            assert!(answer.value == "x".repeat(length).as_bytes());
            assert!(answer.metadata.is_empty());
        }
        let many = cache.get_many("users", &[&key]).await;
        assert_eq!(many[0].as_ref().unwrap().value.len(), length);
    }
    let before = loads.load(Ordering::SeqCst);
    for _ in 0..2 {
        let refused = cache.get("users", &((1 << 20) + 1).to_string()).await;
        let kind = refused.expect_err("too large").kind();
        assert_eq!(kind, gaocache::ErrorKind::ValueTooLarge);
    }
    assert_eq!(loads.load(Ordering::SeqCst), before + 2, "not kept");
}
