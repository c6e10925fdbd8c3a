//! The registered key: reads it, writes it under the lease, and deletes it.
//!
//! It must never fight over the key with another process, nor touch a successor's.

use etcd_client::{
    Client, Compare, CompareOp, EventType, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
    WatchResponse,
};

use super::{Keeper, Session, end::End, stored::Record};
use crate::{
    endpoint::{CLUSTER, Endpoint, PREDECESSOR},
    error::{Error, Result},
    events::{RegistrationEvent, RegistrationStatus},
    lease::Lease,
};

/// What is in etcd of ours.
struct Standing {
    key: Option<KeyValue>,
    record: Option<KeyValue>,
    /// Whether the history is marked; without records it need not be.
    marked: bool,
    /// The id of the cluster.
    cluster: Option<KeyValue>,
    revision: i64,
}

impl Keeper {
    /// Reads the key, and writes it if it is not as it should be. Returns the revision after which
    /// to watch it.
    pub(super) async fn ensure_key(&mut self, client: &mut Client) -> Result<i64, End> {
        let Standing {
            key: current,
            record,
            marked,
            cluster,
            revision,
        } = self.read(client).await?;
        let Some(lease) = self.lease else {
            return Err(End::Again);
        };
        let wanted = self.wanted.borrow_and_update().clone();
        self.stay_with_cluster(client, &wanted, cluster).await?;
        let forgot = self.has_forgotten(revision);
        if !forgot && self.is_expelled(&wanted, record.as_ref()) {
            self.expelled();
            return Ok(revision);
        }
        let reason = match self.written_under {
            None => "start",
            Some(id) if id != lease.id => "lease_lost",
            Some(_) => "key_lost",
        };
        if let Some(key) = &current {
            if key.lease() == lease.id && key.value() == self.stored(&wanted).to_json() {
                if self.status.borrow().registered.as_ref() != Some(&wanted) {
                    // By a write whose answer was lost.
                    self.written(wanted, lease, key.mod_revision(), reason);
                }
                return Ok(revision);
            }
            // Another process wrote the key after us: don't fight over it. On the first start, it
            // belongs to a predecessor, and we take over.
            if key.lease() != lease.id && self.status.borrow().superseded {
                return Ok(revision);
            }
            let ours = [Some(lease.id), self.written_under];
            if self.written_under.is_some() && !ours.contains(&Some(key.lease())) {
                self.superseded();
                return Ok(revision);
            }
        }
        if !marked {
            self.mark_history(client).await?;
        }
        self.write(client, reason).await?;
        Ok(i64::try_from(self.status.borrow().revision).unwrap_or(revision))
    }

    /// Key, record, the history's mark and the id of the cluster at one revision.
    async fn read(&self, client: &mut Client) -> Result<Standing, End> {
        let mut gets = vec![TxnOp::get(self.key.clone(), None)];
        if let Some(Record { keys, .. }) = &self.record {
            let beside = [&keys.record, &keys.history, &keys.cluster];
            gets.extend(beside.map(|key| TxnOp::get(&**key, None)));
        }
        let read = client.txn(Txn::new().and_then(gets));
        let read = self.connector.bounded(read).await?;
        let mut found = read.op_responses().into_iter().map(|part| match part {
            TxnOpResponse::Get(part) => part.kvs().first().cloned(),
            _ => None,
        });
        Ok(Standing {
            key: found.next().flatten(),
            record: found.next().flatten(),
            marked: found.next().is_none_or(|mark| mark.is_some()),
            cluster: found.next().flatten(),
            revision: read.header().map_or(0, |header| header.revision()),
        })
    }

    pub(super) async fn write(
        &mut self,
        client: &mut Client,
        reason: &'static str,
    ) -> Result<(), End> {
        if self.status.borrow().superseded && reason == "changed" {
            return Ok(());
        }
        if self.status.borrow().expelled && reason == "changed" {
            // Perhaps another incarnation: the next session reads what is there.
            return Err(End::Again);
        }
        let Some(lease) = self.lease else {
            return Err(End::Again);
        };
        let endpoint = self.wanted.borrow_and_update().clone();
        let written = client.txn(self.put(&endpoint, lease.id));
        let written = match self.connector.bounded(written).await {
            Ok(written) => written,
            Err(error) if error.is_not_found() => {
                return Err(self.lost_lease());
            }
            Err(error) => return Err(error.into()),
        };
        if !written.succeeded() {
            // The record or the cluster's id is not as we left it: the next session finds out.
            return Err(End::Again);
        }
        let revision = written.header().map_or(0, |header| header.revision());
        self.written(endpoint, lease, revision, reason);
        Ok(())
    }

