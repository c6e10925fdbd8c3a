//! Gets over HTTP.

use std::pin::pin;

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::Response,
};

use super::{
    answer, cache_status,
    form::Form,
    place::{GroupAndKey, PlainGet, group_and_key},
};
use crate::{
    auth::{Action, Caller, Permissions},
    service::Service,
    telemetry::trace::Call,
};
use gaocache_core::{error::Result, group::Answer};

const GET: Call = Call::http("GET /v1/{group}/{key}");

/// What the handlers need.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) service: Service,
    pub(super) permissions: Permissions,
}

impl Served {
    pub(super) fn asked_by(&self, caller: &Caller) -> Service {
        self.service.asked_by(self.permissions.client(caller))
    }

    pub(super) fn admit(&self, caller: &Caller) -> Result<()> {
        match self.service.limits_requests() {
            true => self.asked_by(caller).admit(1),
            false => Ok(()),
        }
    }
}

/// The handler of gets.
pub(super) async fn read(
    State(served): State<Served>,
    Extension(caller): Extension<Caller>,
    path: GroupAndKey,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let found = async {
        served.admit(&caller)?;
        let (group, key) = group_and_key(|group| served.service.query(group), path, &uri)?;
        find(&served, &caller, (&group, &key), (&method, &headers)).await
    };
    answer_read(&served, &method, &headers, found).await
}

/// A get past the router.
pub(super) async fn plain_read(served: &Served, caller: &Caller, get: &PlainGet) -> Response {
    let head = &get.head;
    let found = async {
        served.admit(caller)?;
        let request = (&head.method, &head.headers);
        find(served, caller, (get.group(), get.key()), request).await
    };
    answer_read(served, &head.method, &head.headers, found).await
}

async fn answer_read(
    served: &Served,
    method: &Method,
    headers: &HeaderMap,
    found: impl Future<Output = Result<(Answer, Form)>>,
) -> Response {
    let service = &served.service;
    let scope = service.begin(GET, headers);
    match scope.run(pin!(found)).await {
        Ok((answer, form)) => answer::found(answer, form, method, headers, service.now()),
        Err(error) => {
            let mut response = answer::failed(&error);
            cache_status::tell_error(response.headers_mut(), error.kind());
            response
        }
    }
}

async fn find(
    served: &Served,
    caller: &Caller,
    (group, key): (&str, &str),
    (method, request): (&Method, &HeaderMap),
) -> Result<(Answer, Form)> {
    let Served {
        service,
        permissions,
    } = served;
    permissions.check(caller, Action::Read, group)?;
    let answer = match service.get_held_as_stored(group, key, &service.moment()) {
        Some(held) => held?,
        None => {
            let service = served.asked_by(caller);
            service.get_elsewhere_as_stored(group, key).await?
        }
    };
    let form = Form::of(&answer.metadata, request);
    let answer = match form {
        Form::Decompressed if answer::has_value(&answer, form, method, request) => {
            service.plain(answer).await?
        }
        Form::AsLoaded | Form::Decompressed | Form::Compressed => answer,
    };
    Ok((answer, form))
}
