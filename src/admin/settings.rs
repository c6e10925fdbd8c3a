//! The settings in force, and the wish to have them read again. Who reads them is above this
//! module.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::Admin;
use crate::auth::{Call, Caller};
use crate::status::http::{failed, not_here};
use gaocache_core::error::{Error, ErrorKind, Result};

/// Bound on reading and taking up the settings.
const PATIENCE: Duration = Duration::from_secs(30);

/// A wish to have the settings read again, which is told how it went.
pub type Reload = oneshot::Sender<Result<Value>>;

/// The settings in force, and where to ask for new ones.
#[derive(Clone)]
pub struct Reloads {
    /// As they are shown.
    pub in_force: watch::Receiver<Arc<Value>>,
    /// Takes wishes; a bounded queue.
    pub wishes: mpsc::Sender<Reload>,
}

/// `GET /config`.
pub(super) async fn in_force(State(admin): State<Admin>) -> Response {
    match &admin.settings {
        Some(settings) => Json(Value::clone(&settings.in_force.borrow())).into_response(),
        None => unmanaged(),
    }
}

/// `POST /reload`.
pub(super) async fn reload(
    State(admin): State<Admin>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let Some(settings) = &admin.settings else {
        return unmanaged();
    };
    let call = Call::admin("reload", None);
    let done = admin.permissions.run(&caller, call, wish(settings)).await;
    match done {
        Ok(done) => Json(done).into_response(),
        Err(error) => failed(&error),
    }
}

async fn wish(settings: &Reloads) -> Result<Value> {
    let (tell, told) = oneshot::channel();
    if settings.wishes.try_send(tell).is_err() {
        let what = "the settings are being read already";
        return Err(Error::new(ErrorKind::Overloaded, what));
    }
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) | Err(_) => {
            let what = "the settings could not be read in time; see the log";
            Err(Error::new(ErrorKind::Internal, what))
        }
    }
}

fn unmanaged() -> Response {
    not_here("the settings of this process are not managed by gaocache")
}
