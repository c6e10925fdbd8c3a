//! Traces across real processes, received as OTLP by a small service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod receiver;

use std::{net::SocketAddr, time::Duration};

use common::{
    CountingOrigin, client,
    etcd::{Etcd, certificates, config},
    get_request, http,
    process::{NodeProcess, agree},
    within,
};
use gaocache::{Client, ClientOptions, internal::wire};
use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{FutureExt, SpanContext, TraceContextExt, TraceState},
};
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use receiver::{Received, Receiver};
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Request, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn traceparent(sampled: bool) -> String {
    format!("00-{TRACE}-{CALLER}-0{}", u8::from(sampled))
}

fn address(node: &NodeProcess) -> SocketAddr {
    ([127, 0, 0, 1], node.grpc).into()
}

/// A get over gRPC with this `traceparent`.
async fn get(node: &NodeProcess, key: &str, trace: &str) -> Result<wire::GetResponse, Status> {
    let mut request = Request::new(get_request(key));
    request
        .metadata_mut()
        .insert("traceparent", trace.parse().unwrap());
    let mut client = client(address(node)).await;
    Ok(client.get(request).await?.into_inner())
}

async fn two_nodes(
    etcd: &Etcd,
    origin: &CountingOrigin,
    settings: &[&str],
    variables: &[(&str, &str)],
) -> [NodeProcess; 2] {
    let settings = [settings, &["trace.trust_clients=true"]].concat();
    let start =
        |id| NodeProcess::with_variables(id, &[&etcd.url], &origin.url(), &settings, variables);
    let nodes = [start("n0"), start("n1")];
    agree(&nodes).await;
    nodes
}

/// A key that the first does not own.
async fn foreign_key(nodes: &[NodeProcess; 2]) -> String {
    nodes[1].own_keys(1).await.remove(0)
}

/// Also shows that spans are flushed at the end: the batch's own time is far longer than this
/// test's.
#[tokio::test]
async fn a_miss_on_a_node_that_is_not_the_owner_is_one_trace_of_four_spans_in_two_processes() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let (receiver, url) = Receiver::start().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_SERVICE_NAME", "cache"),
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
    ];
    let mut nodes = two_nodes(&etcd, &origin, &[], &variables).await;
    let key = foreign_key(&nodes).await;
    get(&nodes[0], &key, &traceparent(true)).await.unwrap();
    for node in &mut nodes {
        node.terminate().await;
    }
    let spans = receiver.of(TRACE);
    let named = |name: &str, kind: SpanKind| {
        let mut found = spans
            .iter()
            .filter(|it| it.span.name == name && it.span.kind() == kind);
        let one = found
            .next()
            .unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
        assert!(found.next().is_none(), "two of {name}");
        one
    };
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let entry = named("gaocache.v1.Cache/Get", SpanKind::Server);
    let fetch = named("gaocache.v1.Peer/Fetch", SpanKind::Client);
    let owner = named("gaocache.v1.Peer/Fetch", SpanKind::Server);
    let load = named("load from origin", SpanKind::Client);
    assert_eq!(entry.parent(), CALLER);
    assert_eq!(fetch.parent(), entry.id());
    assert_eq!(owner.parent(), fetch.id());
    assert_eq!(load.parent(), owner.id());
    let header = origin.trace_of(&key).expect("the origin was told");
    assert_eq!(header, format!("00-{TRACE}-{}-01", load.id()));
    for (span, instance) in [(entry, "n0"), (fetch, "n0"), (owner, "n1"), (load, "n1")] {
        assert_eq!((&*span.instance, &*span.service), (instance, "cache"));
        let told = span.attributes();
        assert_eq!(told["group"], "users", "{told:?}");
        assert!(told.contains_key("outcome"), "{told:?}");
        assert_eq!(
            told["value_bytes"],
            format!("value of {key}").len().to_string()
        );
        assert!(!told.values().any(|value| *value == key), "{told:?}");
    }
    assert_eq!(entry.attributes()["owner"], "n1");
    assert_eq!(entry.attributes()["outcome"], "origin");
    assert_eq!(fetch.attributes()["peer"], "n1");
}

