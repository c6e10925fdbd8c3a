//! All targets.

mod auth;
mod etcd;
mod grpc;
mod http;
mod node;
mod origin;
mod redis;
mod settings;
mod tls;

/// One of the targets.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its folder in `corpus`.
    pub name: &'static str,
    /// Panics if something doesn't hold.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// In the order in which they run.
pub const TARGETS: &[Target] = &[
    target("cache_headers", origin::cache_headers),
    target("certificates", tls::certificates),
    target("conditions", http::conditions),
    target("etcd_values", etcd::values),
    target("frames", node::frames),
    target("grants", auth::grants),
    target("grpc_get", grpc::get),
    target("histories", gaocache_core::fuzzing::history),
    target("hosts", auth::hosts),
    target("jwt", auth::jwt),
    target("log_filters", node::log_filters),
    target("paths", http::paths),
    target("peer_messages", grpc::peer_messages),
    target("redis_commands", redis::commands),
    target("redis_replies", redis::replies),
    target("settings", settings::settings),
    target("tokens", auth::tokens),
    target("url_templates", origin::url_templates),
];
