//! The HTTP listener for clients: `GET` and `DELETE /v1/{group}/{key}`, and `DELETE
//! /v1/{group}?tag=…`.

mod answer;
mod cache_status;
mod conditional;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod range;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{
        Path, Query as Parameters, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, Method, Request, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::{
    auth::{Action, Call as Changes, Caller, Entry, Hosts, Misdirected, Permissions},
    service::Service,
    status::{
        self,
        http::{another_site, failed, not_allowed, other_host},
    },
    telemetry::trace::Call,
    tls::ClientNames,
    traffic::{Outgoing, Ticket, Traffic},
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Answer, Query},
};

/// What the handlers need.
#[derive(Clone)]
struct Served {
    service: Service,
    permissions: Permissions,
}

impl Served {
    fn asked_by(&self, caller: &Caller) -> Service {
        self.service.asked_by(self.permissions.client(caller))
    }

    fn admit(&self, caller: &Caller) -> Result<()> {
        match self.service.limits_requests() {
            true => self.asked_by(caller).admit(1),
            false => Ok(()),
        }
    }
}

/// The routes to a node's groups.
pub fn router(service: Service, permissions: Permissions) -> Router {
    let served = Served {
        service,
        permissions,
    };
    Router::new()
        .route("/v1/{group}/{*key}", get(read).delete(remove))
        .route("/v1/{group}/", get(no_key).delete(no_key))
        .route("/v1/{group}", delete(purge_tag))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(served)
}

/// A router as a hyper service for one connection: what a browser may have been tricked into is
/// refused, handlers find the [`Caller`] among the extensions, and what is answered is counted
/// until it has been sent.
pub(crate) struct ConnectedRouter {
    router: Router,
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
        let router = self.router.clone();
        let caller = Caller::of_request(self.entry, request.extensions(), request.headers());
        request.extensions_mut().insert(caller);
        Box::pin(async move {
            let answered = async {
                let ticket = ticket?;
                let Ok(answer) = router.oneshot(request.map(Body::new)).await;
                let (head, body) = answer.into_parts();
                let body = Outgoing::begin(body, ticket).await?;
                Ok(axum::http::Response::from_parts(head, body))
            };
            let answer = answered.await.unwrap_or_else(|error: Error| {
                let ticket = traffic.begin_anyway();
                failed(&error).map(|body| Outgoing::new(body, ticket))
            });
            Ok(answer)
        })
    }
}

/// Gets carry values, and a HEAD runs a whole get. Removals are accepted however many bytes are in
/// flight.
fn admit(traffic: &Arc<Traffic>, method: &Method) -> Result<Ticket> {
    match *method {
        Method::GET | Method::HEAD => traffic.begin(),
        _ => Ok(traffic.begin_anyway()),
    }
}

type GroupAndKey = std::result::Result<Path<(String, String)>, PathRejection>;

const GET: Call = Call::http("GET /v1/{group}/{key}");
const DELETE: Call = Call::http("DELETE /v1/{group}/{key}");
const PURGE_TAG: Call = Call::http("DELETE /v1/{group}");

async fn read(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    path: GroupAndKey,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let service = &served.service;
    let scope = service.begin(GET, &headers);
    match scope.run(pin!(find(&served, &caller, path, &uri))).await {
        Ok(answer) => answer::found(answer, &method, &headers, service.now()),
        Err(error) => {
            let mut response = answer::failed(&error);
            cache_status::tell_error(response.headers_mut(), error.kind());
            response
        }
    }
}

async fn find(served: &Served, caller: &Caller, path: GroupAndKey, uri: &Uri) -> Result<Answer> {
    let Served {
        service,
        permissions,
    } = served;
    served.admit(caller)?;
    let (group, key) = group_and_key(|group| service.query(group), path, uri)?;
    permissions.check(caller, Action::Read, &group)?;
    match service.get_held(&group, &key, &service.moment()) {
        Some(held) => held,
        None => served.asked_by(caller).get_elsewhere(&group, &key).await,
    }
}

async fn remove(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    path: GroupAndKey,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Served {
        service,
        permissions,
    } = &served;
    let scope = service.begin(DELETE, &headers);
    let removed = pin!(async {
        served.admit(&caller)?;
        let (group, key) = group_and_key(|group| service.query(group), path, &uri)?;
        let call = Changes::remove(&group, &key);
        permissions
            .run(&caller, call, service.remove(&group, &key))
            .await
    });
    match scope.run(removed).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failed(&error),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Tag {
    tag: String,
}

/// Never a whole group: a key that was left out must not remove everything.
async fn purge_tag(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    path: std::result::Result<Path<String>, PathRejection>,
    tag: std::result::Result<Parameters<Tag>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Served {
        service,
        permissions,
    } = &served;
    let scope = service.begin(PURGE_TAG, &headers);
    let purged = pin!(async {
        let (Ok(Path(group)), Ok(Parameters(Tag { tag }))) = (path, tag) else {
            let what = "say which key, as in DELETE /v1/users/42, or which tag, as in DELETE \
                 /v1/users?tag=red";
            return Err(Error::new(ErrorKind::InvalidRequest, what));
        };
        let call = Changes::purge_tag(&group, &tag);
        let purge = service.purge_tag(&group, &tag);
        permissions.run(&caller, call, purge).await
    });
    match scope.run(purged).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failed(&error),
    }
}

/// An empty key, which the other route does not match. The service rejects and counts it.
async fn no_key(State(served): State<Served>, Path(group): Path<String>) -> Response {
    match served.service.get(&group, "").await {
        Ok(_) => no_such_path().await,
        Err(error) => failed(&error),
    }
}

async fn no_such_path() -> Response {
    status::http::no_such_path("no such path; values are at /v1/{group}/{key}")
}

async fn no_such_method() -> Response {
    not_allowed("this path supports GET, HEAD and DELETE")
}

/// What a request names; `rule` is what its group makes of a query.
fn group_and_key(
    rule: impl FnOnce(&str) -> Result<Query>,
    path: GroupAndKey,
    uri: &Uri,
) -> Result<(String, String)> {
    let (group, key) = path.map(|Path(both)| both).map_err(|rejection| {
        let what = format!("group and key must be percent-encoded UTF-8: {rejection}");
        Error::new(ErrorKind::InvalidRequest, what).with_source(rejection)
    })?;
    let Some(query) = uri.query() else {
        return Ok((group, key));
    };
    match rule(&group)? {
        Query::Append => Ok((group, format!("{key}?{query}"))),
        Query::Ignore => Ok((group, key)),
        Query::Refuse => {
            // Dropped silently, it would answer, or remove, another key than the client meant.
            let what = "a query string is not part of a key in this group (groups[].query); write \
                 '?' in a key as %3F";
            Err(Error::new(ErrorKind::InvalidRequest, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Extension;
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
