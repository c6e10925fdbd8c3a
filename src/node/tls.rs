//! Which listeners speak TLS, by the settings; and what the metrics show of their files.

use std::sync::Arc;

use super::admission::{ADMIN, Listener};
use crate::{
    settings::{self, ClientCertificates, Settings},
    telemetry::metrics::Metrics,
    tls::{Asked, ListenerFiles, Observed, Observer, ServerTls},
};
use gaocache_core::error::Result;

/// TLS of the listeners for clients and operators; `None`: plaintext.
#[derive(Clone)]
pub(super) struct ListenersTls {
    pub(super) grpc: Option<ServerTls>,
    pub(super) http: Option<ServerTls>,
    pub(super) redis: Option<ServerTls>,
    pub(super) admin: Option<ServerTls>,
}

impl ListenersTls {
    /// As the settings have it. The files are followed on the current runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](gaocache_core::error::ErrorKind) if a file can't be used.
    pub(super) fn start(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Self> {
        const HTTP2: &[u8] = b"h2";
        const HTTP1: &[u8] = b"http/1.1";
        let start = |tls: &Option<settings::ListenerTls>, name, label, protocols| {
            let tls = tls.as_ref().map(|tls| {
                let files = ListenerFiles {
                    listener: name,
                    cert: tls.cert.clone(),
                    key: tls.key.clone(),
                    clients: match &tls.clients {
                        ClientCertificates::NotAsked => None,
                        ClientCertificates::Optional { ca } => Some((ca.clone(), Asked::Optional)),
                        ClientCertificates::Required { ca } => Some((ca.clone(), Asked::Required)),
                    },
                };
                ServerTls::start(files, protocols, observer(label, metrics))
            });
            tls.transpose()
        };
        let (grpc, http) = (Listener::Grpc.name(), Listener::Http.name());
        Ok(Self {
            grpc: start(&settings.grpc_tls, "gRPC", grpc, &[HTTP2])?,
            http: start(&settings.http_tls, "HTTP", http, &[HTTP2, HTTP1])?,
            redis: start(&settings.redis_tls, "Redis", Listener::Redis.name(), &[])?,
            admin: start(&settings.admin_tls, "admin", ADMIN, &[HTTP1])?,
        })
    }
}

/// Reports the state of a listener's certificate files as metrics.
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