    /// The endpoint has been stored under the lease since that revision, and so has its record.
    fn written(&mut self, endpoint: Endpoint, lease: Lease, revision: i64, reason: &'static str) {
        self.written_under = Some(lease.id);
        self.registered_until = Some(lease.deadline());
        if let Some(record) = &mut self.record {
            record.revision = revision;
            if record.resumes_late() {
                self.status.send_modify(|it| it.registered = Some(endpoint));
                self.expelled();
                return;
            }
        }
        self.status.send_replace(RegistrationStatus {
            registered: Some(endpoint),
            revision: u64::try_from(revision).unwrap_or(0),
            lease: lease.id,
            superseded: false,
            expelled: false,
            problem: "".into(),
        });
        let lease = lease.id;
        self.tell(&RegistrationEvent::Registered { reason, lease });
    }

    /// The endpoint as it is written: with what its record says about an earlier incarnation.
    fn stored(&self, endpoint: &Endpoint) -> Endpoint {
        let predecessor = self.record.as_ref().and_then(|it| it.predecessor.clone());
        match predecessor {
            Some(state) => endpoint.clone().with_metadata(PREDECESSOR, state),
            None => endpoint.clone(),
        }
    }

    /// Writes the key under the lease, and the record beside it if that is as we left it.
    fn put(&self, endpoint: &Endpoint, lease: i64) -> Txn {
        let options = PutOptions::new().with_lease(lease);
        let endpoint = self.stored(endpoint);
        let mut puts = vec![TxnOp::put(
            self.key.clone(),
            endpoint.to_json(),
            Some(options),
        )];
        let mut guards = Vec::new();
        if let Some(record) = &self.record {
            let copy = endpoint.clone().with_metadata("lease", lease);
            puts.push(TxnOp::put(&*record.keys.record, copy.to_json(), None));
            if record.revision != 0 {
                let as_left =
                    Compare::mod_revision(&*record.keys.record, CompareOp::Equal, record.revision);
                guards.push(as_left);
            }
            if let Some(cluster) = endpoint.text(CLUSTER) {
                let as_read = record.cluster.clone();
                let id = as_read.unwrap_or_else(|| Endpoint::new(cluster).to_json());
                guards.push(Compare::value(&*record.keys.cluster, CompareOp::Equal, id));
            }
        }
        Txn::new().when(guards).and_then(puts)
    }

    fn superseded(&self) {
        self.status.send_modify(|status| {
            status.registered = None;
            status.superseded = true;
            status.problem = format!(
                "another process registered as '{}'; ids must be distinct",
                self.key
            )
            .into();
        });
        self.tell(&RegistrationEvent::Superseded);
    }

    pub(super) async fn key_changed(
        &mut self,
        session: &mut Session,
        answer: Result<Option<WatchResponse>, etcd_client::Error>,
    ) -> Result<(), End> {
        let answer = Error::in_stream(answer, "the watch")?;
        if answer.canceled() {
            // Compacted or rejected: the next session reads the key.
            return Err(End::Again);
        }
        let Some(last) = answer.events().last() else {
            return Ok(());
        };
        let ours = self.lease.map(|lease| lease.id);
        match last.event_type() {
            // Deleted manually, or together with the lease of a process that superseded us. If our
            // own lease is gone, the write fails and says so.
            EventType::Delete => self.write(&mut session.client, "key_lost").await,
            EventType::Put => {
                if last.kv().is_some_and(|key| Some(key.lease()) != ours) {
                    self.superseded();
                }
                Ok(())
            }
        }
    }

    /// Deletes the key if it still belongs to our lease, and revokes the lease. A successor's key
    /// is never touched.
    pub(super) async fn deregister(&mut self) -> Result<Option<u64>> {
        let Some(lease) = self.lease.take() else {
            return Ok(None);
        };
        // Each attempt uses another member. If all fail, the lease expires by itself.
        let attempts = self.connector.config().endpoints.len().max(2);
        let mut last = Ok(None);
        for _ in 0..attempts {
            last = self.revoke(lease.id).await;
            if last.is_ok() {
                self.status.send_modify(|status| status.registered = None);
                break;
            }
        }
        last
    }

    async fn revoke(&self, lease: i64) -> Result<Option<u64>> {
        let mut client = self.connector.connect().await?;
        let still_ours = Compare::lease(self.key.clone(), CompareOp::Equal, lease);
        let mut guards = vec![still_ours];
        let mut deletes = vec![TxnOp::delete(self.key.clone(), None)];
        if let Some(record) = &self.record {
            let as_left =
                Compare::mod_revision(&*record.keys.record, CompareOp::Equal, record.revision);
            guards.push(as_left);
            deletes.push(TxnOp::delete(&*record.keys.record, None));
        }
        let guarded = Txn::new().when(guards).and_then(deletes);
        let deleted = self.connector.bounded(client.txn(guarded)).await?;
        let revision = deleted.header().map(|header| header.revision());
        match self.connector.bounded(client.lease_revoke(lease)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(revision.and_then(|revision| u64::try_from(revision).ok())),
        }
    }
}
