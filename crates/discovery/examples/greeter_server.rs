//! A service that registers itself in etcd: `cargo run -p gaocache-discovery --example
//! greeter_server -- --name one`.
//!
//! On Ctrl-C or SIGTERM it deregisters immediately. If it is killed, it disappears when its lease
//! expires.

mod greeter;

use std::{error::Error, time::Duration};

use clap::Parser;
use gaocache_discovery::{Endpoint, EtcdConfig, Registration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use greeter::{
    GreetRequest, GreetResponse,
    greeter_server::{Greeter, GreeterServer},
};

#[derive(Parser)]
struct Arguments {
    /// The name of this server, included in its answers
    #[arg(long, default_value = "one")]
    name: String,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    etcd: String,
    #[arg(long, default_value_t = 5)]
    lease_ttl_seconds: u64,
}

struct Node(String);

impl Node {
    fn greet(&self, what: &str, request: Request<GreetRequest>) -> Response<GreetResponse> {
        Response::new(GreetResponse {
            message: format!("Good {what}, {}", request.into_inner().name),
            from: self.0.clone(),
        })
    }
}

#[tonic::async_trait]
impl Greeter for Node {
    async fn morning(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        Ok(self.greet("morning", request))
    }
    async fn night(
        &self,
        request: Request<GreetRequest>,
    ) -> Result<Response<GreetResponse>, Status> {
        Ok(self.greet("night", request))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(&arguments.listen).await?;
    let address = listener.local_addr()?.to_string();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<GreeterServer<Node>>().await;

    let lease_ttl = Duration::from_secs(arguments.lease_ttl_seconds);
    let etcd = EtcdConfig::new([arguments.etcd]).with_lease_ttl(lease_ttl);
    // Keys have the form namespace/service/address.
    let key = format!("demo/greeter/{address}");
    let me = Endpoint::new(address.clone()).with_metadata("name", arguments.name.clone());
    let registration = Registration::start(etcd, key, me);
    println!("{} serves on {address}", arguments.name);

    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        // Deregister first; then open calls are finished.
        if let Err(error) = registration.close().await {
            eprintln!("could not deregister: {error}");
        }
    };
    Server::builder()
        .add_service(health_service)
        .add_service(GreeterServer::new(Node(arguments.name.clone())))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
        .await?;
    println!("{} has left", arguments.name);
    Ok(())
}
