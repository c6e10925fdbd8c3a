//! The task behind a registration: its sessions with etcd, and the lease.
//!
//! etcd-client does not renew leases, resume streams or detect lost keys by itself
//! (etcdv3/etcd-client#17, #48), so this task does. A session uses one etcd member. It renews the
//! lease, watches its own key, and ends at the first doubt. The next session continues with the
//! same lease if it is still alive, and repairs what is not as it should be: the key (`key`) and
//! its record (`record`).

mod end;
mod key;
mod record;
mod stored;

use std::{sync::Arc, time::Duration};

use etcd_client::{
    Client, LeaseKeepAliveResponse, LeaseKeepAliveStream, LeaseKeeper, WatchOptions, WatchStream,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use end::End;
pub(super) use stored::Record;

use super::{
    connector::Connector,
    endpoint::Endpoint,
    events::{RegistrationEvent, RegistrationStatus},
    lease::Lease,
};
use crate::{
    backoff::{FIRST_PAUSE, Pauses, last_pause},
    error::{Error, Result},
};

/// The key is read again every this many renewals, in case the watch missed a change.
const RENEWALS_PER_CHECK: u32 = 30;

pub(super) type Listener = Arc<dyn Fn(&RegistrationEvent) + Send + Sync>;

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
    /// Until when the lease under which the key was written is certainly alive.
    pub(super) registered_until: Option<Instant>,
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
        let last_pause = last_pause(self.ttl());
        let mut pauses = Pauses::new(FIRST_PAUSE, last_pause);
        loop {
            let began = Instant::now();
            let end = self.session().await;
            // After a session that lasted for a while, the next attempt follows quickly.
            if began.elapsed() > last_pause {
                pauses.reset();
            }
            match end {
                End::Stop => break,
                End::Again => {}
                End::Failed(error) => {
                    let error = error.at(self.connector.chosen());
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
        let asked_at = Instant::now();
        let granted = self.grant(client, self.ttl()).await?;
        self.lease = Some(Lease::granted(granted, self.ttl(), asked_at));
        self.acknowledge(asked_at);
        Ok(())
    }

    async fn grant(&self, client: &mut Client, ttl: Duration) -> Result<i64, End> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let granted = client.lease_grant(seconds.max(1), None);
        Ok(self.connector.bounded(granted).await?.id())
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
            Error::of_etcd(error).into()
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
            // A lease that was just granted keeps no endpoint on the list: nothing is stored under
            // it yet, and others may have taken this endpoint off the list.
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
}
