//! The task behind a registration.
//!
//! etcd-client does not renew leases, resume streams or detect lost keys by itself
//! (etcdv3/etcd-client#17, #48), so this task does. A session uses one etcd member. It renews the
//! lease, watches its own key, and ends at the first doubt. The next session continues with the
//! same lease if it is still alive, and repairs what is not as it should be.

use std::{sync::Arc, time::Duration};

use etcd_client::{
    Client, Compare, CompareOp, EventType, LeaseKeepAliveResponse, LeaseKeepAliveStream,
    LeaseKeeper, PutOptions, Txn, TxnOp, WatchOptions, WatchResponse, WatchStream,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    connector::Connector,
    endpoint::Endpoint,
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
        let read = self
            .connector
            .bounded(client.get(self.key.clone(), None))
            .await?;
        let revision = read.header().map_or(0, |header| header.revision());
        let Some(lease) = self.lease else {
            return Err(End::Again);
        };
        let standing = read.kvs().first();
        let wanted = self.wanted.borrow_and_update().clone();
        if let Some(key) = standing {
            if key.lease() == lease.id && key.value() == wanted.to_json() {
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

    async fn write(&mut self, client: &mut Client, reason: &'static str) -> Result<(), End> {
        if self.status.borrow().superseded && reason == "changed" {
            return Ok(());
        }
        let Some(lease) = self.lease else {
            return Err(End::Again);
        };
        let endpoint = self.wanted.borrow_and_update().clone();
        let options = PutOptions::new().with_lease(lease.id);
        let put = client.put(self.key.clone(), endpoint.to_json(), Some(options));
        let written = match self.connector.bounded(put).await {
            Ok(written) => written,
            Err(error) if error.is_not_found() => {
                return Err(self.lost_lease());
            }
            Err(error) => return Err(error.into()),
        };
        self.written_under = Some(lease.id);
        let revision = written.header().map_or(0, |header| header.revision());
        self.status.send_replace(RegistrationStatus {
            registered: Some(endpoint),
            revision: u64::try_from(revision).unwrap_or(0),
            superseded: false,
            problem: "".into(),
        });
        self.tell(&RegistrationEvent::Registered { reason });
        Ok(())
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
            let left = lease.deadline().saturating_duration_since(Instant::now());
            self.tell(&RegistrationEvent::Renewed { left });
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
        let delete = TxnOp::delete(self.key.clone(), None);
        let guarded = Txn::new().when([still_ours]).and_then([delete]);
        let deleted = self.connector.bounded(client.txn(guarded)).await?;
        let revision = deleted.header().map(|header| header.revision());
        match self.connector.bounded(client.lease_revoke(lease)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(revision.and_then(|revision| u64::try_from(revision).ok())),
        }
    }
}
