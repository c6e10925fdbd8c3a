//! The nodes that the client knows: their ring, the connections to them, and which of them failed
//! lately.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tonic::{Status, transport::Channel};

use super::{connection, options::ClientOptions};
use crate::{
    backoff::pauses,
    registry::etcd::{Keys, view},
    status::grpc::from_status,
    tls::{ClientTls, to_nodes::is_refused},
    wire::{KEEP_ALIVE, bearer::BearingClient},
};
use gaocache_core::{
    cluster::{Owner, Topology},
    error::{Error, ErrorKind, Result},
    membership::Member,
    ring::{KeyHash, group_seed, hash_key},
};
use gaocache_discovery::Discovery;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// How long a node that failed is asked only as a last resort.
const EJECTED_FOR: Duration = Duration::from_secs(2);

/// The nodes, as the client knows them.
pub(super) struct Members {
    options: ClientOptions,
    discovery: Discovery,
    rings: watch::Receiver<Arc<Topology>>,
    /// By address, and whether they speak TLS.
    channels: Mutex<HashMap<(Arc<str>, bool), Channel>>,
    ejected: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Members {
    /// The nodes that `discovery` finds.
    pub(super) fn follow(discovery: Discovery, keys: Keys, options: ClientOptions) -> Self {
        let (sender, rings) = watch::channel(Arc::new(Topology::default()));
        let mut snapshots = discovery.changes();
        tokio::spawn(async move {
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                let view = view(&keys, &snapshot);
                if view.replaces(&sender.borrow().view) {
                    // A client is not a member: no member has an empty id.
                    sender.send_replace(Arc::new(Topology::new("", view)));
                }
                tokio::select! {
                    () = sender.closed() => return,
                    changed = snapshots.changed() => if changed.is_err() { return },
                }
            }
        });
        Self {
            options,
            discovery,
            rings,
            channels: Mutex::default(),
            ejected: Mutex::default(),
        }
    }

    /// How many of them share the keys.
    pub(super) fn count(&self) -> usize {
        self.rings.borrow().ring_len()
    }

    /// Returns when at least so many share the keys.
    pub(super) async fn wait_for(&self, members: usize) -> Result<()> {
        let mut rings = self.rings.clone();
        let reached = rings.wait_for(|ring| ring.ring_len() >= members).await;
        let died = |error| {
            let what = "the discovery of nodes died; see the log";
            Error::new(ErrorKind::Internal, what).with_source(error)
        };
        reached.map(|_| ()).map_err(died)
    }

