//! One connection of the listener.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{Method, Request},
    response::Response,
};
use hyper::body::Incoming;
use tower::ServiceExt;

use super::{
    place::PlainGet,
    reads::{Served, plain_read},
};
use crate::{
    auth::{Caller, Entry, Hosts, Misdirected},
    status::http::{another_site, failed, other_host},
    tls::ClientNames,
    traffic::{Outgoing, Ticket, Traffic},
};
use gaocache_core::error::{Error, Result};

/// A router as a hyper service for one connection: what a browser may have been tricked into is
/// refused, handlers find the [`Caller`] among the extensions, and what is answered is counted
/// until it has been sent.
pub(crate) struct ConnectedRouter {
    router: Router,
    /// Who answers plain gets, if the router's paths are those of groups.
    pub(super) gets: Option<Served>,
    names: Option<ClientNames>,
    traffic: Arc<Traffic>,
    entry: Entry,
    hosts: Arc<Hosts>,
}

impl ConnectedRouter {
    /// These routes, over this connection of a client that has proven these names.
    pub(crate) fn new(
        router: Router,
        names: Option<ClientNames>,
        traffic: Arc<Traffic>,
        entry: Entry,
        hosts: Arc<Hosts>,
    ) -> Self {
        Self {
            router,
            gets: None,
            names,
            traffic,
            entry,
            hosts,
        }
    }

    /// Why a request is answered by no handler.
    fn refusal(&self, request: &Request<Incoming>) -> Option<Response> {
        let (method, headers) = (request.method(), request.headers());
        match self.hosts.check(method, request.uri(), headers) {
            Ok(()) => None,
            Err(Misdirected::Host) => Some(other_host()),
            Err(Misdirected::Site) => Some(another_site()),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for ConnectedRouter {
    type Response = axum::http::Response<Outgoing<Body>>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(names) = &self.names {
            request.extensions_mut().insert(names.clone());
        }
        let traffic = self.traffic.clone();
        if let Some(refusal) = self.refusal(&request) {
            let ticket = traffic.begin_anyway();
            let refusal = refusal.map(|body| Outgoing::new(body, ticket));
            return Box::pin(std::future::ready(Ok(refusal)));
        }
        let ticket = admit(&traffic, request.method());
        let caller = Caller::of_request(self.entry, request.extensions(), request.headers());
        if let Some((served, slash)) = self.gets.as_ref().zip(PlainGet::slash(&request)) {
            let (served, get) = (served.clone(), PlainGet::new(request, slash));
            return Box::pin(async move {
                let answer = plain_read(&served, &caller, &get);
                Ok(counted(&traffic, ticket, answer).await)
            });
        }
        let router = self.router.clone();
        request.extensions_mut().insert(caller);
        Box::pin(async move {
            let answer = async {
                let Ok(answer) = router.oneshot(request.map(Body::new)).await;
                answer
            };
            Ok(counted(&traffic, ticket, answer).await)
        })
    }
}

/// An answer that its ticket counts; if there is none, the refusal.
async fn counted(
    traffic: &Arc<Traffic>,
    ticket: Result<Ticket>,
    answer: impl Future<Output = Response>,
) -> axum::http::Response<Outgoing<Body>> {
    let answered = async {
        let ticket = ticket?;
        let (head, body) = answer.await.into_parts();
        let body = Outgoing::begin(body, ticket).await?;
        Ok(axum::http::Response::from_parts(head, body))
    };
    answered.await.unwrap_or_else(|error: Error| {
        let ticket = traffic.begin_anyway();
        failed(&error).map(|body| Outgoing::new(body, ticket))
    })
}

/// Gets carry values, and a HEAD runs a whole get. Removals are accepted however many bytes are in
/// flight.
fn admit(traffic: &Arc<Traffic>, method: &Method) -> Result<Ticket> {
    match *method {
        Method::GET | Method::HEAD => traffic.begin(),
        _ => Ok(traffic.begin_anyway()),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, routing::get};
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::TokioIo;

    use super::*;
    use crate::traffic::Budget;

    #[tokio::test]
    async fn a_request_has_the_names_that_its_connection_has_proven() {
        let told = get(async |names: Option<Extension<ClientNames>>| {
            names.map_or("none".to_owned(), |Extension(names)| names.0.join(" "))
        });
        for (names, wanted) in [
            (None, "none"),
            (Some(ClientNames(["a".into(), "b".into()].into())), "a b"),
        ] {
            let (near, far) = tokio::io::duplex(4096);
            let router = Router::new().route("/", told.clone());
            let traffic = Traffic::new(Budget::new(1 << 20));
            let entry = Entry::Socket { uid: None };
            let hosts = Arc::new(Hosts::default());
            let service = ConnectedRouter::new(router, names, traffic, entry, hosts);
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(far), service));
            let connected = hyper::client::conn::http1::handshake(TokioIo::new(near));
            let (mut client, connection) = connected.await.expect("a connection");
            tokio::spawn(connection);
            let request = Request::get("/").body(Empty::<bytes::Bytes>::new());
            let answer = client.send_request(request.expect("a request")).await;
            let body = answer.expect("an answer").into_body().collect().await;
            assert_eq!(body.expect("a body").to_bytes(), wanted);
        }
    }

    #[test]
    fn a_full_budget_refuses_whatever_gets_a_value_and_hears_removals() {
        let traffic = Traffic::new(Budget::new(0));
        for (method, is_heard) in [
            (Method::GET, false),
            (Method::HEAD, false),
            (Method::DELETE, true),
        ] {
            assert_eq!(admit(&traffic, &method).is_ok(), is_heard, "{method}");
        }
    }
}
