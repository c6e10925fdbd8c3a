//! The trace of a request: whether it is sampled, its spans, and the context that is propagated to
//! other processes (W3C Trace Context).
//!
//! The sampling decision is made before any span is built, so a request that is not sampled costs
//! one header lookup and one random number. A get that misses on a node that isn't the owner has
//! four spans: the get, the fetch, the owner's answer, and the load. A trace context that is not
//! sampled is still propagated, so that the next processes follow the decision.
//!
//! This module must never put a key into a span unless `trace.keys` allows it, and must never wait
//! for the exporter.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderName};
use opentelemetry::{
    Context, KeyValue, TraceFlags,
    propagation::TextMapPropagator,
    trace::{FutureExt as _, SpanContext, TraceContextExt},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use gaocache_core::{
    error::{Error, ErrorKind},
    membership::Member,
};

/// The target of every span that is exported to traces.
pub const TARGET: &str = "gaocache::trace";

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A call that starts a trace or continues its caller's.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    name: &'static str,
    listener: &'static str,
}

impl Call {
    /// A call over gRPC, such as `gaocache.v1.Cache/Get`.
    pub const fn grpc(name: &'static str) -> Self {
        Self {
            name,
            listener: "grpc",
        }
    }

    /// A call over HTTP, by method and route.
    pub const fn http(name: &'static str) -> Self {
        Self {
            name,
            listener: "http",
        }
    }

    /// A command of a Redis client, such as `GET`.
    pub const fn redis(name: &'static str) -> Self {
        Self {
            name,
            listener: "redis",
        }
    }
}

/// Which requests have spans.
///
/// ```
/// use gaocache::Sampling;
///
/// // As the caller's `traceparent` says; of requests without one, a hundredth.
/// let sampling = Sampling::share(0.01).parent_based();
/// assert_ne!(sampling, Sampling::off());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Ratio of requests to sample where no caller's decision applies. `None`: no spans at all.
    pub(crate) ratio: Option<f64>,
    /// Whether a caller's decision overrides the ratio.
    pub(crate) parent_based: bool,
    /// Whether spans contain keys.
    pub(crate) keys: bool,
    /// Whether clients' trace contexts are believed.
    pub(crate) trusts_clients: bool,
}

impl Sampling {
    /// None, and what a client sends as the context of its trace goes nowhere.
    pub const fn off() -> Self {
        Self {
            ratio: None,
            parent_based: false,
            keys: false,
            trusts_clients: false,
        }
    }

    /// This share of them, 0 to 1, whatever the caller decided.
    pub const fn share(ratio: f64) -> Self {
        Self {
            ratio: Some(ratio),
            ..Self::off()
        }
    }

    /// The same, but where the caller has decided, as the caller did. Clients are believed then.
    #[must_use]
    pub const fn parent_based(mut self) -> Self {
        self.parent_based = true;
        self.trusting_clients()
    }

    /// The same, and what clients send as the context of their trace is trusted, and passed on to
    /// other nodes and origins.
    #[must_use]
    pub const fn trusting_clients(mut self) -> Self {
        self.trusts_clients = true;
        self
    }

    /// The same, with keys in the spans. They may be personal data.
    #[must_use]
    pub const fn with_keys(mut self) -> Self {
        self.keys = true;
        self
    }

    /// The scope of a client's call.
    pub(crate) fn begin(&self, call: Call, headers: &HeaderMap) -> Scope {
        let caller = self.trusts_clients.then(|| caller(headers)).flatten();
        let by_chance = |ratio: f64| fastrand::f64() < ratio;
        let sampled = match (self.ratio, &caller) {
            (None, _) => false,
            (Some(_), Some(caller)) if self.parent_based => is_sampled(caller),
            (Some(ratio), _) => by_chance(ratio),
        };
        self.scope(call, caller, sampled)
    }

    /// The scope of another node's call. That node has already decided, so this never starts a
    /// trace.
    pub(crate) fn follow(&self, call: Call, headers: &HeaderMap) -> Scope {
        let caller = caller(headers);
        let sampled = self.ratio.is_some() && caller.as_ref().is_some_and(is_sampled);
        self.scope(call, caller, sampled)
    }

    fn scope(&self, call: Call, caller: Option<Context>, sampled: bool) -> Scope {
        match caller {
            None if !sampled => Scope::Nothing,
            Some(caller) if !sampled => Scope::HandedOn(if self.ratio.is_some() {
                not_sampled(&caller)
            } else {
                caller
            }),
            caller => Scope::Traced(server_span(call, caller)),
        }
    }

    /// Whether any requests have spans.
    pub(crate) fn is_on(&self) -> bool {
        self.ratio.is_some()
    }

    /// The key to record in a server span: none, unless the settings allow it.
    pub(crate) fn key<'a>(&self, key: &'a str) -> Option<&'a str> {
        self.keys.then_some(key)
    }
}

fn caller(headers: &HeaderMap) -> Option<Context> {
    if !headers.contains_key(TRACEPARENT) {
        return None;
    }
    let extractor = HeaderExtractor(headers);
    let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &extractor);
    // An invalid header counts as no trace, as the standard requires.
    caller.has_active_span().then_some(caller)
}

fn is_sampled(context: &Context) -> bool {
    context.span().span_context().is_sampled()
}

