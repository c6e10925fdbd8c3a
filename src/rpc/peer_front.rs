//! The gRPC listener for other nodes: `Peer`, and health checks, by which peers find out whether
//! this node can be reached again. `Fetch` and `FetchHeld` take the lean path.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tonic::service::Routes;

use super::{
    asked_for, bounded,
    expected::Expected,
    gate::{Gate, Visitor},
    lean, many,
    peer::PeerService,
    peers::message_limit,
    routed::{FrontBody, LiveRules, Routed, arriving, outgoing, refused, traced},
};
use crate::{
    service::Service,
    traffic::{Ticket, Traffic},
    wire::peer_server::PeerServer,
};
use gaocache_core::{
    error::{BoxError, Result},
    standing::Standing,
};

const FETCH: &str = "/gaocache.v1.Peer/Fetch";
const FETCH_MANY: &str = "/gaocache.v1.Peer/FetchMany";
const FETCH_HELD: &str = "/gaocache.v1.Peer/FetchHeld";
const WANT: &str = "/gaocache.v1.Peer/Want";
const PEEK: &str = "/gaocache.v1.Peer/Peek";
const HANDOFF: &str = "/gaocache.v1.Peer/Handoff";
const AWAIT_REVISION: &str = "/gaocache.v1.Peer/AwaitRevision";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// The listener.
#[derive(Clone)]
pub struct PeerFront {
    peer: PeerService,
    routed: Routed,
    rules: LiveRules,
    gate: Gate,
}

/// The listener as a hyper service for one connection.
pub struct ConnectedPeer {
    front: PeerFront,
    visitor: Visitor,
    traffic: Arc<Traffic>,
}

impl PeerFront {
    /// A listener for `service`, for those whom the gate lets in; `standing` is this node's place
    /// among the members.
    pub fn new<H>(
        service: &Service,
        standing: Arc<Standing>,
        gate: Gate,
        rules: LiveRules,
        health: H,
    ) -> Self
    where
        H: tonic_health::pb::health_server::Health,
    {
        let peer = PeerService::new(service.clone(), standing);
        let server = PeerServer::new(peer.clone())
            .max_decoding_message_size(message_limit(rules.now().max_value));
        let routes = Routes::new(server)
            .add_service(tonic_health::pb::health_server::HealthServer::new(health));
        Self {
            peer,
            routed: Routed::new(routes, rules.clone()),
            rules,
            gate,
        }
    }

    /// Decides which callers are accepted.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The listener for one connection.
    pub fn over(&self, visitor: Visitor, traffic: Arc<Traffic>) -> ConnectedPeer {
        ConnectedPeer {
            front: self.clone(),
            visitor,
            traffic,
        }
    }
}

impl ConnectedPeer {
    fn fetch_held<B>(&self, request: Request<B>, ticket: Ticket) -> Answering
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let PeerFront { peer, rules, .. } = self.front.clone();
        Box::pin(async move {
            let scope = |headers: &_| peer.follow(traced(FETCH_HELD), headers);
            let handle = async |it| peer.reply_held(&it);
            let expected = Expected {
                bytes: many::MAX_HELD_BYTES,
                patience: rules.now().patience,
                check: many::check_fetch,
            };
            let answer = lean::unary(request, ticket, expected, scope, handle);
            Ok(answer.await.map(FrontBody::Lean))
        })
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<FrontBody>, Infallible>> + Send>>;

impl<B> hyper::service::Service<Request<B>> for ConnectedPeer
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<FrontBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<B>) -> Self::Future {
        let heard = match request.uri().path() {
            FETCH | FETCH_MANY | FETCH_HELD | WANT | PEEK | AWAIT_REVISION | HEALTH => {
                self.visitor.may_ask()
            }
            _ => self.visitor.is_member(),
        };
        if let Err(error) = heard {
            return Box::pin(ready(Ok(refused(&error))));
        }
        request.extensions_mut().insert(self.visitor.clone());
        let path = request.uri().path();
        // The calls that carry no value are few and small, and removals and membership depend on
        // them: they are heard however many bytes are in flight.
        let ticket = match path {
            FETCH | FETCH_MANY | FETCH_HELD | WANT | PEEK | HANDOFF => self.traffic.begin(),
            _ => Ok(self.traffic.begin_anyway()),
        };
        let ticket = match ticket {
            Ok(ticket) => ticket,
            Err(error) => return Box::pin(ready(Ok(refused(&error)))),
        };
        let PeerFront {
            peer,
            routed,
            rules,
            ..
        } = self.front.clone();
        match path {
            FETCH => {
                let clients = asked_for::read(request.headers(), self.visitor.from().ip());
                Box::pin(async move {
                    let scope = |headers: &_| peer.follow(traced(FETCH), headers);
                    let handle = async |it| clients.scope(peer.reply(it)).await;
                    let expected = Expected::small(rules.now().patience);
                    let answer = lean::unary(request, ticket, expected, scope, handle);
                    Ok(answer.await.map(FrontBody::Lean))
                })
            }
            FETCH_MANY => {
                let clients = asked_for::read(request.headers(), self.visitor.from().ip());
                let scope = peer.follow(traced(FETCH_MANY), request.headers());
                Box::pin(async move {
                    let answer = routed.whole(request, ticket, many::check_fetch);
                    let answer = clients.scope(scope.run(pin!(answer))).await;
                    Ok(FrontBody::of(answer))
                })
            }
            FETCH_HELD => self.fetch_held(request, ticket),
            HANDOFF => {
                let visitor = self.visitor.clone();
                Box::pin(async move {
                    let now = rules.now();
                    let request = arriving(request, &ticket, now.patience);
                    let answer = bounded::handoff(peer, visitor, now.max_value, request).await;
                    Ok(FrontBody::of(outgoing(answer, ticket).await))
                })
            }
            _ => Box::pin(async move {
                let answer = pin!(routed.whole(request, ticket, |_| Ok(())));
                Ok(FrontBody::of(answer.await))
            }),
        }
    }
}
