//! The reference servers, each in a process of its own: what the libraries cost by themselves.
//! Values are found by the size at the begin of their key, and nothing is looked up, counted or
//! traced.

use std::{convert::Infallible, sync::LazyLock};

use bytes::{BufMut, Bytes, BytesMut};
use clap::Subcommand;
use futures::{StreamExt, stream};
use gaocache::internal::wire::{
    self,
    cache_client::CacheClient,
    cache_server::{Cache, CacheServer},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::{client::legacy, rt::TokioExecutor, rt::TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tonic::{
    Status,
    transport::{Channel, Server, server::TcpIncoming},
};

/// Requests that the bare client has under way.
const LOADS: usize = 64;

#[derive(Clone, Subcommand)]
pub enum Kind {
    /// gRPC on h2 itself, a task for each call, current-thread runtime.
    H2,
    /// tonic on tokio's default runtime.
    Tonic,
    /// tonic on a current-thread runtime.
    TonicCurrentThread,
    /// tonic that asks the tonic at this address, on tokio's default runtime.
    Relay { to: String },
    /// The same on a current-thread runtime.
    RelayCurrentThread { to: String },
    /// An origin over HTTP/1.1.
    Origin,
    /// Asks the origin at this address for as many values as it is told.
    Loop { origin: String },
}

pub fn run(kind: Kind) {
    let mut builder = match kind {
        Kind::Tonic | Kind::Relay { .. } => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        match kind {
            Kind::H2 => h2_echo(listener).await,
            Kind::Tonic | Kind::TonicCurrentThread => tonic(listener, Echo).await,
            Kind::Relay { to } | Kind::RelayCurrentThread { to } => {
                let client = CacheClient::connect(format!("http://{to}")).await;
                tonic(listener, Relay(client.unwrap())).await;
            }
            Kind::Origin => origin(listener).await,
            Kind::Loop { origin } => load(listener, &origin).await,
        }
    });
}

/// The value of a key.
fn value(key: &str) -> Bytes {
    static ALL: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 1 << 20].into());
    let size = key.split('-').next().unwrap();
    ALL.slice(..size.parse::<usize>().unwrap())
}

async fn h2_echo(listener: TcpListener) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(h2_answer(request.into_body(), respond));
            }
        });
    }
}

async fn h2_answer(mut body: h2::RecvStream, mut respond: h2::server::SendResponse<Bytes>) {
    let mut whole = BytesMut::new();
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
        whole.extend_from_slice(&part);
    }
    let request = wire::GetRequest::decode(&whole[5..]).unwrap();
    let answer = wire::GetResponse {
        value: value(&request.key),
        ..wire::GetResponse::default()
    };
    let mut message = BytesMut::with_capacity(5 + answer.encoded_len());
    message.put_u8(0);
    message.put_u32(answer.encoded_len() as u32);
    answer.encode(&mut message).unwrap();
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(());
    let Ok(mut stream) = respond.send_response(head.unwrap(), false) else {
        return;
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    if stream.send_data(message.freeze(), false).is_ok() {
        let _ = stream.send_trailers(trailers);
    }
}

async fn tonic(listener: TcpListener, cache: impl Cache) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(CacheServer::new(cache));
    server.serve_with_incoming(incoming).await.unwrap();
}

struct Echo;

struct Relay(CacheClient<Channel>);

/// A service that only gets: with the body of `get`, the rest is refused.
macro_rules! only_gets {
    ($service:ty, |$this:ident, $request:ident| $get:expr) => {
        #[tonic::async_trait]
        impl Cache for $service {
            async fn get(
                &self,
                $request: tonic::Request<wire::GetRequest>,
            ) -> Result<tonic::Response<wire::GetResponse>, Status> {
                let $this = self;
                $get
            }
            type GetManyStream = tokio_stream::Empty<Result<wire::GetManyResponse, Status>>;
            async fn get_many(
                &self,
                _: tonic::Request<wire::GetManyRequest>,
            ) -> Result<tonic::Response<Self::GetManyStream>, Status> {
                Err(Status::unimplemented(""))
            }
            async fn remove(
                &self,
                _: tonic::Request<wire::RemoveRequest>,
            ) -> Result<tonic::Response<wire::RemoveResponse>, Status> {
                Err(Status::unimplemented(""))
            }
            async fn purge(
                &self,
                _: tonic::Request<wire::PurgeRequest>,
            ) -> Result<tonic::Response<wire::PurgeResponse>, Status> {
                Err(Status::unimplemented(""))
            }
            async fn purge_tag(
                &self,
                _: tonic::Request<wire::PurgeTagRequest>,
            ) -> Result<tonic::Response<wire::PurgeTagResponse>, Status> {
                Err(Status::unimplemented(""))
            }
        }
    };
}

only_gets!(Echo, |_this, request| {
    Ok(tonic::Response::new(wire::GetResponse {
        value: value(&request.get_ref().key),
        ..wire::GetResponse::default()
    }))
});
only_gets!(Relay, |this, request| {
    this.0.clone().get(request.into_inner()).await
});

/// Answers any path that ends with a key. The cheapest that hyper allows: it shares the core of
/// the clients.
async fn origin(listener: TcpListener) {
    let answer = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
        let path = request.uri().path();
        let key = path.rsplit('/').next().unwrap_or_default();
        let response = Response::builder().header("cache-control", "max-age=86400");
        Ok::<_, Infallible>(response.body(Full::new(value(key))).unwrap())
    });
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        let server = hyper::server::conn::http1::Builder::new();
        tokio::spawn(server.serve_connection(TokioIo::new(socket), answer));
    }
}

/// Whoever connects sends how many values it wants of which size; it is sent a byte when they have
/// been loaded.
async fn load(listener: TcpListener, origin: &str) {
    let mut connector = legacy::connect::HttpConnector::new();
    connector.set_nodelay(true);
    let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (loads, size) = (
            socket.read_u64().await.unwrap(),
            socket.read_u64().await.unwrap() as usize,
        );
        let loads = stream::iter(0..loads).map(|number| {
            let uri = format!(
                "http://{origin}/{}",
                crate::keys::key(size, number as usize)
            );
            let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
            let client = &client;
            async move {
                let answer = client.request(request).await.unwrap();
                assert!(answer.status().is_success());
                let body = answer.into_body().collect().await.unwrap();
                assert_eq!(body.to_bytes().len(), size);
            }
        });
        loads.buffer_unordered(LOADS).collect::<()>().await;
        socket.write_u8(0).await.unwrap();
    }
}

/// Has the bare client load so many values.
pub async fn ask_loop(address: &str, loads: usize, size: usize) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_u64(loads as u64).await.unwrap();
    socket.write_u64(size as u64).await.unwrap();
    socket.read_u8().await.unwrap();
}
