//! Shows the current settings, and passes on requests to read them again, or to forget a member.
//! Both happen above this module.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::state::{Admin, Reloads, Tell, Wish};
use crate::auth::{Call, Caller};
use crate::status::http::{failed, not_here};
use gaocache_core::error::{Error, ErrorKind, Result};

/// What is told where nobody reads settings.
const UNMANAGED: &str = "this node was not started by `gaocache serve`, so it has no sources to \
                         read settings from: `gaocache dev` takes them from its flags (--set) when \
                         it starts, and a program that embeds a node has its own";

/// Bound on reading and taking up the settings.
const PATIENCE: Duration = Duration::from_secs(30);

/// `GET /config`.
pub(super) async fn in_force(State(admin): State<Admin>) -> Response {
    match &admin.settings {
        Some(settings) => Json(Value::clone(&settings.in_force.borrow())).into_response(),
        None => not_here(UNMANAGED),
    }
}

/// `POST /reload`.
pub(super) async fn reload(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let Some(settings) = &admin.settings else {
        return not_here(UNMANAGED);
    };
    let call = Call::admin("reload", None);
    let done = wish(settings, Wish::Reload);
    match admin.permissions.run(&caller, call, done).await {
        Ok(done) => Json(done).into_response(),
        Err(error) => failed(&error),
    }
}

#[derive(Deserialize)]
pub(super) struct Forget {
    id: String,
}

/// `POST /forget?id=ID`.
pub(super) async fn forget(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
    member: std::result::Result<Query<Forget>, QueryRejection>,
) -> Response {
    let Some(settings) = &admin.settings else {
        let what = "this node was not started by `gaocache serve`, so it forgets no member; use \
                    `gaocache forget ID --etcd URL`";
        return not_here(what);
    };
    let Ok(Query(Forget { id })) = member else {
        let what = "say which member, as in POST /forget?id=gaocache-7";
        return failed(&Error::new(ErrorKind::InvalidRequest, what));
    };
    let call = Call::admin("forget", Some(("member", &id)));
    let done = wish(settings, |tell| Wish::Forget(id.clone(), tell));
    match admin.permissions.run(&caller, call, done).await {
        Ok(done) => Json(done).into_response(),
        Err(error) => failed(&error),
    }
}

async fn wish(settings: &Reloads, wish: impl FnOnce(Tell) -> Wish) -> Result<Value> {
    let (tell, told) = oneshot::channel();
    if settings.wishes.try_send(wish(tell)).is_err() {
        let what = "this is already being done for other callers";
        return Err(Error::new(ErrorKind::Overloaded, what));
    }
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) | Err(_) => {
            let what = "this could not be done in time; see the log";
            Err(Error::new(ErrorKind::Internal, what))
        }
    }
}
