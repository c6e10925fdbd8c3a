//! Keeps one key in etcd under a lease. This is the user-facing part; the work is in
//! [`super::keeper`].

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    connector::{Connector, EtcdConfig},
    endpoint::Endpoint,
    events::{RegistrationEvent, RegistrationStatus},
    keeper::{Keeper, Record},
    records::RecordKeys,
};
use crate::error::{Error, ErrorKind, Result};

/// A key that is kept in etcd until [`Registration::close`]. If it is dropped without `close`, the
/// key disappears when its lease expires.
///
/// ```no_run
/// # async fn example() -> gaocache_discovery::Result<()> {
/// use gaocache_discovery::{Endpoint, EtcdConfig, Registration};
///
/// let etcd = EtcdConfig::new(["http://127.0.0.1:2379"]);
/// let me = Endpoint::new("10.0.0.7:50051").with_metadata("state", "serving");
/// let registration = Registration::start(etcd, "greeter/10.0.0.7:50051", me);
/// // Before it stops, a server says so, and clients turn to others.
/// registration
///     .update(|me| drop(me.metadata.insert("state".into(), "draining".into())))
///     .await?;
/// registration.close().await?;
/// # Ok(())
/// # }
/// ```
pub struct Registration {
    updates: watch::Sender<Endpoint>,
    status: watch::Receiver<RegistrationStatus>,
    stop: CancellationToken,
    task: JoinHandle<Result<Option<u64>>>,
}

impl Registration {
    /// Registers `endpoint` at `key` and keeps it there. Returns immediately;
    /// [`Registration::status`] shows when it is registered.
    pub fn start(config: EtcdConfig, key: impl Into<String>, endpoint: Endpoint) -> Self {
        Self::start_after(config, key, endpoint, std::future::ready(()), |_| {})
    }

    /// As [`Registration::start`], but begins when `begin` resolves, and calls `listener` for each
    /// event.
    pub fn start_after(
        config: EtcdConfig,
        key: impl Into<String>,
        endpoint: Endpoint,
        begin: impl Future<Output = ()> + Send + 'static,
        listener: impl Fn(&RegistrationEvent) + Send + Sync + 'static,
    ) -> Self {
        Self::start_recorded(config, key, None, endpoint, begin, listener)
    }

    /// The same, with a record beside the key; see [`register`](crate::expulsion::register).
    pub(crate) fn start_recorded(
        config: EtcdConfig,
        key: impl Into<String>,
        record: Option<RecordKeys>,
        endpoint: Endpoint,
        begin: impl Future<Output = ()> + Send + 'static,
        listener: impl Fn(&RegistrationEvent) + Send + Sync + 'static,
    ) -> Self {
        let (updates, wanted) = watch::channel(endpoint);
        let (status_sender, status) = watch::channel(RegistrationStatus::default());
        let stop = CancellationToken::new();
        let keeper = Keeper {
            connector: Connector::new(config),
            key: key.into(),
            wanted,
            status: status_sender,
            stop: stop.clone(),
            listener: Arc::new(listener),
            lease: None,
            written_under: None,
            record: record.map(Record::new),
            registered_until: None,
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = keeper.stop.cancelled() => return Ok(None),
                () = begin => {}
            }
            keeper.run().await
        });
        Self {
            updates,
            status,
            stop,
            task,
        }
    }

    /// The current status, and every later one.
    pub fn status(&self) -> watch::Receiver<RegistrationStatus> {
        self.status.clone()
    }

    /// Changes what is registered. Resolves when the change is stored in etcd.
    ///
    /// # Errors
    /// If the registration has ended, or another process holds the key.
    pub async fn update(&self, change: impl FnOnce(&mut Endpoint)) -> Result<u64> {
        self.updates.send_modify(change);
        let wanted = self.updates.borrow().clone();
        let mut status = self.status.clone();
        let written = status
            .wait_for(|it| it.superseded || it.expelled || it.registered.as_ref() == Some(&wanted))
            .await;
        match written {
            Ok(status) if status.expelled => Err(Error::new(
                ErrorKind::Conflict,
                "others took this endpoint off the list",
            )),
            Ok(status) if status.superseded => {
                Err(Error::new(ErrorKind::Conflict, &*status.problem))
            }
            Ok(status) => Ok(status.revision),
            Err(_) => Err(Error::unavailable("the registration has ended")),
        }
    }

    /// Deletes the key, if it is still ours, and revokes the lease. Returns etcd's revision at that
    /// moment, or `None` if nothing was registered.
    ///
    /// # Errors
    /// If etcd could not be reached. The key then disappears when its lease expires.
    pub async fn close(self) -> Result<Option<u64>> {
        self.stop.cancel();
        match self.task.await {
            Ok(closed) => closed,
            Err(error) => {
                Err(Error::unavailable("the registration task panicked").with_source(error))
            }
        }
    }
}
