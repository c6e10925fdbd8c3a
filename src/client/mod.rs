//! A client that knows the ring: it finds the nodes in etcd, computes the same ring as they do, and
//! asks each key's owner directly.
//!
//! It retries within the caller's deadline. A node that can't be reached is ejected for a short
//! time, and the next member in ring order is asked, since any node can answer for any key. An
//! error that a node *answered* is final, unless the node says that it is leaving. The caller's
//! OpenTelemetry context is propagated.

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
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    answer::Answer,
    backoff::pauses,
    registry::etcd::{Keys, view},
    rpc::wire::{self, cache_client::CacheClient},
    status::grpc::from_status,
    telemetry::trace,
};
use gaocache_core::{
    cluster::{Owner, Topology},
    error::{Error, ErrorKind, Result},
    group::Source,
    membership::Member,
    ring::{KeyHash, group_seed, hash_key},
};
use gaocache_discovery::{Discovery, EtcdConfig};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// How long a node that failed is asked only as a last resort.
const EJECTED_FOR: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// The options of a client.
///
/// ```
/// use std::time::Duration;
/// use gaocache::ClientOptions;
///
/// let options = ClientOptions::default().with_deadline(Duration::from_secs(5));
/// assert_eq!(options.deadline, Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Time limit for a call, including all retries.
    pub deadline: Duration,
    /// Time limit for connecting to a node.
    pub connect_timeout: Duration,
    /// Time limit for one attempt. It must be long enough for a load from the origin.
    pub try_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(1),
            try_timeout: Duration::from_secs(15),
        }
    }
}

