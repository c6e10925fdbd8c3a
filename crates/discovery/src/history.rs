//! Whether etcd has the history that was seen before, or lost it: it was emptied, or restored from
//! a backup.
//!
//! It must never take a loss for none: then those that such an etcd doesn't know would seem to have
//! left.

use std::{collections::BTreeMap, sync::Arc};

use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};

use crate::{
    connector::Connector, endpoint::Endpoint, error::Result, lease::doubt, reconcile::History,
    snapshot::KeyRange,
};

/// What was last seen of an etcd.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) cluster: u64,
    /// The highest revision that it named.
    pub(super) revision: i64,
    /// Of each range, all changes up to such a revision were seen. One may be ahead of another:
    /// each has a watch of its own.
    pub(super) complete: Vec<i64>,
}

/// What is known at [`Seen::complete`]: the keys, and their last changes.
pub(super) type Known = BTreeMap<Arc<str>, i64>;

impl Seen {
    /// Whether an etcd that shows `now` went on from there.
    ///
    /// A cluster that is restored from a backup may have the same id, and others may have written
    /// to it until its revision is past the one that was seen. So it is asked what it had at the
    /// revision that was seen. If it has compacted that, the revision and the id decide.
    ///
    /// # Errors
    /// If etcd can't be reached or refuses.
    pub(super) async fn goes_on(
        &self,
        now: &Self,
        connector: &Connector,
        client: &mut Client,
        ranges: &[KeyRange],
        known: &Known,
    ) -> Result<History> {
        if self.cluster != now.cluster || now.revision < self.revision {
            return Ok(History::Lost);
        }
        let mut had = Known::new();
        for (range, complete) in ranges.iter().zip(&self.complete) {
            let options = GetOptions::new()
                .with_range(range.end.clone())
                .with_revision(*complete);
            let got = client.get(range.from.clone(), Some(options));
            let got = match connector.bounded(got).await {
                Ok(got) => got,
                Err(error) if error.is_out_of_range() => return Ok(History::Kept),
                Err(error) => return Err(error),
            };
            let endpoints = got.kvs().iter();
            let endpoints = endpoints.filter(|it| Endpoint::from_stored(it.value()).is_some());
            had.extend(endpoints.map(|it| {
                let name = String::from_utf8_lossy(it.key());
                (Arc::from(name), it.mod_revision())
            }));
        }
        Ok(match had == *known {
            true => History::Kept,
            false => History::Lost,
        })
    }
}

/// Marks the history as young, unless somebody did so a moment ago.
///
/// # Errors
/// If etcd can't be reached or refuses.
pub(super) async fn mark_young(
    young: &str,
    connector: &Connector,
    client: &mut Client,
) -> Result<()> {
    let seconds = doubt(connector.config().lease_ttl).as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let granted = connector.bounded(client.lease_grant(seconds, None)).await?;
    let absent = Compare::create_revision(young, CompareOp::Equal, 0);
    let mark = PutOptions::new().with_lease(granted.id());
    let mark = TxnOp::put(young, Endpoint::new("young").to_json(), Some(mark));
    let marked = client.txn(Txn::new().when([absent]).and_then([mark]));
    connector.bounded(marked).await.map(drop)
}
