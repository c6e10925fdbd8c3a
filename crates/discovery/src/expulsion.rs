//! For services whose members must agree on who is a member: how a member that vanished is
//! permanently taken off the list.
//!
//! Plain registration and discovery don't need it: there, an endpoint is gone when its lease has
//! ended, and comes back when its process does. That is not enough if the others may only go on
//! without a member once it is certain that this member knows so itself. For them:
//!
//! - A member [registers with a record](register): a copy of its endpoint without a lease. When its
//!   key goes and its record stays, the member has *vanished*; it may still run.
//! - The others agree, in a way of their own, to go on without it. They wait until
//!   [its lease has ended](Records::has_ended), and [delete its record](Records::delete_unchanged),
//!   unless it has changed meanwhile: then the member is back.
//! - A member whose record was deleted sees [`RegistrationStatus::expelled`], and writes nothing
//!   any more until its endpoint has another [`IDENTITY`].
//! - A member whose endpoint names a [`CLUSTER`] is written only where that is the cluster's id in
//!   etcd. If etcd has none, as after a loss of its data, the member writes it back.
//!
//! - An etcd that lost its data, or went back to a backup, may not know some of those that still
//!   rely on it. Whoever [follows](follow) the members marks it as [young](RecordKeys::young)
//!   then, and nobody new may count as a member as long as [the mark is there](Records::holds).
//!
//! [`RegistrationStatus::expelled`]: crate::RegistrationStatus::expelled

use crate::{
    connector::EtcdConfig,
    discovery::Discovery,
    endpoint::Endpoint,
    events::RegistrationEvent,
    registration::Registration,
    snapshot::{DiscoveryEvent, KeyRange},
};

pub use crate::{
    endpoint::{CLUSTER, IDENTITY, PREDECESSOR},
    records::{RecordKeys, Records},
};

/// As [`Registration::start_after`], with a record beside the key: a copy of the endpoint without a
/// lease. Key and record are written, and deleted at the end, in one transaction.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use gaocache_discovery::{Endpoint, EtcdConfig, expulsion};
///
/// let keys = expulsion::RecordKeys {
///     record: "greeter.roster/1".into(),
///     history: "greeter.history".into(),
///     young: "greeter.young".into(),
///     cluster: "greeter.cluster".into(),
/// };
/// let (etcd, me) = (EtcdConfig::new(["http://127.0.0.1:1"]), Endpoint::new("10.0.0.7:50051"));
/// let at_once = std::future::ready(());
/// let registration = expulsion::register(etcd, "greeter/1", keys, me, at_once, |_| {});
/// assert!(!registration.status().borrow().expelled);
/// # }
/// ```
pub fn register(
    config: EtcdConfig,
    key: impl Into<String>,
    records: RecordKeys,
    endpoint: Endpoint,
    begin: impl Future<Output = ()> + Send + 'static,
    listener: impl Fn(&RegistrationEvent) + Send + Sync + 'static,
) -> Registration {
    Registration::start_recorded(config, key, Some(records), endpoint, begin, listener)
}

/// As [`Discovery::start_ranges`] with one range. Where etcd has lost history that was seen before,
/// the key `young` is put for the lease's time to live and two seconds, and only then the new list
/// is published.
pub fn follow(
    config: EtcdConfig,
    range: KeyRange,
    young: impl Into<String>,
    listener: impl Fn(&DiscoveryEvent) + Send + Sync + 'static,
) -> Discovery {
    Discovery::start_marking(config, [range], Some(young.into()), listener)
}
