//! The HTTP listener for clients: `GET` and `DELETE /v1/{group}/{key}`, and `DELETE
//! /v1/{group}?tag=…`.

mod answer;
mod cache_status;
mod conditional;
mod connected;
mod form;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod place;
mod range;
mod reads;

use std::{pin::pin, sync::Arc};

use axum::{
    Extension, Router,
    extract::{
        Path, Query as Parameters, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use percent_encoding::percent_decode_str;

use self::{
    place::{GroupAndKey, group_and_key},
    reads::{Served, read},
};
use crate::{
    auth::{Call as Changes, Caller, Entry, Hosts, Permissions},
    service::Service,
    status::{
        self,
        http::{failed, not_allowed},
    },
    telemetry::trace::Call,
    tls::ClientNames,
    traffic::Traffic,
};
use gaocache_core::error::{Error, ErrorKind};

pub(crate) use self::connected::ConnectedRouter;

/// The listener: the routes to a node's groups. Plain gets take a path past the router, which
/// copies group and key and carries them, the caller and the state in boxes.
#[derive(Clone)]
pub(crate) struct Front {
    served: Served,
    router: Router,
}

impl Front {
    /// A listener for `service`.
    pub(crate) fn new(service: Service, permissions: Permissions) -> Self {
        let served = Served {
            service,
            permissions,
        };
        let router = Router::new()
            .route("/v1/{group}/{*key}", get(read).delete(remove))
            // With a query that belongs to the key, nothing else is needed.
            .route("/v1/{group}/", get(read).delete(remove))
            .route("/v1/{group}", delete(purge_tag))
            .fallback(no_such_path)
            .method_not_allowed_fallback(no_such_method)
            .with_state(served.clone());
        Self { served, router }
    }

    /// The listener for one connection, of a client that has proven these names.
    pub(crate) fn over(
        &self,
        names: Option<ClientNames>,
        traffic: Arc<Traffic>,
        entry: Entry,
        hosts: Arc<Hosts>,
    ) -> ConnectedRouter {
        let router = self.router.clone();
        let mut connected = ConnectedRouter::new(router, names, traffic, entry, hosts);
        connected.gets = Some(self.served.clone());
        connected
    }
}

const DELETE: Call = Call::http("DELETE /v1/{group}/{key}");
const PURGE_TAG: Call = Call::http("DELETE /v1/{group}");

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
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Served {
        service,
        permissions,
    } = &served;
    let scope = service.begin(PURGE_TAG, &headers);
    let purged = pin!(async {
        served.admit(&caller)?;
        // Axum puts another character for what is not UTF-8, so another tag would be purged.
        let query = percent_decode_str(uri.query().unwrap_or_default()).decode_utf8();
        let (Ok(Path(group)), Ok(Parameters(Tag { tag })), Ok(_)) = (path, tag, query) else {
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

async fn no_such_path() -> Response {
    status::http::no_such_path("no such path; values are at /v1/{group}/{key}")
}

async fn no_such_method() -> Response {
    not_allowed(
        "/v1/{group}/{key} supports GET, HEAD and DELETE, and /v1/{group}?tag=TAG supports DELETE",
    )
}