/// The same context marked as not sampled, so that the next processes see our decision.
fn not_sampled(context: &Context) -> Context {
    let span = context.span();
    let said = span.span_context();
    Context::new().with_remote_span_context(SpanContext::new(
        said.trace_id(),
        said.span_id(),
        said.trace_flags() & !TraceFlags::SAMPLED,
        true,
        said.trace_state().clone(),
    ))
}

fn server_span(call: Call, caller: Option<Context>) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "request", otel.name = call.name, otel.kind = "server", listener = call.listener,
        group = Empty, key = Empty, outcome = Empty, owner = Empty, value_bytes = Empty, otel.status_code = Empty
    );
    if let Some(caller) = caller {
        // Fails if the embedding program exports its spans in another way. Our spans are roots
        // then.
        let _ = span.set_parent(caller);
    }
    span
}

/// The trace scope that a request runs in.
#[derive(Clone)]
pub enum Scope {
    /// No trace.
    Nothing,
    /// A trace that this node does not add to, but propagates.
    HandedOn(Context),
    /// A trace with a span of this node.
    Traced(Span),
}

impl Scope {
    /// The current scope.
    pub fn current() -> Self {
        if is_traced() {
            return Self::Traced(Span::current());
        }
        let context = Context::current();
        if context.has_active_span() {
            Self::HandedOn(context)
        } else {
            Self::Nothing
        }
    }

    /// Runs `work` in this scope.
    pub async fn run<F: Future>(&self, mut work: Pin<&mut F>) -> F::Output {
        poll_fn(|task| self.poll(work.as_mut(), task)).await
    }

    fn poll<F: Future>(&self, work: Pin<&mut F>, task: &mut TaskContext<'_>) -> Poll<F::Output> {
        self.within(|| work.poll(task))
    }

    /// Does in this scope what waits for nothing.
    pub fn within<R>(&self, work: impl FnOnce() -> R) -> R {
        match self {
            Self::Nothing => work(),
            Self::HandedOn(context) => {
                let _here = context.clone().attach();
                work()
            }
            Self::Traced(span) => span.in_scope(work),
        }
    }
}

/// Wraps a task that is about to be spawned, so that it continues the trace of its spawner.
pub fn wrap_task(task: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
    if !Context::map_current(Context::has_active_span) {
        return task;
    }
    task.in_current_span().with_current_context().boxed()
}

/// Whether this node records spans for the current request.
fn is_traced() -> bool {
    Context::map_current(|context| {
        let span = context.span();
        span.span_context().is_sampled() && !span.span_context().is_remote()
    })
}

/// Writes the current trace context, if any, to the headers of a call to another process.
pub fn hand_on(headers: &mut HeaderMap) {
    Context::map_current(|context| {
        if context.has_active_span() {
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(headers));
        }
    });
}

/// A gRPC request that carries the current trace context.
pub fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    hand_on(request.metadata_mut().as_mut());
    request
}

/// The span of a fetch from another node, by that call of `Peer`.
pub fn fetch_span(call: &'static str, member: &Member, group: &str) -> Span {
    if !is_traced() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET, "fetch", otel.name = call, otel.kind = "client", peer = &*member.id,
        server.address = &*member.contact.address, group, outcome = Empty, value_bytes = Empty, otel.status_code = Empty
    )
}

/// The span of a load from the origin, including the time in the queue.
pub fn load_span() -> Span {
    if !is_traced() {
        return Span::none();
    }
    tracing::info_span!(
        target: TARGET, "load", otel.name = "load from origin", otel.kind = "client", group = Empty,
        outcome = Empty, value_bytes = Empty, otel.status_code = Empty
    )
}

/// Adds an event to the current span.
pub fn event(name: &'static str, attribute: Option<(&'static str, &'static str)>) {
    if is_traced() {
        let attributes = attribute.map(|(name, value)| KeyValue::new(name, value));
        Context::map_current(|context| {
            context
                .span()
                .add_event(name, attributes.into_iter().collect());
        });
    }
}

/// Attributes that are recorded when a span ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanAttributes<'a> {
    /// The group; empty if the span already has it.
    pub group: &'a str,
    /// The key, if it may be recorded.
    pub key: Option<&'a str>,
    /// The key's owner, as seen by this node.
    pub owner: Option<&'a str>,
    /// Size of the value in bytes.
    pub bytes: Option<usize>,
}

/// Completes the current span. The outcomes are those of the metrics.
pub fn ended(outcome: Result<&'static str, &Error>, attributes: SpanAttributes<'_>) {
    if !is_traced() {
        return;
    }
    /// The name of an unknown group is chosen by the caller, so it is truncated.
    const LONGEST_GROUP: usize = 64;
    let span = Span::current();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                span.record("otel.status_code", "ERROR");
            }
            error.kind().name()
        }
    };
    span.record("outcome", outcome);
    if !attributes.group.is_empty() {
        let group: String = attributes.group.chars().take(LONGEST_GROUP).collect();
        span.record("group", group);
    }
    if let Some(key) = attributes.key {
        span.record("key", key);
    }
    if let Some(owner) = attributes.owner {
        span.record("owner", owner);
    }
    if let Some(bytes) = attributes.bytes {
        span.record("value_bytes", bytes);
    }
}

/// The ids of the current trace and span, in the standard's notation, for the log.
#[cfg(feature = "cli")]
pub fn ids() -> Option<(String, String)> {
    Context::map_current(|context| {
        let span = context.span();
        let here = span.span_context();
        here.is_valid()
            .then(|| (here.trace_id().to_string(), here.span_id().to_string()))
    })
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
