//! Settings: plain values, checked once, before anything starts.
//!
//! Order of precedence, later wins: defaults, platform (`POD_NAME`, `POD_IP`, host name), TOML
//! file, environment `GAOCACHE__SECTION__NAME`, flags `--set section.name=value`. No settings
//! struct may reach the core.

mod check;
pub mod load;
mod problem;
mod read;
pub mod schema;
mod settings;
mod walk;

pub use load::{InForce, Loaded, Sources, load, loopback};
pub use problem::{ConfigError, Problem};
pub use settings::{
    Config, EtcdSettings, GroupSettings, LogFormat, LogSettings, OriginKind, RegistryKind, Sampler,
    TraceSettings, seconds,
};

#[cfg(test)]
mod tests;
