//! Shows the current settings, and passes on requests to read them again. The reading itself
//! happens above this module.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::state::Admin;
use crate::status::http::{failed, not_here};
use gaocache_core::error::{Error, ErrorKind};

/// Bound on reading and taking up the settings.
const PATIENCE: Duration = Duration::from_secs(30);

/// `GET /config`.
pub(super) async fn in_force(State(admin): State<Admin>) -> Response {
    match &admin.settings {
        Some(settings) => Json(Value::clone(&settings.in_force.borrow())).into_response(),
        None => unmanaged(),
    }
}

/// `POST /reload`.
pub(super) async fn reload(State(admin): State<Admin>) -> Response {
    let Some(settings) = &admin.settings else {
        return unmanaged();
    };
    let (tell, told) = oneshot::channel();
    if settings.wishes.try_send(tell).is_err() {
        let what = "the settings are being read already";
        return failed(&Error::new(ErrorKind::Overloaded, what));
    }
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(Ok(done))) => Json(done).into_response(),
        Ok(Ok(Err(error))) => failed(&error),
        Ok(Err(_)) | Err(_) => {
            let what = "the settings could not be read in time; see the log";
            failed(&Error::new(ErrorKind::Internal, what))
        }
    }
}

fn unmanaged() -> Response {
    not_here("the settings of this process are not managed by gaocache")
}
