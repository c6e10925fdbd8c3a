//! Single keys in etcd, for what a registration and a discovery don't cover.

use std::sync::Arc;

use etcd_client::{Client, Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse};

use crate::{
    connector::{Connector, EtcdConfig},
    endpoint::Endpoint,
    error::Result,
};

/// What a registration keeps in etcd beside its key; see [`register`](crate::expulsion::register).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordKeys {
    /// The key of the record.
    pub record: String,
    /// A key that shows that some member registered in this etcd before. The same for all.
    pub history: String,
    /// A key that exists for a lease TTL and two seconds from the first registration on, or from
    /// when one that [follows](crate::expulsion::follow) found that history was lost: those that
    /// registered before may not know it yet. The same for all.
    pub young: String,
    /// The key with the id of the cluster. The same for all.
    pub cluster: String,
}

/// Reads and writes single keys. Cheap to clone; each call is bounded by the request timeout.
///
/// ```no_run
/// # async fn example(lease: i64, revision: i64) -> gaocache_discovery::Result<()> {
/// use gaocache_discovery::{EtcdConfig, expulsion::Records};
///
/// let records = Records::new(EtcdConfig::new(["http://127.0.0.1:2379"]));
/// // Only if the member can't renew its lease any more, and has not come back meanwhile.
/// if records.has_ended(lease).await? {
///     records.delete_unchanged("greeter.roster/1", revision).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Records {
    connector: Arc<Connector>,
}

impl Records {
    /// Keys of this etcd.
    pub fn new(config: EtcdConfig) -> Self {
        Self {
            connector: Connector::new(config),
        }
    }

    /// One call to the member that answered last.
    async fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T> {
        let answer = async {
            let mut client = self.connector.reconnect().await?;
            self.connector.bounded(call(&mut client)).await
        };
        let answer = answer.await;
        if answer.is_err() {
            self.connector.move_on();
        }
        answer
    }

    /// Writes a key without a lease; returns the revision of the change.
    ///
    /// # Errors
    /// If etcd can't be reached or refuses.
    pub async fn put(&self, key: &str, value: &Endpoint) -> Result<u64> {
        let put = async |client: &mut Client| client.put(key, value.to_json(), None).await;
        let written = self.call(put).await?;
        let revision = written.header().map_or(0, |header| header.revision());
        Ok(u64::try_from(revision).unwrap_or(0))
    }

    /// Writes a key without a lease, unless there is one; returns what stands there then.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub async fn create(&self, key: &str, value: &Endpoint) -> Result<Endpoint> {
        let absent = Compare::create_revision(key, CompareOp::Equal, 0);
        let create = TxnOp::put(key, value.to_json(), None);
        let read = TxnOp::get(key, None);
        let guarded = Txn::new().when([absent]).and_then([create]).or_else([read]);
        let answer = self
            .call(async |client: &mut Client| client.txn(guarded).await)
            .await?;
        let current = answer.op_responses().into_iter().find_map(|it| match it {
            TxnOpResponse::Get(it) => Endpoint::from_stored(it.kvs().first()?.value()),
            _ => None,
        });
        Ok(current.unwrap_or_else(|| value.clone()))
    }

    /// Deletes a key, if it is there.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        let delete = async |client: &mut Client| client.delete(key, None).await;
        self.call(delete).await.map(|_| ())
    }

    /// Deletes a key if it has not changed since `revision`; false if it has.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub async fn delete_unchanged(&self, key: &str, revision: i64) -> Result<bool> {
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
        let delete = TxnOp::delete(key, None);
        let guarded = Txn::new().when([unchanged]).and_then([delete]);
        let answer = self
            .call(async |client: &mut Client| client.txn(guarded).await)
            .await?;
        Ok(answer.succeeded())
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub async fn holds(&self, key: &str) -> Result<bool> {
        let options = GetOptions::new().with_count_only();
        let counted = async |client: &mut Client| client.get(key, Some(options)).await;
        Ok(self.call(counted).await?.count() > 0)
    }

    /// Whether a lease has ended: its holder can't renew it any more.
    ///
    /// # Errors
    /// As [`Records::put`].
    pub async fn has_ended(&self, lease: i64) -> Result<bool> {
        let asked = async |client: &mut Client| client.lease_time_to_live(lease, None).await;
        let answer = self.call(asked).await?;
        // etcd counts whole seconds: with less than one left, it says zero.
        Ok(answer.ttl() < 0)
    }
}