#[tokio::test]
async fn errors_and_allowed_keys_are_told_and_a_failed_request_s_log_has_its_trace() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let (receiver, url) = Receiver::start().await;
    let endpoint = format!("trace.endpoint={url}");
    let settings = [
        &endpoint,
        "trace.keys=true",
        "log.format=json",
        "log.level=warn",
    ];
    let mut nodes = two_nodes(&etcd, &origin, &settings, &[]).await;
    let asked = get(&nodes[0], "", &traceparent(true)).await;
    assert_eq!(asked.unwrap_err().code(), tonic::Code::InvalidArgument);
    let url = format!("http://127.0.0.1:{}/v1/users/broken", nodes[0].http);
    let request = http().get(url).header("traceparent", traceparent(true));
    assert_eq!(request.send().await.unwrap().status(), 502);
    for node in &mut nodes {
        node.terminate().await;
    }
    let spans = receiver.of(TRACE);
    let of_http = |it: &&Received| it.span.name == "GET /v1/{group}/{key}";
    let span = spans
        .iter()
        .find(of_http)
        .expect("the HTTP listener's span");
    assert_eq!(span.attributes()["key"], "broken");
    assert_eq!(span.attributes()["outcome"], "origin_failed");
    assert_eq!(span.span.status.as_ref().unwrap().code(), StatusCode::Error);
    let lines = nodes[0].log.lock().join("\n");
    let told = lines.lines().any(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["message"] == "a request failed" && line["trace_id"] == TRACE
    });
    assert!(told, "{lines}");
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_has_no_spans_but_reaches_the_origin() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let (receiver, url) = Receiver::start().await;
    let endpoint = format!("trace.endpoint={url}");
    let settings = [&endpoint, "trace.sampler=parentbased_always_off"];
    let mut nodes = two_nodes(&etcd, &origin, &settings, &[]).await;
    let key = foreign_key(&nodes).await;
    get(&nodes[0], &key, &traceparent(false)).await.unwrap();
    // Nobody took part, so the caller's span stays the parent.
    assert_eq!(origin.trace_of(&key), Some(traceparent(false)));
    get(&nodes[0], "untraced", "not a traceparent")
        .await
        .unwrap();
    assert_eq!(origin.trace_of("untraced"), None);
    for node in &mut nodes {
        node.terminate().await;
    }
    assert!(receiver.spans.borrow().is_empty());
}

#[tokio::test]
async fn a_receiver_behind_tls_is_open_by_its_authority_alone() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read(file(name)).unwrap();
    let identity = Identity::from_pem(read("server.pem"), read("server.key"));
    let tls = ServerTlsConfig::new().identity(identity);
    let server = Server::builder().tls_config(tls).unwrap();
    let (receiver, address) = Receiver::serving(server).await;
    let endpoint = format!("trace.endpoint=https://localhost:{}", address.port());
    let ca = format!("trace.ca={}", file("ca.pem").display());
    let start =
        |id, settings: &[&str]| NodeProcess::start(id, &[&etcd.url], &origin.url(), settings);
    // The second knows the system's authorities only.
    let trust = "trace.trust_clients=true";
    let mut nodes = [
        start("n0", &[&endpoint, &ca, trust]),
        start("n1", &[&endpoint, trust]),
    ];
    for node in &nodes {
        node.until_ready().await;
        get(node, "k", &traceparent(true)).await.unwrap();
    }
    for node in &mut nodes {
        node.terminate().await;
    }
    let spans = receiver.of(TRACE);
    assert!(!spans.is_empty());
    assert!(spans.iter().all(|it| it.instance == "n0"), "{spans:#?}");
}

