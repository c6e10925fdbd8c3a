//! Connections to other nodes.
//!
//! Each worker thread has connections of its own for reads, so that no request changes threads on
//! its way; the other threads share one set. Control calls (removals, vouchers, promises) and
//! handoffs have one connection each for the whole node: neither waits behind values, or the other.
//! Their sockets belong to the runtime that also runs membership, so load can't starve them.
//!
//! Connections are made when first needed and closed when they have been idle for a while. Nothing
//! is sent on an idle connection: pings are only sent while a call is under way, and then at once,
//! so a call finds out about a dead connection as fast as on a busy one.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{gathering::Gathered, rules::PeerRules, slots::Slots};
use crate::{
    tls::{PeerTls, Way},
    wire::KEEP_ALIVE,
};
use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::{Contact, Member, View},
};

/// Room for a megabyte in flight in a call, and eight on a connection: a large value doesn't wait
/// for window updates.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Tells the pool which worker this thread is. Threads that don't call this share separate
/// connections.
pub fn this_thread_is_worker(number: usize) {
    WORKER.set(number);
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Reads.
    Data,
    /// Short calls that keep the cluster right.
    Control,
    /// Handoffs.
    Bulk,
}

/// One connection, which is made anew when it has broken.
pub(in crate::rpc) struct Link {
    /// To whom it leads.
    contact: Contact,
    pub(super) channel: Channel,
    /// Who may fetch over it.
    pub(super) slots: Slots,
    /// Fetches that are about to leave together.
    pub(super) gathered: Gathered,
    /// Cancelled when it could not be made: calls that wait for it end at once, instead of trying
    /// one after another (tonic gives the error to a single call).
    pub(super) lost: CancellationToken,
    /// In milliseconds since the pool was made.
    used_at: AtomicU64,
}

/// Connections by lane and worker, then by the member's id.
pub(super) struct Links {
    pools: Vec<Mutex<HashMap<Arc<str>, Arc<Link>>>>,
    workers: usize,
    made_at: Instant,
    idle: Duration,
    connect_timeout: Duration,
    tls: PeerTls,
    runtime: Handle,
}

impl Links {
    /// Without connections. Those for control and handoff are to run on `runtime`.
    pub(super) fn new(rules: &PeerRules, runtime: Handle) -> Self {
        // The workers, the other threads, control, bulk.
        let pools = (0..rules.workers + 3).map(|_| Mutex::default()).collect();
        Self {
            pools,
            workers: rules.workers,
            made_at: Instant::now(),
            idle: rules.idle,
            connect_timeout: rules.connect_timeout,
            tls: rules.tls.clone(),
            runtime,
        }
    }

    /// The connection to that member.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnreachable`] if its address is none, or it has not registered its key.
    pub(super) fn get(&self, lane: Lane, member: &Member) -> Result<Arc<Link>> {
        let mut pool = self.pool(lane).lock();
        if let Some(link) = pool.get(&member.id)
            && link.contact == member.contact
        {
            link.used_at.store(self.now(), Ordering::Relaxed);
            return Ok(link.clone());
        }
        let route = self.route(member)?;
        // Its socket is polled by the runtime in which it is made.
        let _runtime = (lane != Lane::Data).then(|| self.runtime.enter());
        let link = Arc::new(Link {
            contact: member.contact.clone(),
            channel: route.channel(),
            slots: Slots::new(),
            gathered: Gathered::default(),
            lost: CancellationToken::new(),
            used_at: AtomicU64::new(self.now()),
        });
        pool.insert(member.id.clone(), link.clone());
        Ok(link)
    }

    fn pool(&self, lane: Lane) -> &Mutex<HashMap<Arc<str>, Arc<Link>>> {
        let number = match lane {
            Lane::Data => WORKER.get().min(self.workers),
            Lane::Control => self.workers + 1,
            Lane::Bulk => self.workers + 2,
        };
        &self.pools[number]
    }

    /// How a member is connected to.
    ///
    /// # Errors
    /// [`ErrorKind::PeerUnreachable`] if its address is none, or it has not registered its key.
    pub(super) fn route(&self, member: &Member) -> Result<Route> {
        let address = &member.contact.address;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            let what = format!("invalid address '{address}': {error}");
            Error::new(ErrorKind::PeerUnreachable, what).with_source(error)
        })?;
        Ok(Route {
            endpoint: configured(endpoint),
            way: self.tls.way(member)?,
            connect_timeout: self.connect_timeout,
        })
    }

    /// A connection could not be made: ends the calls that wait for it.
    pub(super) fn lose(&self, member: &Member, link: &Arc<Link>) {
        link.lost.cancel();
        for pool in &self.pools {
            let mut pool = pool.lock();
            if pool.get(&member.id).is_some_and(|it| Arc::ptr_eq(it, link)) {
                pool.remove(&member.id);
            }
        }
    }

    /// Lets go of connections that lead to no member any more.
    pub(super) fn keep_only(&self, members: &View) {
        for pool in &self.pools {
            let leads = |id: &str, link: &Link| {
                let member = members.member(id);
                member.is_some_and(|it| it.contact == link.contact)
            };
            pool.lock().retain(|id, link| leads(id, link));
        }
    }

    /// Closes connections that no call has used for a while.
    pub(super) fn close_idle(&self) {
        let idle = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
        let now = self.now();
        for pool in &self.pools {
            pool.lock().retain(|_, link| {
                // A call holds its link.
                Arc::strong_count(link) > 1
                    || now.saturating_sub(link.used_at.load(Ordering::Relaxed)) < idle
            });
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How a member is connected to.
pub(super) struct Route {
    endpoint: Endpoint,
    way: Way,
    connect_timeout: Duration,
}

impl Route {
    /// A connection, to be made with the first call and whenever it has broken.
    pub(super) fn channel(&self) -> Channel {
        let (way, reached_within) = (self.way.clone(), self.connect_timeout);
        // Not by tonic's own time limit, which doesn't say that it was the connection that could
        // not be made. A process that is frozen accepts connections and proves nothing; one that
        // is only busy has as long for it as for the answer to a ping.
        let connect = move |_: Uri| {
            let way = way.clone();
            async move {
                let connected = way.connect(reached_within, KEEP_ALIVE * 2);
                connected.await.map(TokioIo::new)
            }
        };
        self.endpoint
            .connect_with_connector_lazy(tower::service_fn(connect))
    }
}

fn configured(endpoint: Endpoint) -> Endpoint {
    endpoint
        // h2 remembers fifty streams that were reset here, for a second, and counts what comes for
        // others against the connection for as long as it lives (hyperium/h2#856). But a member
        // that stood still answers all calls that were given up meanwhile.
        .http2_max_local_error_reset_streams(None)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
