//! The gRPC listener of a node. The two hot calls take the lean path; all others go through tonic's
//! routes.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tonic::service::Routes;
use tower::Service as _;

use super::{
    bounded,
    cache::CacheService,
    lean::{self, LeanBody},
    many,
    peer::PeerService,
    peers::message_limit,
    wire::{self, cache_server::CacheServer, peer_server::PeerServer},
};
use crate::{
    service::Service,
    status::grpc::to_status,
    telemetry::trace::{Call, Scope},
    traffic::{Arriving, Outgoing, Ticket, Traffic, collect},
};
use gaocache_core::{
    error::{BoxError, Error, ErrorKind, Result},
    standing::Standing,
};

const GET: &str = "/gaocache.v1.Cache/Get";
const FETCH: &str = "/gaocache.v1.Peer/Fetch";
const GET_MANY: &str = "/gaocache.v1.Cache/GetMany";
const PEEK: &str = "/gaocache.v1.Peer/Peek";
const HANDOFF: &str = "/gaocache.v1.Peer/Handoff";

/// The client calls that go through tonic.
const ROUTED: [&str; 3] = [
    GET_MANY,
    "/gaocache.v1.Cache/Remove",
    "/gaocache.v1.Cache/Purge",
];

/// The calls that carry values. The others are few and small, and removals and membership depend on
/// them: they are heard however many bytes are in flight.
const CARRY_VALUES: [&str; 5] = [GET, FETCH, GET_MANY, PEEK, HANDOFF];

/// The services whose requests are streams of messages.
const REFLECTION: &str = "/grpc.reflection.";

/// Upper limit for requests that are read in full: tonic's own for a message.
const MAX_REQUEST_BYTES: usize = 4 << 20;

/// What the listener takes.
#[derive(Clone, Copy, Debug)]
pub struct FrontRules {
    /// The largest `max_value` of any group, in bytes.
    pub max_value: u64,
    /// The most keys of one `GetMany`.
    pub max_keys: usize,
    /// How long a request may take to arrive.
    pub patience: Duration,
}

/// The name of a call in traces: its path without the leading slash.
fn traced(path: &'static str) -> Call {
    Call::grpc(path.trim_start_matches('/'))
}

/// The listener.
#[derive(Clone)]
pub struct Front {
    cache: CacheService,
    peer: PeerService,
    routes: Routes,
    rules: Arc<ArcSwap<FrontRules>>,
}

/// The listener as a hyper service for one connection.
pub struct ConnectedFront {
    front: Front,
    traffic: Arc<Traffic>,
}

impl Front {
    /// A listener for `service`, with health and reflection.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the embedded descriptors are invalid.
    pub fn new<H>(
        service: &Service,
        standing: Arc<Standing>,
        rules: FrontRules,
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
                PeerServer::new(peer.clone())
                    .max_decoding_message_size(message_limit(rules.max_value)),
            )
            .add_service(tonic_health::pb::health_server::HealthServer::new(health))
            .add_service(reflection)
            .prepare();
        Ok(Self {
            cache,
            peer,
            routes,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
        })
    }

    /// From now on, requests are held to these limits. `max_value` stays what it was.
    pub fn limit(&self, max_keys: usize, patience: Duration) {
        let max_value = self.rules.load().max_value;
        self.rules.store(Arc::new(FrontRules {
            max_value,
            max_keys,
            patience,
        }));
    }

    /// The listener for one connection.
    pub fn over(&self, traffic: Arc<Traffic>) -> ConnectedFront {
        ConnectedFront {
            front: self.clone(),
            traffic,
        }
    }

    /// A call through tonic. Its request is read in full before, so that tonic never waits for who
    /// sends it, nor decodes what has no bound.
    async fn routed<B>(mut self, request: Request<B>, mut ticket: Ticket) -> Result<RoutedResponse>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let path = request.uri().path().to_owned();
        let answer = if path == HANDOFF || path.starts_with(REFLECTION) {
            let arriving = ticket.traffic().begin_anyway();
            let patience = self.rules.load().patience;
            let request = request.map(|body| Arriving::new(body, arriving, patience));
            if path == HANDOFF {
                Ok(bounded::handoff(self.peer, self.rules.load().max_value, request).await)
            } else {
                self.routes.call(request).await
            }
        } else {
            let (parts, body) = request.into_parts();
            let patience = self.rules.load().patience;
            let body = collect(body, &mut ticket, MAX_REQUEST_BYTES, patience).await?;
            if path == GET_MANY {
                many::check(&body, self.rules.load().max_keys)?;
            }
            let mut request = Request::from_parts(parts, Full::new(body));
            request.extensions_mut().insert(ticket.traffic().clone());
            self.routes.call(request).await
        };
        let Ok(answer) = answer;
        let (parts, body) = answer.into_parts();
        let body = Outgoing::begin(body, ticket).await?;
        Ok(Response::from_parts(parts, body))
    }
}

type RoutedResponse = Response<Outgoing<tonic::body::Body>>;

/// An error as the whole answer.
fn refused(error: &Error) -> Response<FrontBody> {
    to_status(error).into_http().map(FrontBody::Lean)
}

impl<B> hyper::service::Service<Request<B>> for ConnectedFront
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<FrontBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let ticket = if CARRY_VALUES.contains(&path) {
            self.traffic.begin()
        } else {
            Ok(self.traffic.begin_anyway())
        };
        let ticket = match ticket {
            Ok(ticket) => ticket,
            Err(error) => return Box::pin(ready(Ok(refused(&error)))),
        };
        let patience = self.front.rules.load().patience;
        match path {
            GET => {
                let cache = self.front.cache.clone();
                Box::pin(async move {
                    let scope = |headers: &_| cache.begin(traced(GET), headers);
                    let handle = async |it| cache.reply(it).await;
                    let answer = lean::unary(request, ticket, patience, scope, handle);
                    Ok(answer.await.map(FrontBody::Lean))
                })
            }
            FETCH => {
                let peer = self.front.peer.clone();
                Box::pin(async move {
                    let scope = |headers: &_| peer.follow(traced(FETCH), headers);
                    let handle = async |it| peer.reply(it).await;
                    let answer = lean::unary(request, ticket, patience, scope, handle);
                    Ok(answer.await.map(FrontBody::Lean))
                })
            }
            path => {
                let scope = match ROUTED.into_iter().find(|known| *known == path) {
                    Some(path) => self.front.cache.begin(traced(path), request.headers()),
                    None => Scope::Nothing,
                };
                let front = self.front.clone();
                Box::pin(async move {
                    let answer = scope.run(pin!(front.routed(request, ticket))).await;
                    Ok(match answer {
                        Ok(answer) => answer.map(FrontBody::Routed),
                        Err(error) => refused(&error),
                    })
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
    Routed(Outgoing<tonic::body::Body>),
}

impl Body for FrontBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
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