impl ClientOptions {
    /// With this bound on a call, all its retries included.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// With this bound on connecting to a node.
    #[must_use]
    pub fn with_connect_timeout(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// With this bound on one try.
    #[must_use]
    pub fn with_try_timeout(mut self, try_timeout: Duration) -> Self {
        self.try_timeout = try_timeout;
        self
    }
}

/// A client that finds the nodes in etcd and asks each key's owner. Cheap to clone.
///
/// ```no_run
/// use gaocache::{Client, ClientOptions, Error, EtcdConfig};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let etcd = EtcdConfig::new(["http://127.0.0.1:2379"]);
/// let client = Client::new(etcd, "gaocache", ClientOptions::default());
/// let answer = client.get("users", "42").await?;
/// println!("{} bytes from {:?}", answer.value.len(), answer.source);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    discovery: Discovery,
    rings: watch::Receiver<Arc<Topology>>,
    channels: Mutex<HashMap<Arc<str>, Channel>>,
    ejected: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Client {
    /// A client for the nodes that are registered as `service` in etcd. Returns immediately. Calls
    /// wait, within their deadline, until nodes are known.
    pub fn new(etcd: EtcdConfig, service: &str, options: ClientOptions) -> Self {
        let keys = Keys::of(service);
        let discovery = Discovery::start_ranges(etcd, [keys.range()], |_| {});
        Self::over(discovery, keys, options)
    }

    /// A client for the nodes that `discovery` finds.
    pub(crate) fn over(discovery: Discovery, keys: Keys, options: ClientOptions) -> Self {
        let (sender, rings) = watch::channel(Arc::new(Topology::default()));
        let mut snapshots = discovery.changes();
        tokio::spawn(async move {
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                // An empty list never wipes the ring.
                if !snapshot.endpoints.is_empty() {
                    let view = view(&keys, &snapshot);
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
            inner: Arc::new(Inner {
                options,
                discovery,
                rings,
                channels: Mutex::default(),
                ejected: Mutex::default(),
            }),
        }
    }

    /// How many nodes the keys are shared out to; 0 while none is known.
    pub fn members(&self) -> usize {
        self.inner.rings.borrow().ring_len()
    }

    /// Returns when the keys are shared out to so many nodes. Calls don't need it: they wait
    /// themselves until a node is known.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the discovery died.
    pub async fn wait_for_members(&self, members: usize) -> Result<()> {
        let mut rings = self.inner.rings.clone();
        let reached = rings.wait_for(|ring| ring.ring_len() == members).await;
        let died = |error| {
            let what = "the discovery of nodes died; see the log";
            Error::new(ErrorKind::Internal, what).with_source(error)
        };
        reached.map(|_| ()).map_err(died)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The error that the node answered; [`ErrorKind::PeerUnreachable`] if no node answered within
    /// the deadline; [`ErrorKind::NotReady`] if no node is known.
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// use gaocache::ErrorKind;
    ///
    /// match client.get("users", "42").await {
    ///     Ok(answer) => println!("{} bytes", answer.value.len()),
    ///     Err(error) if error.kind() == ErrorKind::NotFound => println!("no such user"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, group: &str, key: &str) -> Result<Answer> {
        let request = wire::GetRequest {
            group: group.to_owned(),
            key: key.to_owned(),
        };
        let answer = self
            .call(group, key, move |mut client| {
                let request = request.clone();
                async move { client.get(trace::request(request)).await }
            })
            .await?
            .into_inner();
        Ok(Answer {
            ttl_remaining: answer.ttl_remaining_ms.map(Duration::from_millis),
            entity_tag: answer.entity_tag,
            source: match answer.source() {
                wire::Source::Hit | wire::Source::Unspecified => Source::Hit,
                wire::Source::Peer => Source::Peer,
                wire::Source::Origin => Source::Origin,
            },
            owner: answer.owner.into(),
            value: answer.value,
        })
    }

    /// Removes a key from all nodes.
    ///
    /// # Errors
    /// As [`Client::get`]. [`ErrorKind::PeerUnreachable`] also if the node could not reach another
    /// member, which the message names.
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// client.remove("users", "42").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove(&self, group: &str, key: &str) -> Result<()> {
        let request = wire::RemoveRequest {
            group: group.to_owned(),
            key: key.to_owned(),
        };
        self.call(group, key, move |mut client| {
            let request = request.clone();
            async move { client.remove(trace::request(request)).await }
        })
        .await
        .map(|_| ())
    }

    /// Removes all keys of a group from all nodes. Returns the number of removed entries.
    ///
    /// # Errors
    /// As [`Client::remove`].
    ///
    /// ```no_run
    /// # async fn example(client: gaocache::Client) -> gaocache::Result<()> {
    /// println!("{} entries dropped", client.purge("users").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge(&self, group: &str) -> Result<u64> {
        let request = wire::PurgeRequest {
            group: group.to_owned(),
        };
        self.call(group, "", move |mut client| {
            let request = request.clone();
            async move { client.purge(trace::request(request)).await }
        })
        .await
        .map(|answer| answer.into_inner().entries)
    }

    async fn call<T, F>(
        &self,
        group: &str,
        key: &str,
        call: impl Fn(CacheClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.inner.options.deadline;
        let hash = hash_key(group_seed(group), key);
        let mut pauses = pauses(FIRST_PAUSE, LAST_PAUSE);
        let mut last = self.inner.no_node();
        loop {
            let topology = self.inner.rings.borrow().clone();
            let ejected = self.inner.ejected();
            // Nearly always the owner answers, and nobody after it is looked for.
            for attempt in 0.. {
                let Some(member) = nth_usable(&topology, hash, &ejected, attempt) else {
                    break;
                };
                match self.inner.try_member(member, deadline, &call).await {
                    Ok(answer) => return Ok(answer),
                    Err(Try::Final(error)) => return Err(error),
                    Err(Try::Next(error)) => last = error,
                }
                if Instant::now() >= deadline {
                    return Err(last);
                }
            }
            if topology.ring_len() == 0 {
                last = self.inner.no_node();
            }
            let pause = pauses.next().unwrap_or(LAST_PAUSE);
            let mut rings = self.inner.rings.clone();
            rings.mark_unchanged();
            // Retry immediately when the ring changes.
            let waited = tokio::time::timeout(pause, rings.changed());
            if timeout_at(deadline, waited).await.is_err() {
                return Err(last);
            }
        }
    }
}

/// The `n`-th member to try: in ring order, with those that failed lately at the end.
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

/// An attempt that returned no value.
enum Try {
    Next(Error),
    Final(Error),
}

impl Inner {
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

    /// The addresses of members that failed lately.
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
        call: &impl Fn(CacheClient<Channel>) -> F,
    ) -> Result<T, Try>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let client = self.client(&member.address).map_err(Try::Next)?;
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

    fn client(&self, address: &Arc<str>) -> Result<CacheClient<Channel>> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let known = self.rings.borrow().clone();
                channels.retain(|address, _| known.others().any(|it| it.address == *address));
                let endpoint =
                    Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
                        let what = format!("'{address}': {error}");
                        Error::new(ErrorKind::PeerUnreachable, what).with_source(error)
                    })?;
                let channel = endpoint
                    .connect_timeout(self.options.connect_timeout)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(KEEP_ALIVE)
                    .keep_alive_timeout(KEEP_ALIVE)
                    .connect_lazy();
                channels.insert(address.clone(), channel.clone());
                channel
            }
        };
        // The node limits the size of values; the client accepts any size.
        Ok(CacheClient::new(channel).max_decoding_message_size(usize::MAX))
    }
}