/// Its answers come as a stream that outlives the call.
#[tokio::test]
async fn the_keys_of_a_get_many_share_its_span() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let (receiver, url) = Receiver::start().await;
    let endpoint = format!("trace.endpoint={url}");
    let mut nodes = two_nodes(&etcd, &origin, &[&endpoint], &[]).await;
    let mut keys = Vec::new();
    for number in 0..20 {
        keys.push(format!("k{number}"));
    }
    let mut foreign = 0;
    for key in &keys {
        foreign += usize::from(nodes[0].owner(key).await == "n1");
    }
    let mut request = Request::new(wire::GetManyRequest {
        group: "users".into(),
        keys,
    });
    let trace = traceparent(true).parse().unwrap();
    request.metadata_mut().insert("traceparent", trace);
    let mut client = client(address(&nodes[0])).await;
    let mut answers = client.get_many(request).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    for node in &mut nodes {
        node.terminate().await;
    }
    let spans = receiver.of(TRACE);
    let of_call = |it: &&Received| it.span.name == "gaocache.v1.Cache/GetMany";
    let calls: Vec<_> = spans.iter().filter(of_call).collect();
    assert_eq!(calls.len(), 1, "{spans:#?}");
    assert_eq!(calls[0].parent(), CALLER);
    let within = |it: &&Received| it.instance == "n0" && it.parent() == calls[0].id();
    let named = |name: &str| {
        spans
            .iter()
            .filter(within)
            .filter(|it| it.span.name == name)
            .count()
    };
    // All keys of the other node are asked for in one message.
    assert_eq!(named("gaocache.v1.Peer/FetchMany"), 1);
    assert_eq!(named("load from origin"), 20 - foreign);
    assert!((1..20).contains(&foreign));
}

#[tokio::test]
async fn a_program_s_trace_goes_along_with_its_client() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let _nodes = two_nodes(&etcd, &origin, &[], &[]).await;
    let client = Client::new(config(&[&etcd.url]), "gaocache", ClientOptions::default());
    let context = SpanContext::new(
        TraceId::from_hex(TRACE).unwrap(),
        SpanId::from_hex(CALLER).unwrap(),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    );
    let here = Context::new().with_remote_span_context(context);
    let got = client.get("users", "k").with_context(here).await;
    assert_eq!(got.unwrap().value, "value of k");
    // The nodes have no exporter: the program's span is the parent of whatever the origin does.
    assert_eq!(origin.trace_of("k"), Some(traceparent(true)));
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_nobody_and_what_is_dropped_is_counted() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("trace.endpoint=http://{}", hole.local_addr().unwrap());
    let (connected, mut connections) = watch::channel(0);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = hole.accept().await {
            open.push(stream);
            connected.send_replace(open.len());
        }
    });
    let settings = [&endpoint, "trace.sampler=always_on", "trace.max_queue=100"];
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
    let mut nodes = two_nodes(&etcd, &origin, &settings, &variables).await;
    for _ in 0..500 {
        get(&nodes[0], "k", "").await.unwrap();
    }
    let reached = connections.wait_for(|open| *open > 0);
    within("the exporter's connection", reached).await.unwrap();
    let dropped = nodes[0]
        .metric("gaocache_trace_spans_total", "outcome=\"dropped\"")
        .await;
    assert!(dropped >= 400.0, "{dropped}");
    // Its end doesn't wait for the receiver beyond a bound: `terminate` has one.
    for node in &mut nodes {
        node.terminate().await;
    }
    let lines = nodes[0].log.lock().join("\n");
    assert!(lines.contains("not all spans could be sent"), "{lines}");
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_its_spans_and_nothing_else() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let nobody = common::etcd::free_port();
    let endpoint = format!("trace.endpoint=http://127.0.0.1:{nobody}");
    let settings = [&endpoint, "trace.sampler=always_on"];
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "10")];
    let nodes = two_nodes(&etcd, &origin, &settings, &variables).await;
    for number in 0..50 {
        get(&nodes[0], &format!("k{number}"), "").await.unwrap();
    }
    within("failures that are counted", async {
        let failed = async || {
            let name = "gaocache_trace_spans_total";
            nodes[0].metric(name, "outcome=\"failed\"").await
        };
        while failed().await == 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