    /// When a call that begins now has to be over.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.options.deadline
    }

    /// The keys by their owners, each key once. Where no node is known yet, they have none.
    pub(super) fn by_owner<'k>(&self, group: &str, keys: &[&'k str]) -> Vec<Vec<&'k str>> {
        let topology = self.rings.borrow().clone();
        let seed = group_seed(group);
        let mut seen = HashSet::new();
        let mut by_owner: HashMap<Option<usize>, Vec<&str>> = HashMap::new();
        for key in keys.iter().filter(|key| seen.insert(**key)) {
            let owner = topology.owner_index(hash_key(seed, key));
            by_owner.entry(owner).or_default().push(key);
        }
        by_owner.into_values().collect()
    }

    /// Makes a call for a key at its owner or, where that fails, at the next in ring order.
    pub(super) async fn call<T, F>(
        &self,
        group: &str,
        key: &str,
        deadline: Instant,
        call: impl Fn(BearingClient) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let hash = hash_key(group_seed(group), key);
        let mut pauses = pauses(FIRST_PAUSE, LAST_PAUSE);
        let mut last = self.no_node();
        loop {
            let topology = self.rings.borrow().clone();
            let ejected = self.ejected();
            // A certificate that is wrong or missing is so at the next attempt, too.
            let mut hopeless = topology.ring_len() > 0;
            // Nearly always the owner answers, and no other member is needed.
            for attempt in 0.. {
                let Some(member) = nth_usable(&topology, hash, &ejected, attempt) else {
                    break;
                };
                match self.try_member(member, deadline, &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(Try::Final(error)) => return Err(error),
                    Err(Try::Next(error)) => {
                        hopeless &= is_refused_by_tls(&error);
                        last = error;
                    }
                }
                if Instant::now() >= deadline {
                    return Err(last);
                }
            }
            if hopeless {
                return Err(last);
            }
            if topology.ring_len() == 0 {
                last = self.no_node();
            }
            let pause = pauses.next().unwrap_or(LAST_PAUSE);
            let mut rings = self.rings.clone();
            rings.mark_unchanged();
            // Retry immediately when the ring changes.
            let waited = tokio::time::timeout(pause, rings.changed());
            if timeout_at(deadline, waited).await.is_err() {
                return Err(last);
            }
        }
    }

    /// Why no node is known.
    fn no_node(&self) -> Error {
        let snapshot = self.discovery.list();
        let why = if !snapshot.problem.is_empty() {
            &*snapshot.problem
        } else if snapshot.known {
            "no node of this service is registered in etcd"
        } else {
            "etcd has not answered yet"
        };
        Error::new(ErrorKind::NotReady, format!("no node is known: {why}"))
    }

    /// The addresses of members that failed recently.
    fn ejected(&self) -> HashSet<Arc<str>> {
        let now = Instant::now();
        let mut ejected = self.ejected.lock();
        ejected.retain(|_, until| *until > now);
        ejected.keys().cloned().collect()
    }

    async fn try_member<T, F>(
        &self,
        member: &Member,
        deadline: Instant,
        call: &impl Fn(BearingClient) -> F,
    ) -> Result<T, Try>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let client = self.client(member).map_err(Try::Next)?;
        let until = deadline.min(Instant::now() + self.options.try_timeout);
        let answer = match timeout_at(until, call(client)).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("timed out")),
        };
        answer.map_err(|status| match from_status(&status) {
            // The node's own state; another may do it.
            Some(error) if matches!(error.kind(), ErrorKind::NotReady | ErrorKind::Registry) => {
                Try::Next(error)
            }
            Some(error) => Try::Final(error),
            None => {
                let until = Instant::now() + EJECTED_FOR;
                self.ejected.lock().insert(member.address.clone(), until);
                let what = format!(
                    "{} at {}: {}: {}",
                    member.id,
                    member.address,
                    status.code(),
                    status.message()
                );
                Try::Next(Error::new(ErrorKind::PeerUnreachable, what).with_source(status))
            }
        })
    }

    fn client(&self, member: &Member) -> Result<BearingClient> {
        let tls = match (&self.options.tls, member.tls.clients) {
            (Some(tls), true) => Some(tls.clone()),
            (None, true) => Some(ClientTls::new()),
            (None, false) => None,
            (Some(_), false) => {
                let what = format!(
                    "{} at {} has not registered that it speaks TLS, which this client requires",
                    member.id, member.address
                );
                return Err(Error::new(ErrorKind::PeerUnreachable, what));
            }
        };
        let place = (member.address.clone(), tls.is_some());
        let mut channels = self.channels.lock();
        let channel = match channels.get(&place) {
            Some(channel) => channel.clone(),
            None => {
                let known = self.rings.borrow().clone();
                channels.retain(|(address, _), _| known.others().any(|it| it.address == *address));
                let channel = connection::endpoint(&member.address, tls.is_some())?
                    .connect_timeout(self.options.connect_timeout)
                    .http2_keep_alive_interval(KEEP_ALIVE)
                    .keep_alive_timeout(KEEP_ALIVE);
                let channel = connection::lazy(&channel, &member.address, tls);
                channels.insert(place, channel.clone());
                channel
            }
        };
        Ok(self.options.bearer.client(channel))
    }
}

/// The `n`-th member to try: in ring order, with those that failed recently at the end.
fn nth_usable<'a>(
    topology: &'a Topology,
    key: KeyHash,
    ejected: &HashSet<Arc<str>>,
    n: usize,
) -> Option<&'a Member> {
    let members = || {
        topology.ranked(key).filter_map(|owner| match owner {
            Owner::Other(member) => Some(member),
            Owner::Me => None,
        })
    };
    let is_late = |member: &&Member| ejected.contains(&member.address);
    let usable = members().filter(|member| !is_late(member));
    let late = std::iter::once_with(|| members().filter(is_late)).flatten();
    usable.chain(late).nth(n)
}

/// Whether no connection came about because of a certificate.
fn is_refused_by_tls(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(is_refused)
}

/// An attempt that returned no value.
enum Try {
    Next(Error),
    Final(Error),
}
