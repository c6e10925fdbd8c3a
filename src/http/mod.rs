//! The HTTP listener for clients: `GET` and `DELETE /v1/{group}/{key}`.

mod answer;
mod cache_status;
mod conditional;
mod range;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Method, Request, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::body::Incoming;
use tower::ServiceExt;

use crate::{
    service::Service,
    status::{
        self,
        http::{failed, not_allowed},
    },
    telemetry::trace::Call,
    tls::ClientNames,
    traffic::{Outgoing, Ticket, Traffic},
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::{Answer, Query},
};

/// The routes to a node's groups.
pub fn router(service: Service) -> Router {
    Router::new()
        .route("/v1/{group}/{*key}", get(read).delete(remove))
        .route("/v1/{group}/", get(no_key).delete(no_key))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(service)
}

/// A router as a hyper service for one connection: what it answers is counted until it has been
/// sent.
pub struct ConnectedRouter {
    router: Router,
    names: Option<ClientNames>,
    traffic: Arc<Traffic>,
}

impl ConnectedRouter {
    /// These routes, over this connection of a client that has proven these names.
    pub fn new(router: Router, names: Option<ClientNames>, traffic: Arc<Traffic>) -> Self {
        Self {
            router,
            names,
            traffic,
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
        let ticket = admit(&traffic, request.method());
        let router = self.router.clone();
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

async fn read(
    State(service): State<Service>,
    path: GroupAndKey,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let scope = service.begin(GET, &headers);
    match scope.run(pin!(find(&service, path, &uri))).await {
        Ok(answer) => answer::found(answer, &method, &headers, service.now()),
        Err(error) => {
            let mut response = failed(&error);
            cache_status::tell_error(response.headers_mut(), error.kind());
            response
        }
    }
}

async fn find(service: &Service, path: GroupAndKey, uri: &Uri) -> Result<Answer> {
    let (group, key) = group_and_key(service, path, uri)?;
    service.get(&group, &key).await
}

async fn remove(
    State(service): State<Service>,
    path: GroupAndKey,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let scope = service.begin(DELETE, &headers);
    let removed = pin!(async {
        let (group, key) = group_and_key(&service, path, &uri)?;
        service.remove(&group, &key).await
    });
    match scope.run(removed).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failed(&error),
    }
}

/// An empty key, which the other route does not match. The service rejects and counts it.
async fn no_key(State(service): State<Service>, Path(group): Path<String>) -> Response {
    match service.get(&group, "").await {
        Ok(_) => no_such_path().await,
        Err(error) => failed(&error),
    }
}

async fn no_such_path() -> Response {
    status::http::no_such_path("no such path; values are at /v1/{group}/{key}")
}

async fn no_such_method() -> Response {
    not_allowed("values take GET, HEAD and DELETE")
}

fn group_and_key(service: &Service, path: GroupAndKey, uri: &Uri) -> Result<(String, String)> {
    let (group, key) = path.map(|Path(both)| both).map_err(|rejection| {
        let what = format!("group and key must be percent-encoded UTF-8: {rejection}");
        Error::new(ErrorKind::InvalidRequest, what).with_source(rejection)
    })?;
    let Some(query) = uri.query() else {
        return Ok((group, key));
    };
    match service.query(&group)? {
        Query::Append => Ok((group, format!("{key}?{query}"))),
        Query::Ignore => Ok((group, key)),
        Query::Refuse => {
            // Dropped silently, it would answer, or remove, another key than the client meant.
            let what = "a query string is no part of a key of this group (groups[].query); write \
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
            let service = ConnectedRouter::new(router, names, Traffic::new(Budget::new(1 << 20)));
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
