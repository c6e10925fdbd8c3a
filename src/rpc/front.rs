//! The gRPC listener for clients. `Get` and `GetMany` take the lean path; all other calls go
//! through tonic's routes. `Peer` is not answered here (`peer_front`).

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tonic::{Status, service::Routes};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use super::{
    cache::CacheService,
    expected::Expected,
    lean, many,
    routed::{FrontBody, LiveRules, MAX_REQUEST_BYTES, Routed, outgoing, refused, traced},
};
use crate::{
    auth::{Caller, Entry, Permissions},
    service::Service,
    telemetry::trace::Scope,
    tls::ClientNames,
    traffic::{Ticket, Traffic},
    wire::{self, cache_server::CacheServer},
};
use gaocache_core::error::{BoxError, Error, ErrorKind, Result};

const GET: &str = "/gaocache.v1.Cache/Get";
const GET_MANY: &str = "/gaocache.v1.Cache/GetMany";

/// The calls of clients that go through tonic.
const ROUTED: [&str; 3] = [
    "/gaocache.v1.Cache/Remove",
    "/gaocache.v1.Cache/Purge",
    "/gaocache.v1.Cache/PurgeTag",
];

/// The service whose requests are streams of messages.
const REFLECTION: &str = "/grpc.reflection.";
/// The services that reflection lists.
const REFLECTED: [&str; 2] = ["gaocache.v1.Cache", "grpc.health.v1.Health"];

/// The service that lists the others (reflection).
fn reflection() -> Result<ServerReflectionServer<impl ServerReflection>> {
    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for name in REFLECTED {
        reflection = reflection.with_service_name(name);
    }
    reflection.build_v1().map_err(|error| {
        let what = format!("reflection: {error}");
        Error::new(ErrorKind::Internal, what).with_source(error)
    })
}

/// The listener.
#[derive(Clone)]
pub struct Front {
    cache: CacheService,
    routed: Routed,
    rules: LiveRules,
}

/// The listener as a hyper service for one connection.
pub struct ConnectedFront {
    front: Front,
    names: Option<ClientNames>,
    traffic: Arc<Traffic>,
    entry: Entry,
}

impl Front {
    /// A listener for `service`, with health, and with reflection if it is wanted.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the embedded descriptors are invalid.
    pub(crate) fn new<H>(
        service: &Service,
        permissions: Permissions,
        rules: LiveRules,
        health: H,
        reflected: bool,
    ) -> Result<Self>
    where
        H: tonic_health::pb::health_server::Health,
    {
        let cache = CacheService::new(service.clone(), permissions);
        let mut routes = Routes::new(CacheServer::new(cache.clone()))
            .add_service(tonic_health::pb::health_server::HealthServer::new(health));
        if reflected {
            routes = routes.add_service(reflection()?);
        }
        Ok(Self {
            cache,
            routed: Routed::new(routes, rules.clone()),
            rules,
        })
    }

    /// The listener for one connection, of a client that has proven these names.
    pub(crate) fn over(
        &self,
        names: Option<ClientNames>,
        traffic: Arc<Traffic>,
        entry: Entry,
    ) -> ConnectedFront {
        ConnectedFront {
            front: self.clone(),
            names,
            traffic,
            entry,
        }
    }
}

impl Front {
    /// `GetMany`.
    async fn many<B>(
        self,
        request: Request<B>,
        caller: Caller,
        mut ticket: Ticket,
    ) -> Response<FrontBody>
    where
        B: Body<Data = Bytes> + Send,
    {
        let (head, body) = request.into_parts();
        if !lean::is_grpc(&head.headers) {
            return lean::no_grpc().map(FrontBody::Lean);
        }
        let rules = self.rules.now();
        let expected = Expected {
            bytes: MAX_REQUEST_BYTES,
            patience: rules.patience,
            check: |body: &Bytes| many::check(body, rules.max_keys),
        };
        let scope = self.cache.begin(traced(GET_MANY), &head.headers);
        let answer = async {
            let request = expected.read(body, &mut ticket).await?;
            let body = self.cache.reply_many(&caller, request, ticket.traffic())?;
            let answer = lean::response(tonic::body::Body::new(body));
            Ok::<_, Status>(FrontBody::of(outgoing(answer, ticket).await))
        };
        let answer = scope.run(pin!(answer)).await;
        answer.unwrap_or_else(|status| status.into_http().map(FrontBody::Lean))
    }
}

impl<B> hyper::service::Service<Request<B>> for ConnectedFront
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<FrontBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        if let Some(names) = &self.names {
            request.extensions_mut().insert(names.clone());
        }
        let path = request.uri().path();
        // What carries no value is small, and is heard however many bytes are in flight: removals
        // depend on it.
        let ticket = match path {
            GET | GET_MANY => self.traffic.begin(),
            _ => Ok(self.traffic.begin_anyway()),
        };
        let ticket = match ticket {
            Ok(ticket) => ticket,
            Err(error) => return Box::pin(ready(Ok(refused(&error)))),
        };
        let patience = self.front.rules.now().patience;
        let caller = |request: &Request<B>| {
            Caller::of_request(self.entry, request.extensions(), request.headers())
        };
        if path == GET {
            let cache = self.front.cache.clone();
            let caller = caller(&request);
            return Box::pin(async move {
                let scope = |headers: &_| cache.begin(traced(GET), headers);
                let handle = async |it| cache.reply(caller, it).await;
                let expected = Expected::small(patience);
                let answer = lean::unary(request, ticket, expected, scope, handle);
                Ok(answer.await.map(FrontBody::Lean))
            });
        }
        if path == GET_MANY {
            let (front, caller) = (self.front.clone(), caller(&request));
            return Box::pin(async move { Ok(front.many(request, caller, ticket).await) });
        }
        let scope = match ROUTED.into_iter().find(|known| *known == path) {
            Some(path) => self.front.cache.begin(traced(path), request.headers()),
            None => Scope::Nothing,
        };
        let caller = caller(&request);
        let streams = path.starts_with(REFLECTION);
        request.extensions_mut().insert(caller);
        let routed = self.front.routed.clone();
        Box::pin(async move {
            let answer = async {
                if streams {
                    return routed.stream(request, ticket).await;
                }
                routed.whole(request, ticket, |_| Ok(())).await
            };
            Ok(FrontBody::of(scope.run(pin!(answer)).await))
        })
    }
}
