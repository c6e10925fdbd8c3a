//! What a browser may be tricked into, at the HTTP and the admin listener.

use reqwest::Method;

use crate::common::{CountingOrigin, TestNode, http, joining};
use gaocache::Registry;

async fn asked(url: &str, method: Method, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = http().request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("answers");
    let status = answer.status().as_u16();
    let body = answer.bytes().await.expect("an answer");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    (
        status,
        body["reason"].as_str().unwrap_or_default().to_owned(),
    )
}

async fn node(further: &[&str]) -> TestNode {
    let origin = CountingOrigin::start().await;
    joining(&Registry::memory(), "n0", &origin.url(), further).await
}

#[tokio::test]
async fn a_name_that_was_rebound_to_the_node_is_not_answered_for() {
    let node = node(&[
        "http.allowed_hosts=cache.shop.test",
        "admin.allowed_hosts=*.example.com",
    ])
    .await;
    let (value, ring) = (node.http("/v1/users/k"), node.admin("/ring"));
    let of = async |url: &str, host: &str| asked(url, Method::GET, &[("host", host)]).await;
    for url in [&value, &ring] {
        for evil in [
            "evil.com",
            "evil.com:8080",
            "127.0.0.1.evil.com",
            "n0.evil.com",
        ] {
            let refused = of(url, evil).await;
            assert_eq!(refused, (421, "other_host".into()), "{url} {evil}");
        }
        for good in ["localhost", "n0:8080", "10.0.0.7", "[::1]:1"] {
            assert_eq!(of(url, good).await.0, 200, "{url} {good}");
        }
    }
    // Each listener has names of its own.
    assert_eq!(of(&value, "cache.shop.test:8080").await.0, 200);
    assert_eq!(of(&ring, "cache.shop.test:8080").await.0, 421);
    assert_eq!(of(&ring, "admin.example.com").await.0, 200);
    // Nothing that the request asks for is done.
    let url = node.http("/v1/users/never");
    assert_eq!(of(&url, "evil.com").await.0, 421);
    let loads = crate::common::metric(&node, "gaocache_requests_total", &["users"]).await;
    assert_eq!(loads, 5.0, "those that were heard");
    node.stopped().await;
}

#[tokio::test]
async fn another_site_s_page_reloads_and_removes_nothing() {
    let node = node(&[]).await;
    let admin = node.addresses.admin.to_string();
    let log = node.admin("/log?level=warn");
    let key = node.http("/v1/users/k");
    for (method, url) in [(Method::PUT, &log), (Method::DELETE, &key)] {
        for evil in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://evil.com"),
            ("origin", "null"),
        ] {
            let refused = asked(url, method.clone(), &[evil]).await;
            assert_eq!(refused, (403, "another_site".into()), "{method} {evil:?}");
        }
        assert_eq!(asked(url, method, &[]).await.1, "", "no browser");
    }
    let own = format!("http://{admin}");
    for good in [("origin", own.as_str()), ("sec-fetch-site", "same-origin")] {
        assert_eq!(asked(&log, Method::PUT, &[good]).await.1, "", "{good:?}");
    }
    // Reading is what the browser itself keeps from other sites.
    let get = asked(&key, Method::GET, &[("sec-fetch-site", "cross-site")]).await;
    assert_eq!(get.0, 200);
    node.stopped().await;
}

#[tokio::test]
async fn the_http_listener_and_reflection_can_be_switched_off() {
    let origin = CountingOrigin::start().await;
    let further = ["http.enabled=false", "grpc.reflection=false"];
    let settings = crate::common::settings("n0", &origin.url(), &further);
    let node = crate::common::builder(&settings)
        .bind()
        .await
        .expect("binds");
    assert_eq!(node.addresses().http, None);
    let grpc = node.addresses().grpc.expect("there");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(node.run(async { drop(stopped.await) }));
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{grpc}"));
    let channel = channel
        .expect("an address")
        .connect()
        .await
        .expect("connects");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("ready");
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        .parse()
        .unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let asked = client.unary(tonic::Request::new(()), path, codec).await;
    assert_eq!(
        asked.expect_err("not there").code(),
        tonic::Code::Unimplemented
    );
    drop(stop);
    running.await.expect("no panic").expect("stops");
}
