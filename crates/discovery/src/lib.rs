//! Registration and discovery of services in etcd, for use with or without the cache.
//!
//! - [`Registration`] keeps an endpoint under a lease. It renews the lease, restores the key if the
//!   lease or the key is lost, and deletes only its own key.
//! - [`Discovery`] lists one or more prefixes, follows changes, and keeps the last known list while
//!   etcd is unreachable.
//! - [`BalancedChannel`] is a tonic channel over a discovery. It sends each request to an endpoint
//!   that is ready.
//! - [`expulsion`] is for services whose members must agree on who is a member. The others don't
//!   need it.
//!
//! Keys and values have the format of Go's `go.etcd.io/etcd/client/v3/naming/endpoints`, so Go
//! clients find what is registered here, and the other way round.
//!
//! ```no_run
//! # async fn example() -> gaocache_discovery::Result<()> {
//! use gaocache_discovery::{
//!     BalancedChannel, Discovery, Endpoint, EtcdConfig, Picker, Registration,
//! };
//!
//! let etcd = EtcdConfig::new(["http://127.0.0.1:2379"]);
//! // A server: registered until `close`.
//! let me = Endpoint::new("10.0.0.7:50051").with_metadata("version", "1.4");
//! let registration = Registration::start(etcd.clone(), "greeter/10.0.0.7:50051", me);
//! // A client: a channel for any generated tonic client.
//! let discovery = Discovery::start(etcd, ["greeter/"]);
//! let channel = BalancedChannel::new(discovery, Picker::RoundRobin);
//! # drop(channel);
//! registration.close().await?;
//! # Ok(())
//! # }
//! ```

mod backoff;
mod channel;
mod connector;
mod discovery;
mod endpoint;
mod error;
mod events;
pub mod expulsion;
mod follower;
mod history;
mod keeper;
mod lease;
mod options;
mod pick;
mod pool;
#[doc(hidden)]
pub mod reconcile;
mod records;
mod registration;
mod snapshot;

pub use channel::{BalancedChannel, HASH_KEY_HEADER};
pub use connector::{Credentials, EtcdConfig, TlsFiles};
pub use discovery::Discovery;
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind, Result};
pub use events::{RegistrationEvent, RegistrationStatus};
pub use options::ChannelOptions;
pub use pick::{Canary, Picker};
pub use registration::Registration;
pub use snapshot::{DiscoveryEvent, KeyRange, Snapshot};

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
