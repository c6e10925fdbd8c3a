//! Which listeners speak TLS, by the settings; and what the metrics show of their files.

use std::sync::Arc;

use super::admission::{ADMIN, Listener};
use crate::{
    settings::{self, ClientCertificates, Settings},
    telemetry::metrics::Metrics,
    tls::{Asked, ListenerFiles, ListenerTls, Observed, Observer},
};
use gaocache_core::error::Result;

/// TLS of the listeners for clients and operators; `None`: plaintext.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) grpc: Option<ListenerTls>,
    pub(super) http: Option<ListenerTls>,
    pub(super) redis: Option<ListenerTls>,
    pub(super) admin: Option<ListenerTls>,
}

impl Tls {
    /// As the settings have it. The files are followed on the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](gaocache_core::error::ErrorKind) if a file can't be used.
    pub(super) fn start(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self> {
        const HTTP2: &[u8] = b"h2";
        const HTTP1: &[u8] = b"http/1.1";
        let start = |tls: &Option<settings::ListenerTls>, section, listener, protocols| {
            let tls = tls.as_ref().map(|tls| {
                let files = ListenerFiles {
                    section,
                    cert: tls.cert.clone(),
                    key: tls.key.clone(),
                    clients: match &tls.clients {
                        ClientCertificates::NotAsked => None,
                        ClientCertificates::Optional { ca } => Some((ca.clone(), Asked::Optional)),
                        ClientCertificates::Required { ca } => Some((ca.clone(), Asked::Required)),
                    },
                };
                ListenerTls::start(files, protocols, observer(listener, metrics))
            });
            tls.transpose()
        };
        let (grpc, http) = (Listener::Grpc.name(), Listener::Http.name());
        Ok(Tls {
            grpc: start(&settings.grpc_tls, "grpc.tls", grpc, &[HTTP2])?,
            http: start(&settings.http_tls, "http.tls", http, &[HTTP2, HTTP1])?,
            redis: start(
                &settings.redis_tls,
                "redis.tls",
                Listener::Redis.name(),
                &[],
            )?,
            admin: start(&settings.admin_tls, "admin.tls", ADMIN, &[HTTP1])?,
        })
    }
}

/// Shows in the metrics what has become of a listener's files.
pub(super) fn observer(listener: &'static str, metrics: &Arc<Metrics>) -> Observer {
    let metrics = metrics.clone();
    Arc::new(move |observed| {
        let metrics = &metrics.connections;
        match observed {
            Observed::InUse(life) => metrics.certificate_in_use(listener, life.begins, life.ends),
            Observed::Unusable => metrics.certificate_unusable(listener),
        }
    })
}
