//! The gRPC listener of a node. The two hot calls take the lean path; all others go through tonic's
//! routes.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::service::Routes;
use tower::Service as _;

use super::{
    cache::CacheService,
    lean::{self, LeanBody},
    peer::PeerService,
    peers::message_limit,
    wire::{self, cache_server::CacheServer, peer_server::PeerServer},
};
use crate::{
    service::Service,
    telemetry::trace::{Call, Scope},
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    standing::Standing,
};

const GET: &str = "/gaocache.v1.Cache/Get";
const FETCH: &str = "/gaocache.v1.Peer/Fetch";

/// The client calls that go through tonic.
const ROUTED: [&str; 3] = [
    "/gaocache.v1.Cache/GetMany",
    "/gaocache.v1.Cache/Remove",
    "/gaocache.v1.Cache/Purge",
];

/// The name of a call in traces: its path without the leading slash.
fn traced(path: &'static str) -> Call {
    Call::grpc(path.trim_start_matches('/'))
}

/// The listener as a hyper service. Cheap to clone; each connection has its own.
#[derive(Clone)]
pub struct Front {
    cache: CacheService,
    peer: PeerService,
    routes: Routes,
}

impl Front {
    /// A listener for `service`, with health and reflection. `max_value` is the largest `max_value`
    /// of any group, in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the embedded descriptors are invalid.
    pub fn new<H>(
        service: &Service,
        standing: Arc<Standing>,
        max_value: u64,
        health: H,
    ) -> Result<Self>
    where
        H: tonic_health::pb::health_server::Health,
    {
        let cache = CacheService::new(service.clone());
        let peer = PeerService::new(service.clone(), standing);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| {
                let what = format!("reflection: {error}");
                Error::new(ErrorKind::Internal, what).with_source(error)
            })?;
        let routes = Routes::new(CacheServer::new(cache.clone()))
            .add_service(
                PeerServer::new(peer.clone()).max_decoding_message_size(message_limit(max_value)),
            )
            .add_service(tonic_health::pb::health_server::HealthServer::new(health))
            .add_service(reflection)
            .prepare();
        Ok(Self {
            cache,
            peer,
            routes,
        })
    }
}

impl<B> hyper::service::Service<Request<B>> for Front
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<FrontBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        match request.uri().path() {
            GET => {
                let cache = self.cache.clone();
                Box::pin(async move {
                    let scope = |headers: &_| cache.begin(traced(GET), headers);
                    let answer = lean::unary(request, scope, async |it| cache.reply(it).await);
                    Ok(answer.await.map(FrontBody::Lean))
                })
            }
            FETCH => {
                let peer = self.peer.clone();
                Box::pin(async move {
                    let scope = |headers: &_| peer.follow(traced(FETCH), headers);
                    let answer = lean::unary(request, scope, async |it| peer.reply(it).await);
                    Ok(answer.await.map(FrontBody::Lean))
                })
            }
            path => {
                let scope = match ROUTED.into_iter().find(|known| *known == path) {
                    Some(path) => self.cache.begin(traced(path), request.headers()),
                    None => Scope::Nothing,
                };
                let mut routes = self.routes.clone();
                Box::pin(async move {
                    let answer = scope.run(pin!(routes.call(request))).await?;
                    Ok(answer.map(FrontBody::Routed))
                })
            }
        }
    }
}

/// The response body of either path.
pub enum FrontBody {
    /// From the lean path.
    Lean(LeanBody),
    /// From tonic.
    Routed(tonic::body::Body),
}

impl Body for FrontBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            Self::Lean(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|it| it.map_err(|never| match never {}))),
            Self::Routed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Lean(body) => body.is_end_stream(),
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Lean(body) => body.size_hint(),
            Self::Routed(body) => body.size_hint(),
        }
    }
}
