//! Takes a member off the list because an operator says that it will never come back: one that
//! vanished while too few others were left to expel it, or whose key hangs on no lease.
//!
//! The lease decides, as for an expulsion: while it is alive, the member may come back under it.

use super::{error::registry_error, keys::Keys};
use gaocache_core::{error::Result, membership::Member};
use gaocache_discovery::{EtcdConfig, expulsion::Records};

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It is off the list.
    Yes,
    /// Its lease has not ended.
    LeaseLives,
    /// Somebody has changed its key meanwhile.
    Changed,
}

/// Takes `member`, as it was seen in etcd, off the list.
///
/// # Errors
/// If etcd can't be reached or refuses.
pub async fn forget(etcd: &EtcdConfig, keys: &Keys, member: &Member) -> Result<Forgotten> {
    let records = Records::new(etcd.clone());
    if member.lease != 0 {
        let ended = records.has_ended(member.lease).await;
        if !ended.map_err(registry_error)? {
            return Ok(Forgotten::LeaseLives);
        }
    }
    let prefix = if member.vanished {
        &keys.roster
    } else {
        &keys.members
    };
    let key = format!("{prefix}{}", member.id);
    let deleted = records.delete_unchanged(&key, member.recorded_at).await;
    // A record beside a key without a lease stays: it names a lease of its own.
    Ok(match deleted.map_err(registry_error)? {
        true => Forgotten::Yes,
        false => Forgotten::Changed,
    })
}
