//! What an origin says of its values, on its way to clients: through nodes, handoffs and copies, as
//! HTTP means it; and what nodes ask the origin by it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod absence;
mod attacks;
#[path = "../common/mod.rs"]
mod common;
mod compression;
mod http_rules;
mod nginx;
mod origin;
mod renewal;
mod scale;
mod tags;
mod travel;

use common::*;
use origin::Origin;
use reqwest::{Method, Response};

/// Nodes whose group has these further settings, and its origin those.
async fn nodes(
    size: usize,
    origin: &Origin,
    group: &str,
    rest: &str,
    more: &[&str],
) -> Vec<TestNode> {
    let url = format!("http://{}/{{+key}}", origin.address);
    let groups = format!(
        "groups=[{{ name = \"users\", max_value = \"1MiB\", {group} origin = {{ kind = \"http\", url = \"{url}\", retries = 0, timeout_seconds = 3600, {rest} }} }}]"
    );
    let further: Vec<&str> = more.iter().copied().chain([groups.as_str()]).collect();
    cluster(size, &url, &further).await
}

/// A get of that path below the group, with these headers.
async fn get(node: &TestNode, path: &str, headers: &[(&str, &str)]) -> Response {
    ask(node, Method::GET, path, headers).await
}

async fn ask(node: &TestNode, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = http().request(method, node.http(&format!("/v1/users/{path}")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    within(path, request.send()).await.unwrap()
}

/// All lines of a header of a response.
fn lines<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    let values = response.headers().get_all(name).iter();
    values.map(|it| it.to_str().unwrap()).collect()
}

/// Gets the key until it comes from that source.
async fn until(node: &TestNode, key: &str, source: &str) -> Response {
    within(source, async {
        loop {
            let got = get(node, key, &[]).await;
            assert_eq!(got.status(), 200, "{key}");
            if lines(&got, "x-cache") == [source] {
                return got;
            }
        }
    })
    .await
}
