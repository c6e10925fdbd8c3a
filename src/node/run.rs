//! The life of a node: register, serve, drain, stop.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    Node, descriptors,
    parts::{Joined, Stops},
    probes::{Doors, Probes},
    serve::Served,
    worker::Workers,
};
use crate::http;
use gaocache_core::{copy_queue::QueuedKeys, error::Result};

impl Node {
    /// Registers, serves until `shutdown` resolves, drains, and returns when the last connection is
    /// closed or the time for it is over.
    ///
    /// # Errors
    /// Only failures to start: a thread could not be started, or the id is taken.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        self.run_and_drain(shutdown).await.map(drop)
    }

    /// As [`Node::run`]. Returns true if the drain finished in time: all entries were handed over,
    /// and the registration is gone.
    ///
    /// # Errors
    /// As [`Node::run`].
    pub(crate) async fn run_and_drain(self, shutdown: impl Future<Output = ()>) -> Result<bool> {
        let (parts, stops) = (self.parts.clone(), self.stops.clone());
        let control = Handle::current();
        parts.metrics.runtimes.watch("control", control.metrics());
        let limits = &self.limits.clients;
        let admission = self.admission.clone();
        let workers = self.start_workers()?;
        let session = self.registry.join(self.me.clone()).await?;
        let joined = Joined {
            parts,
            session: Arc::from(session),
            me: self.me.clone(),
        };
        joined.parts.standing.joined(joined.session.clone());
        self.tell_addresses();
        let mut listeners = self.listeners;
        let (admin, stop) = (listeners.admin.take(), stops.admin.clone());
        let doors = Doors {
            listener: admin,
            tls: self.tls.admin,
            socket: listeners.socket.take(),
            front: self.front.clone(),
            hosts: self.hosts.admin.clone(),
        };
        let metrics = &joined.parts.metrics;
        let probes = Probes::start(doors, self.admin, limits, metrics, stop)?;
        let open = listeners.open(workers.dispatcher(), &admission, &stops.reads)?;
        let tasks = Tasks::start(&joined, self.lease, self.queued_copies, &stops);
        let following = tokio::spawn(self.permissions.clone().follow(stops.admin.clone()));

        let taken = tokio::select! {
            () = shutdown => Ok(()),
            Err(taken) = joined.take_id() => Err(taken),
        };

        let drained = match &taken {
            Ok(()) => joined.leave(&stops.draining, self.limits.drain).await,
            Err(_) => joined.give_up(&stops.draining).await,
        };
        tracing::info!("closing the listeners");
        stops.reads.cancel();
        workers.finish().await;
        stops.admin.cancel();
        tasks.ended().await;
        open.closed().await;
        probes.ended().await;
        let _ = following.await;
        self.permissions.flush().await;
        tracing::info!(id = %self.me.id, drained, "stopped");
        taken.map(|()| drained)
    }

    fn start_workers(&self) -> Result<Workers> {
        Workers::start(
            self.limits.workers,
            &self.parts.metrics,
            &Served {
                front: self.front.clone(),
                peer_front: self.peer_front.clone(),
                peer_tls: self.peer_tls.clone(),
                tls: self.tls.clone(),
                http: http::Front::new(self.service.clone(), self.permissions.clone()),
                hosts: self.hosts.http.clone(),
                redis: self.redis.clone(),
                carrier: self.carrier.clone(),
                close_timeout: self.limits.shutdown,
                stop: self.stops.reads.clone(),
            },
        )
    }

    fn tell_addresses(&self) {
        let addresses = self.addresses();
        tracing::info!(
            id = %self.me.id, address = %self.me.address, grpc = addresses.grpc.map(display),
            http = addresses.http.map(display), redis = addresses.redis.map(display), peer = addresses.peer.map(display),
            admin = addresses.admin.map(display), max_connections = self.admission.most(),
            max_open_files = descriptors::limit(),
            "listeners are open"
        );
    }
}

/// What runs beside the listeners.
struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    fn start(
        joined: &Joined,
        lease: Option<Duration>,
        queued_copies: QueuedKeys,
        stops: &Stops,
    ) -> Self {
        let mut tasks = Vec::new();
        if lease.is_some() {
            let standing = joined.clone().keep_standing(stops.clone());
            tasks.push(tokio::spawn(standing));
            let stop = stops.draining.clone();
            tasks.push(tokio::spawn(joined.clone().expel_the_vanished(stop)));
            let stop = stops.admin.clone();
            tasks.push(tokio::spawn(joined.clone().heed_notices(stop)));
        }
        let (parts, stop) = (joined.parts.clone(), stops.draining.clone());
        tasks.push(tokio::spawn(async move {
            parts.handoff.follow(queued_copies, stop).await;
        }));
        let following = joined.clone().follow_registry(stops.clone());
        tasks.push(tokio::spawn(following));
        Self(tasks)
    }

    /// Returns when all have ended. They do so by themselves when asked to stop.
    async fn ended(self) {
        for task in self.0 {
            let _ = task.await;
        }
    }
}
