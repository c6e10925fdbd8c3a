//! The record of a registration: the copy of the endpoint that outlives the lease. By it, others
//! take a member that vanished off the list; one that finds its record gone was expelled.
//!
//! An etcd that lost its data has no records. So the first to register there marks the history as
//! young for one lease TTL: until then, some that registered before may rely on leases that this
//! etcd doesn't know.

use etcd_client::{Client, Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use tokio::time::Instant;

use super::{Keeper, end::End, stored::Record};
use crate::{
    endpoint::{CLUSTER, Endpoint, IDENTITY, PREDECESSOR},
    error::{Error, ErrorKind},
    events::RegistrationEvent,
    lease::doubt,
};

/// What a record says about its state; one that never got further than joining passes on what it
/// had itself from before.
fn predecessor(record: &Endpoint) -> Option<String> {
    match record.text("state") {
        Some("joining") | None => record.text(PREDECESSOR).map(str::to_owned),
        Some(state) => Some(state.to_owned()),
    }
}

impl Keeper {
    /// Whether etcd lost its data, while no other can have deleted the record before: our lease
    /// would still have been alive. Then everything is written anew.
    pub(super) fn has_forgotten(&mut self, revision: i64) -> bool {
        let lives = self.registered_until.filter(|it| Instant::now() < *it);
        match &mut self.record {
            Some(record) if lives.is_some() && revision < record.revision => {
                record.revision = 0;
                record.resumes_until = lives;
                true
            }
            _ => false,
        }
    }

    /// Marks the history as young, unless that was done before. Comes before the key is written: a
    /// member that sees its own key on the list then sees the mark as well, for as long as it
    /// lasts.
    pub(super) async fn mark_history(&mut self, client: &mut Client) -> Result<(), End> {
        let lease = self.grant(client, doubt(self.ttl())).await?;
        let Some(Record { keys, .. }) = &self.record else {
            return Ok(());
        };
        let unmarked = Compare::create_revision(&*keys.history, CompareOp::Equal, 0);
        let mark = |what| Endpoint::new(what).to_json();
        let young = PutOptions::new().with_lease(lease);
        let marks = [
            TxnOp::put(&*keys.history, mark("history"), None),
            TxnOp::put(&*keys.young, mark("young"), Some(young)),
        ];
        let marked = client.txn(Txn::new().when([unmarked]).and_then(marks));
        self.connector.bounded(marked).await?;
        Ok(())
    }

    /// Makes sure that what is written next stands beside the id of the endpoint's own cluster.
    /// Each write is guarded by it, so whoever registers has left its id in an etcd that lost its
    /// data, before others may found another cluster there.
    pub(super) async fn stay_with_cluster(
        &mut self,
        client: &mut Client,
        wanted: &Endpoint,
        current: Option<KeyValue>,
    ) -> Result<(), End> {
        let (Some(record), Some(ours)) = (&mut self.record, wanted.text(CLUSTER)) else {
            return Ok(());
        };
        let read = |it: &KeyValue| {
            Some((
                Endpoint::from_stored(it.value())?.address,
                it.value().to_vec(),
            ))
        };
        let Some((theirs, value)) = current.as_ref().and_then(read) else {
            // There is none, or something that is no id.
            let revision = current.map_or(0, |it| it.mod_revision());
            let id = Endpoint::new(ours).to_json();
            let unchanged =
                Compare::mod_revision(&*record.keys.cluster, CompareOp::Equal, revision);
            let put = TxnOp::put(&*record.keys.cluster, id.clone(), None);
            record.cluster = Some(id);
            let written = client.txn(Txn::new().when([unchanged]).and_then([put]));
            self.connector.bounded(written).await?;
            return Ok(());
        };
        if &*theirs == ours {
            record.cluster = Some(value);
            return Ok(());
        }
        let why = format!("the cluster in etcd is '{theirs}', and this endpoint is of '{ours}'");
        Err(Error::new(ErrorKind::Conflict, why).into())
    }

    /// Whether the record that we wrote is gone or another's. Notes its revision otherwise: a write
    /// whose answer was lost may have changed it.
    pub(super) fn is_expelled(&mut self, wanted: &Endpoint, current: Option<&KeyValue>) -> bool {
        let Some(record) = &mut self.record else {
            return false;
        };
        let stored = current.and_then(|it| Endpoint::from_stored(it.value()));
        let identity = stored.as_ref().and_then(|it| it.text(IDENTITY));
        let ours = identity.is_some() && identity == wanted.text(IDENTITY);
        if ours {
            record.revision = current.map_or(0, KeyValue::mod_revision);
            return false;
        }
        // Written before, and not of an incarnation that the caller has given up meanwhile.
        let registered = self.status.borrow().registered.clone();
        let same_life = registered.is_some_and(|it| it.text(IDENTITY) == wanted.text(IDENTITY));
        if !same_life {
            record.revision = 0;
            record.predecessor = stored.as_ref().and_then(predecessor);
            record.resumes_until = None;
            self.written_under = None;
        }
        same_life
    }

    pub(super) fn expelled(&self) {
        let known = self.status.borrow().expelled;
        if known {
            return;
        }
        self.status.send_modify(|status| {
            status.expelled = true;
            status.problem = "others took this node off the list".into();
        });
        self.tell(&RegistrationEvent::Expelled);
    }
}
