//! The task behind a registration.
//!
//! etcd-client does not renew leases, resume streams or detect lost keys by itself
//! (etcdv3/etcd-client#17, #48), so this task does. A session uses one etcd member. It renews the
//! lease, watches its own key, and ends at the first doubt. The next session continues with the
//! same lease if it is still alive, and repairs what is not as it should be.

use std::{sync::Arc, time::Duration};

use etcd_client::{
    Client, Compare, CompareOp, EventType, KeyValue, LeaseKeepAliveResponse, LeaseKeepAliveStream,
    LeaseKeeper, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchResponse, WatchStream,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    connector::Connector,
    endpoint::{Endpoint, IDENTITY, PREDECESSOR},
    events::{RegistrationEvent, RegistrationStatus},
    lease::Lease,
};
use crate::{
    backoff::Pauses,
    error::{Error, Result},
};

/// Delays between sessions. The last one is well below the shortest lease.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LAST_PAUSE: Duration = Duration::from_secs(2);
/// The key is read again every this many renewals, in case the watch missed a change.
const RENEWALS_PER_CHECK: u32 = 30;

pub(super) type Listener = Arc<dyn Fn(&RegistrationEvent) + Send + Sync>;

/// Why a session ended.
enum End {
    Stop,
    /// Something must be repaired immediately, in a new session.
    Again,
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The task behind a registration.
pub(super) struct Keeper {
    pub(super) connector: Arc<Connector>,
    pub(super) key: String,
    pub(super) wanted: watch::Receiver<Endpoint>,
    pub(super) status: watch::Sender<RegistrationStatus>,
    pub(super) stop: CancellationToken,
    pub(super) listener: Listener,
    pub(super) lease: Option<Lease>,
    /// The lease under which the key was last written. It determines the reason for writing it
    /// again.
    pub(super) written_under: Option<i64>,
    pub(super) record: Option<Record>,
    /// Until when the lease under which the key was written surely lives.
    pub(super) registered_until: Option<Instant>,
}

/// The copy of the endpoint that outlives the lease.
pub(super) struct Record {
    pub(super) key: String,
    /// Its last change as we know it; 0: not yet written.
    revision: i64,
    /// What the record of an earlier life, which this one replaced, said of its state.
    predecessor: Option<String>,
}

impl Record {
    pub(super) fn new(key: String) -> Self {
        Self {
            key,
            revision: 0,
            predecessor: None,
        }
    }
}

/// What a record says of its state; one that never got further than joining hands on what it had
/// itself from before.
fn predecessor(record: &Endpoint) -> Option<String> {
    match record.text("state") {
        Some("joining") | None => record.text(PREDECESSOR).map(str::to_owned),
        Some(state) => Some(state.to_owned()),
    }
}

/// What stands in etcd of ours.
struct Standing {
    key: Option<KeyValue>,
    record: Option<KeyValue>,
    revision: i64,
}

/// The streams of a session.
struct Session {
    client: Client,
    keeper: LeaseKeeper,
    renewals: LeaseKeepAliveStream,
    watch: WatchStream,
    /// When the pending renewal was sent.
    asked_at: Option<Instant>,
    since_check: u32,
}

impl Keeper {
    pub(super) async fn run(mut self) -> Result<Option<u64>> {
        let mut pauses = Pauses::new(FIRST_PAUSE, LAST_PAUSE);
        loop {
            let began = Instant::now();
            let end = self.session().await;
            // After a session that lasted for a while, the next attempt follows quickly.
            if began.elapsed() > LAST_PAUSE {
                pauses.reset();
            }
            match end {
                End::Stop => break,
                End::Again => {}
                End::Failed(error) => {
                    self.tell(&RegistrationEvent::Disconnected {
                        cause: error.to_string(),
                    });
                    self.status
                        .send_modify(|status| status.problem = error.message().into());
                }
            }
            let pause = pauses.next();
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.deregister().await
    }

    fn tell(&self, event: &RegistrationEvent) {
        (self.listener)(event);
    }

    async fn session(&mut self) -> End {
        let stop = self.stop.clone();
        let opened = tokio::select! {
            () = stop.cancelled() => return End::Stop,
            opened = self.open() => opened,
        };
        let mut session = match opened {
            Ok(session) => session,
            Err(end) => return end,
        };
        let mut ticks = tokio::time::interval(Lease::renewal_interval(self.ttl()));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            let step = tokio::select! {
                () = self.stop.cancelled() => return End::Stop,
                _ = ticks.tick() => self.renew(&mut session).await,
                answer = session.renewals.message() => self.renewed(&mut session, answer),
                answer = session.watch.message() => self.key_changed(&mut session, answer).await,
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.write(&mut session.client, "changed").await,
                    // The registration was dropped without `close`. Let the lease expire.
                    Err(_) => return End::Stop,
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn ttl(&self) -> Duration {
        self.connector.config().lease_ttl
    }

    /// Opens a connection, makes sure that the lease is alive and the key is correct, and opens the
    /// streams that keep them so.
    async fn open(&mut self) -> Result<Session, End> {
        let mut client = self.connector.connect().await?;
        self.ensure_lease(&mut client).await?;
        let from = self.ensure_key(&mut client).await?;
        let Some(lease) = self.lease else {
            return Err(End::Again);
        };
        self.tell(&RegistrationEvent::Renewing);
        let asked_at = Instant::now();
        let kept = self
            .connector
            .bounded(client.lease_keep_alive(lease.id))
            .await;
        let (keeper, renewals) = match kept {
            Ok(streams) => streams,
            Err(error) if error.is_keep_alive() && self.is_gone(&mut client, lease.id).await? => {
                return Err(self.lost_lease());
            }
            Err(error) => return Err(error.into()),
        };
        self.acknowledge(asked_at);
        let options = WatchOptions::new().with_start_revision(from + 1);
        let watch = client.watch(self.key.clone(), Some(options));
        let watch = self.connector.bounded(watch).await?;
        self.status.send_modify(|status| status.problem = "".into());
        Ok(Session {
            client,
            keeper,
            renewals,
            watch,
            asked_at: None,
            since_check: 0,
        })
    }

    /// Whether the lease no longer exists in etcd.
    async fn is_gone(&self, client: &mut Client, lease: i64) -> Result<bool, End> {
        let asked = client.lease_time_to_live(lease, None);
        let answer = self.connector.bounded(asked).await?;
        Ok(answer.ttl() <= 0)
    }

    async fn ensure_lease(&mut self, client: &mut Client) -> Result<(), End> {
        if self
            .lease
            .is_some_and(|lease| !lease.may_have_ended(Instant::now()))
        {
            return Ok(());
        }
        let ttl = self.ttl();
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let asked_at = Instant::now();
        let granted = self
            .connector
            .bounded(client.lease_grant(seconds, None))
            .await?;
        self.lease = Some(Lease::granted(granted.id(), ttl, asked_at));
        self.acknowledge(asked_at);
        Ok(())
    }

    /// Reads the key, and writes it if it is not as it should be. Returns the revision after which
    /// to watch it.
    async fn ensure_key(&mut self, client: &mut Client) -> Result<i64, End> {
        let Standing {
            key: standing,
            record,
            revision,
        } = self.read(client).await?;
        let Some(lease) = self.lease else {
            return Err(End::Again);
        };
        let wanted = self.wanted.borrow_and_update().clone();
        let forgot = self.has_forgotten(revision);
        if !forgot && self.is_expelled(&wanted, record.as_ref()) {
            self.expelled();
            return Ok(revision);
        }
        if let Some(key) = &standing {
            if key.lease() == lease.id && key.value() == self.stored(&wanted).to_json() {
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
        let reason = match self.written_under {
            None => "start",
            Some(id) if id != lease.id => "lease_lost",
            Some(_) => "key_lost",
        };
        self.write(client, reason).await?;
        Ok(i64::try_from(self.status.borrow().revision).unwrap_or(revision))
    }

    /// Key and record at one revision.
    async fn read(&self, client: &mut Client) -> Result<Standing, End> {
        let mut gets = vec![TxnOp::get(self.key.clone(), None)];
        gets.extend(
            self.record
                .iter()
                .map(|it| TxnOp::get(it.key.clone(), None)),
        );
        let read = client.txn(Txn::new().and_then(gets));
        let read = self.connector.bounded(read).await?;
        let mut found = read.op_responses().into_iter().map(|part| match part {
            TxnOpResponse::Get(part) => part.kvs().first().cloned(),
            _ => None,
        });
        Ok(Standing {
            key: found.next().flatten(),
            record: found.next().flatten(),
            revision: read.header().map_or(0, |header| header.revision()),
        })
    }

    /// Whether etcd lost its data, while nobody can have taken the record away before: our lease
    /// would have lived on. Then everything is written anew.
    fn has_forgotten(&mut self, revision: i64) -> bool {
        let lives = self
            .registered_until
            .is_some_and(|until| Instant::now() < until);
        match &mut self.record {
            Some(record) if lives && revision < record.revision => {
                record.revision = 0;
                true
            }
            _ => false,
        }
    }

    /// Whether the record that we wrote is gone or another's. Notes where it stands otherwise: a
    /// write whose answer was lost may have changed it.
    fn is_expelled(&mut self, wanted: &Endpoint, standing: Option<&KeyValue>) -> bool {
        let Some(record) = &mut self.record else {
            return false;
        };
        let stored = standing.and_then(|it| Endpoint::from_stored(it.value()));
        let identity = stored.as_ref().and_then(|it| it.text(IDENTITY));
        let ours = identity.is_some() && identity == wanted.text(IDENTITY);
        if ours {
            record.revision = standing.map_or(0, KeyValue::mod_revision);
            return false;
        }
        // Written before, and not of a life that the caller has given up meanwhile.
        let registered = self.status.borrow().registered.clone();
        let same_life = registered.is_some_and(|it| it.text(IDENTITY) == wanted.text(IDENTITY));
        if !same_life {
            record.revision = 0;
            record.predecessor = stored.as_ref().and_then(predecessor);
            self.written_under = None;
        }
        same_life
    }

    fn expelled(&self) {
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

    async fn write(&mut self, client: &mut Client, reason: &'static str) -> Result<(), End> {
        if self.status.borrow().superseded && reason == "changed" {
            return Ok(());
        }
        if self.status.borrow().expelled && reason == "changed" {
            // Perhaps another life: the next session reads what stands.
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
            // The record is not as we left it: the next session finds out.
            return Err(End::Again);
        }
        self.written_under = Some(lease.id);
        self.registered_until = Some(lease.deadline());
        let revision = written.header().map_or(0, |header| header.revision());
        if let Some(record) = &mut self.record {
            record.revision = revision;
        }
        self.status.send_replace(RegistrationStatus {
            registered: Some(endpoint),
            revision: u64::try_from(revision).unwrap_or(0),
            superseded: false,
            expelled: false,
            problem: "".into(),
        });
        self.tell(&RegistrationEvent::Registered { reason });
        Ok(())
    }

    /// The endpoint as it is written: with what its record says of an earlier life.
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
            puts.push(TxnOp::put(record.key.clone(), copy.to_json(), None));
            if record.revision != 0 {
                let as_left =
                    Compare::mod_revision(record.key.clone(), CompareOp::Equal, record.revision);
                guards.push(as_left);
            }
        }
        Txn::new().when(guards).and_then(puts)
    }

    async fn renew(&mut self, session: &mut Session) -> Result<(), End> {
        if session.asked_at.is_some() {
            self.tell(&RegistrationEvent::RenewalFailed);
            return Err(Error::unavailable("a lease renewal was not answered").into());
        }
        session.since_check += 1;
        if session.since_check >= RENEWALS_PER_CHECK {
            session.since_check = 0;
            self.ensure_key(&mut session.client).await?;
        }
        self.tell(&RegistrationEvent::Renewing);
        session.asked_at = Some(Instant::now());
        let asked = session.keeper.keep_alive().await;
        asked.map_err(|error| {
            self.tell(&RegistrationEvent::RenewalFailed);
            Error::from(error).into()
        })
    }

    fn renewed(
        &mut self,
        session: &mut Session,
        answer: Result<Option<LeaseKeepAliveResponse>, etcd_client::Error>,
    ) -> Result<(), End> {
        match Error::in_stream(answer, "the stream of lease renewals") {
            Ok(answer) if answer.ttl() <= 0 => Err(self.lost_lease()),
            Ok(_) => {
                if let Some(asked_at) = session.asked_at.take() {
                    self.acknowledge(asked_at);
                }
                Ok(())
            }
            Err(error) => {
                self.tell(&RegistrationEvent::RenewalFailed);
                Err(error.into())
            }
        }
    }

    fn acknowledge(&mut self, asked_at: Instant) {
        if let Some(lease) = &mut self.lease {
            lease.renewed(asked_at);
            // A lease that was just granted keeps nobody on the list: nothing stands under it yet,
            // and others may have taken this endpoint off the list.
            if self.written_under != Some(lease.id) {
                return;
            }
            self.registered_until = Some(lease.deadline());
            let left = lease.deadline().saturating_duration_since(Instant::now());
            let ttl = lease.ttl();
            self.tell(&RegistrationEvent::Renewed { ttl, left });
        }
    }

    fn lost_lease(&mut self) -> End {
        self.lease = None;
        self.tell(&RegistrationEvent::LeaseLost);
        End::Again
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

    async fn key_changed(
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
    async fn deregister(&mut self) -> Result<Option<u64>> {
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
                Compare::mod_revision(record.key.clone(), CompareOp::Equal, record.revision);
            guards.push(as_left);
            deletes.push(TxnOp::delete(record.key.clone(), None));
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
