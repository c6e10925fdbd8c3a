//! What both gRPC listeners share: the calls that go through tonic, and the bodies of all answers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use tonic::service::Routes;
use tower::Service as _;

use super::lean::LeanBody;
use crate::{
    status::grpc::to_status,
    telemetry::trace::Call,
    traffic::{Arriving, Outgoing, Ticket, collect},
};
use gaocache_core::error::{BoxError, Error, Result};

/// Upper limit for requests that are read in full: tonic's own for a message.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 20;

/// What the gRPC listeners take.
#[derive(Clone, Copy, Debug)]
pub struct FrontRules {
    /// The largest `max_value` of any group, in bytes.
    pub max_value: u64,
    /// The most keys of one `GetMany`.
    pub max_keys: usize,
    /// How long a request may take to arrive.
    pub patience: Duration,
}

/// What the gRPC listeners take at the moment. Clones are the same rules.
#[derive(Clone)]
pub struct LiveRules(Arc<ArcSwap<FrontRules>>);

impl LiveRules {
    /// These, at first.
    pub fn new(rules: FrontRules) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(rules)))
    }

    /// The rules now.
    pub fn now(&self) -> FrontRules {
        **self.0.load()
    }

    /// From now on, requests are held to these limits. `max_value` stays what it was.
    #[cfg(feature = "cli")]
    pub fn limit(&self, max_keys: usize, patience: Duration) {
        let max_value = self.now().max_value;
        self.0.store(Arc::new(FrontRules {
            max_value,
            max_keys,
            patience,
        }));
    }
}

/// The name of a call in traces: its path without the leading slash.
pub(super) fn traced(path: &'static str) -> Call {
    Call::grpc(path.trim_start_matches('/'))
}

/// An error as the whole answer.
pub(super) fn refused(error: &Error) -> Response<FrontBody> {
    to_status(error).into_http().map(FrontBody::Lean)
}

pub(super) type RoutedResponse = Response<Outgoing<tonic::body::Body>>;

/// The calls that go through tonic.
#[derive(Clone)]
pub(super) struct Routed {
    routes: Routes,
    pub(super) rules: LiveRules,
}

impl Routed {
    /// Through these routes.
    pub(super) fn new(routes: Routes, rules: LiveRules) -> Self {
        Self {
            routes: routes.prepare(),
            rules,
        }
    }

    /// A call of one message. It is read in full and checked before, so that tonic never waits for
    /// the sender, nor decodes what has no bound.
    pub(super) async fn whole<B>(
        mut self,
        request: Request<B>,
        mut ticket: Ticket,
        check: impl FnOnce(&Bytes) -> Result<()>,
    ) -> Result<RoutedResponse>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let body = collect(
            body,
            &mut ticket,
            MAX_REQUEST_BYTES,
            self.rules.now().patience,
        )
        .await?;
        check(&body)?;
        let mut request = Request::from_parts(parts, Full::new(body));
        request.extensions_mut().insert(ticket.traffic().clone());
        let Ok(answer) = self.routes.call(request).await;
        outgoing(answer, ticket).await
    }

    /// A call of many messages.
    pub(super) async fn stream<B>(
        mut self,
        request: Request<B>,
        ticket: Ticket,
    ) -> Result<RoutedResponse>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let request = arriving(request, &ticket, self.rules.now().patience);
        let Ok(answer) = self.routes.call(request).await;
        outgoing(answer, ticket).await
    }
}

/// A request whose messages are counted as they arrive.
pub(super) fn arriving<B>(
    request: Request<B>,
    ticket: &Ticket,
    patience: Duration,
) -> Request<Arriving<B>> {
    let arriving = ticket.traffic().begin_anyway();
    request.map(|body| Arriving::new(body, arriving, patience))
}

/// An answer whose bytes are counted as they leave.
pub(super) async fn outgoing(
    answer: Response<tonic::body::Body>,
    ticket: Ticket,
) -> Result<RoutedResponse> {
    let (parts, body) = answer.into_parts();
    let body = Outgoing::begin(body, ticket).await?;
    Ok(Response::from_parts(parts, body.or_ends_with(trailers)))
}

/// What a stream of messages ends with instead of the rest of them.
fn trailers(error: &Error) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It fails for text that no header can have, and percent-encodes that before.
    let _ = to_status(error).add_header(&mut trailers);
    trailers
}

/// The response body of either path.
pub enum FrontBody {
    /// From the lean path.
    Lean(LeanBody),
    /// From tonic.
    Routed(Outgoing<tonic::body::Body>),
}

impl FrontBody {
    /// The answer of a call through tonic.
    pub(super) fn of(answer: Result<RoutedResponse>) -> Response<Self> {
        match answer {
            Ok(answer) => answer.map(Self::Routed),
            Err(error) => refused(&error),
        }
    }
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
