//! Settings: plain values, validated once, before anything starts.
//!
//! Sources, each overriding the ones before it: defaults, platform (`POD_NAME`, `POD_IP`, host
//! name), TOML file, environment variables `GAOCACHE__SECTION__NAME`, flags
//! `--set section.name=value`. The core must not use any settings struct.

mod access;
mod check;
mod header_files;
mod listener_tls;
pub mod load;
mod mask;
mod numbered;
pub(crate) mod pem;
mod problem;
mod read;
pub mod schema;
mod settings;
mod show;
mod suggest;
mod unsure;
mod walk;
pub(crate) mod zone;

pub use access::JwtSettings;
pub use listener_tls::{ClientAuth, ListenerTlsSettings};
pub use load::{InForce, Loaded, Reading, Sources, load, loopback, read_all};
pub(crate) use mask::{has_user, url as url_without_password};
pub use problem::{ConfigError, Problem, listed, toml_problem};
pub use schema::Applies;
pub use settings::{
    Config, EtcdSettings, GroupSettings, LimitSettings, LogFormat, LogSettings, OriginKind,
    OriginSettings, PeerSettings, QueryRule, RegistryKind, RegistrySettings, Sampler,
    TraceSettings, file, seconds,
};

#[cfg(test)]
mod tests;
