//! The balanced channel against real servers and a real etcd: only what is ready gets calls, and
//! pickers do what they say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../examples/greeter/mod.rs"]
mod greeter;

use std::collections::BTreeMap;

use gaocache_discovery::{
    BalancedChannel, Canary, ChannelOptions, Discovery, Endpoint, EtcdConfig, HASH_KEY_HEADER,
    Picker, Registration,
};
use gaocache_testing::{Etcd, within};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use tonic_health::server::HealthReporter;

use greeter::{
    GreetRequest, GreetResponse,
    greeter_client::GreeterClient,
    greeter_server::{Greeter, GreeterServer},
};

struct Node(String);

#[tonic::async_trait]
impl Greeter for Node {
    async fn morning(&self, _: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        Ok(Response::new(GreetResponse {
            message: String::new(),
            from: self.0.clone(),
        }))
    }
    async fn night(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        self.morning(request).await
    }
}

struct Running {
    registration: Option<Registration>,
    health: Option<HealthReporter>,
    /// Of its own, so that a server can be ended with all its connections.
    server: Option<Runtime>,
}

async fn serve(
    etcd: &Etcd,
    name: &str,
    with_health: bool,
    metadata: &[(&str, serde_json::Value)],
) -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut router = Server::builder().add_service(GreeterServer::new(Node(name.into())));
    let mut health = None;
    if with_health {
        let (reporter, service) = tonic_health::server::health_reporter();
        router = router.add_service(service);
        health = Some(reporter);
    }
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        router
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    });
    let mut endpoint = Endpoint::new(address);
    for (key, value) in metadata {
        endpoint = endpoint.with_metadata(key, value.clone());
    }
    Running {
        registration: Some(Registration::start(
            EtcdConfig::new([&etcd.url]),
            format!("svc/{name}"),
            endpoint,
        )),
        health,
        server: Some(runtime),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    fn kill(&mut self) {
        if let Some(runtime) = self.server.take() {
            runtime.shutdown_background();
        }
    }
}

async fn channel(etcd: &Etcd, options: ChannelOptions, ready: usize) -> BalancedChannel {
    let discovery = Discovery::start(EtcdConfig::new([&etcd.url]), ["svc/"]);
    let channel = BalancedChannel::with_options(discovery, options);
    within("readiness", channel.until_ready(|it| it.len() == ready)).await;
    channel
}

/// How many of `calls` each endpoint answers, each with its number as the hash key.
async fn spread(channel: &BalancedChannel, calls: usize) -> BTreeMap<String, usize> {
    let mut client = GreeterClient::new(channel.clone());
    let mut counts = BTreeMap::new();
    for call in 0..calls {
        let mut request = Request::new(GreetRequest::default());
        request
            .metadata_mut()
            .insert(HASH_KEY_HEADER, call.to_string().parse().unwrap());
        let answer = client
            .morning(request)
            .await
            .expect("a ready endpoint answers");
        *counts.entry(answer.into_inner().from).or_default() += 1;
    }
    counts
}

fn options(picker: Picker) -> ChannelOptions {
    ChannelOptions::default().with_picker(picker)
}

#[tokio::test]
async fn calls_go_only_to_endpoints_that_are_connected_and_healthy() {
    let etcd = Etcd::start().await;
    let mut with_health = serve(&etcd, "a", true, &[]).await;
    let mut plain = serve(&etcd, "b", false, &[]).await;
    // Registered, but without a listener.
    let dead = Registration::start(
        EtcdConfig::new([&etcd.url]),
        "svc/dead",
        Endpoint::new("127.0.0.1:1"),
    );
    let channel = channel(&etcd, options(Picker::RoundRobin), 2).await;
    assert_eq!(
        spread(&channel, 10).await,
        BTreeMap::from([("a".into(), 5), ("b".into(), 5)])
    );

    let health = with_health.health.as_ref().unwrap();
    health
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    within("a is out", channel.until_ready(|it| it == ["svc/b"])).await;
    assert_eq!(spread(&channel, 4).await, BTreeMap::from([("b".into(), 4)]));
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    within("a is back", channel.until_ready(|it| it.len() == 2)).await;

    // One that breaks its connection is out at once, though its key is still there.
    with_health.kill();
    within("a is gone", channel.until_ready(|it| it == ["svc/b"])).await;
    assert_eq!(spread(&channel, 4).await["b"], 4);

    // One that leaves etcd is out, though its connection is fine.
    plain
        .registration
        .take()
        .unwrap()
        .close()
        .await
        .expect("closes");
    within("b is gone", channel.until_ready(|it| it.is_empty())).await;
    drop(dead);
}

#[tokio::test]
async fn without_any_endpoint_a_call_fails_as_unavailable_within_its_bound() {
    let etcd = Etcd::start().await;
    let bound = std::time::Duration::from_millis(100);
    let options = ChannelOptions::default().with_wait_for_ready(bound);
    let channel = channel(&etcd, options, 0).await;
    let mut client = GreeterClient::new(channel);
    let error = within("an answer", client.morning(GreetRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert!(error.message().contains("no endpoint"), "{error}");
}

#[tokio::test]
async fn weights_hash_zone_and_canary_decide_who_answers() {
    let etcd = Etcd::start().await;
    let _a = serve(
        &etcd,
        "a",
        true,
        &[("weight", 100.into()), ("zone", "x".into())],
    )
    .await;
    let _b = serve(
        &etcd,
        "b",
        true,
        &[("weight", 300.into()), ("zone", "y".into())],
    )
    .await;
    let _c = serve(
        &etcd,
        "c",
        true,
        &[
            ("weight", 100.into()),
            ("zone", "y".into()),
            ("version", "2".into()),
        ],
    )
    .await;

    let weighted = spread(&channel(&etcd, options(Picker::Weighted), 3).await, 500).await;
    assert!(
        (230..370).contains(&weighted["b"]),
        "three fifths: {weighted:?}"
    );

    let first = channel(&etcd, options(Picker::ConsistentHash), 3).await;
    let second = channel(&etcd, options(Picker::ConsistentHash), 3).await;
    assert_eq!(
        spread(&first, 200).await,
        spread(&second, 200).await,
        "two clients agree on every key"
    );

    let zone = ChannelOptions::default().with_zone("x");
    assert_eq!(
        spread(&channel(&etcd, zone, 3).await, 20).await,
        BTreeMap::from([("a".into(), 20)])
    );

    let canary = ChannelOptions::default().with_canary(Canary::new("version", "2", 0.1));
    let counts = spread(&channel(&etcd, canary, 3).await, 1_000).await;
    assert!((50..160).contains(&counts["c"]), "a tenth: {counts:?}");

    let least = spread(&channel(&etcd, options(Picker::LeastInFlight), 3).await, 30).await;
    assert_eq!(least.values().sum::<usize>(), 30);
}
