//! What one client may ask for: requests per second, open requests, gets under way that memory
//! doesn't answer, and requests that have not arrived in full.
//!
//! Only clients that ask are kept: a count goes when it is zero, and of rates at most so many are
//! remembered. An attacker with more addresses than that gains a fresh second of requests for some
//! of them, which it has for all others anyway.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::ClientId;
use gaocache_core::error::{Error, ErrorKind};

/// Enough shards that two workers rarely contend for a lock.
const SHARDS: usize = 16;
/// Clients whose rates are remembered, in a shard.
const MOST_RATES: usize = 1024;
/// One client may have open one part in so many of the requests that fit the budget.
const OPEN_PART: usize = 3;
/// One part in so many of its open requests may have arrived only in part. Those of all clients
/// together may be as many as one client and a half may have.
const ARRIVING_PART: usize = 2;
/// This part of what one client may send in parts is always left to each.
const FEW: usize = 16;
/// After this, a client with too many requests under way may try again.
const PAUSE: Duration = Duration::from_secs(1);
/// A client that has rested may ask at once for what its rate allows in this time.
const BURST: Duration = Duration::from_secs(1);

/// What each client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Requests per second; 0: as many as it likes.
    pub(crate) requests_per_second: u32,
    /// Open requests, over all of its connections.
    pub(crate) open: usize,
    /// Gets under way that memory doesn't answer.
    pub(crate) misses: usize,
    /// Requests that have arrived only in part. Of a client that sends hundreds at once, many do.
    pub(crate) arriving: usize,
    /// The same of all clients together, so that many that send no more leave room for requests
    /// that arrive in one.
    pub(crate) arriving_in_all: usize,
}

impl Quota {
    /// How many requests one client may have open, where so many fit the budget.
    pub(crate) fn of_open(requests: u64) -> usize {
        usize::try_from(requests).unwrap_or(usize::MAX) / OPEN_PART
    }

    /// The quota of each client, where `requests` fit the budget. It may have no more misses than
    /// open requests.
    pub(crate) fn of(requests: u64, requests_per_second: u32, misses: usize) -> Self {
        let open = Self::of_open(requests);
        let arriving = open / ARRIVING_PART;
        Self {
            requests_per_second,
            open: open.max(1),
            misses: misses.min(open.max(1)),
            arriving: arriving.max(1),
            arriving_in_all: (open + arriving).max(1),
        }
    }
}

/// What clients have asked for.
pub(crate) struct Quotas {
    requests_per_second: AtomicU32,
    open: usize,
    misses: AtomicUsize,
    arriving: usize,
    arriving_in_all: usize,
    all_arriving: AtomicUsize,
    began: Instant,
    refused: Box<Refused>,
    shards: [Mutex<Shard>; SHARDS],
}

/// Hears of each refusal.
type Refused = dyn Fn(ClientId, Excess) + Send + Sync;

#[derive(Default)]
struct Shard {
    /// When the requests so far would all have come, at the allowed rate: nanoseconds since the
    /// begin (GCRA, the leaky bucket as a meter).
    rates: HashMap<ClientId, u64, foldhash::fast::RandomState>,
    under_way: HashMap<(ClientId, What), usize, foldhash::fast::RandomState>,
    /// Open requests of those that have a connection.
    open: HashMap<ClientId, Arc<AtomicUsize>, foldhash::fast::RandomState>,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Miss,
    Arriving,
}

/// A client asks for more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Requests per second. It may ask again after this time.
    Rate(Duration),
    /// Open requests.
    Open,
    /// Gets under way.
    Misses,
    /// Requests that arrive in parts.
    Arriving,
}

/// The open requests of a client, as one of its connections counts them.
#[derive(Debug)]
pub(crate) struct OpenRequests {
    quotas: Arc<Quotas>,
    client: ClientId,
    count: Arc<AtomicUsize>,
}

/// Something that a client has under way.
pub(crate) struct Permit {
    quotas: Arc<Quotas>,
    client: ClientId,
    what: What,
}

impl Excess {
    /// For labels and logs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Rate(_) => "rate",
            Self::Open => "open",
            Self::Misses => "misses",
            Self::Arriving => "arriving",
        }
    }
}

impl From<Excess> for Error {
    fn from(excess: Excess) -> Self {
        let (what, wait) = match excess {
            Excess::Rate(wait) => ("requests (limits.max_requests_per_second_per_client)", wait),
            Excess::Open => ("open requests (a third of cache.in_flight)", PAUSE),
            Excess::Misses => ("misses under way (limits.max_misses_per_client)", PAUSE),
            Excess::Arriving => (
                "requests that arrive in parts (a sixth of cache.in_flight)",
                PAUSE,
            ),
        };
        let what = format!("this client has more {what} than one client may have");
        Self::new(ErrorKind::TooManyRequests, what).with_retry_after(wait)
    }
}

impl Quotas {
    /// Tells `refused` of each refusal.
    pub(crate) fn new(
        quota: Quota,
        refused: impl Fn(ClientId, Excess) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            requests_per_second: AtomicU32::new(quota.requests_per_second),
            open: quota.open,
            misses: AtomicUsize::new(quota.misses),
            arriving: quota.arriving,
            arriving_in_all: quota.arriving_in_all,
            all_arriving: AtomicUsize::new(0),
            began: Instant::now(),
            refused: Box::new(refused),
            shards: Default::default(),
        })
    }

    /// From now on, clients may ask for this.
    #[cfg(feature = "cli")]
    pub(crate) fn set(&self, quota: Quota) {
        let rate = quota.requests_per_second;
        self.requests_per_second.store(rate, Ordering::Relaxed);
        self.misses.store(quota.misses, Ordering::Relaxed);
    }

    /// Whether requests are limited at all: only then, who asks for a hit has to be known.
    pub(crate) fn limits_requests(&self) -> bool {
        self.requests_per_second.load(Ordering::Relaxed) > 0
    }

    /// Counts so many requests of a client.
    ///
    /// # Errors
    /// [`Excess::Rate`].
    pub(crate) fn request(&self, client: ClientId, count: u32) -> Result<(), Excess> {
        let admitted = self.count_request(client, count);
        admitted.inspect_err(|excess| (self.refused)(client, *excess))
    }

    fn count_request(&self, client: ClientId, count: u32) -> Result<(), Excess> {
        let rate = self.requests_per_second.load(Ordering::Relaxed);
        if rate == 0 || client == ClientId::NOBODY {
            return Ok(());
        }
        let each = (Duration::from_secs(1) / rate).as_nanos() as u64;
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut shard = self.shard(client).lock();
        let due = shard.rates.get(&client).copied().unwrap_or(0).max(now);
        let next = due.saturating_add(each.saturating_mul(count.into()));
        // A client that has rested may send one request of any size, and pays for it afterwards.
        let ahead = Duration::from_nanos(next - now);
        if due > now && ahead > BURST {
            return Err(Excess::Rate(ahead - BURST));
        }
        shard.remember(client, next, now);
        Ok(())
    }

    /// A get of a client begins that memory doesn't answer.
    ///
    /// # Errors
    /// [`Excess::Misses`].
    pub(crate) fn miss(self: &Arc<Self>, client: ClientId) -> Result<Permit, Excess> {
        let most = self.misses.load(Ordering::Relaxed);
        self.begin(client, What::Miss, most, Excess::Misses)
    }

    /// The same if there is room for one; none is no refusal.
    pub(crate) fn miss_if_room(self: &Arc<Self>, client: ClientId) -> Option<Permit> {
        let most = self.misses.load(Ordering::Relaxed);
        self.begin_within(client, What::Miss, most)
    }

    /// A client has connected.
    pub(crate) fn connected(self: &Arc<Self>, client: ClientId) -> OpenRequests {
        let mut shard = self.shard(client).lock();
        let count = shard.open.entry(client).or_default().clone();
        OpenRequests {
            quotas: self.clone(),
            client,
            count,
        }
    }

    /// A request of a client has to be waited for.
    ///
    /// # Errors
    /// [`Excess::Arriving`].
    fn arrives(self: &Arc<Self>, client: ClientId) -> Result<Permit, Excess> {
        let arriving = self.begin(client, What::Arriving, self.arriving, Excess::Arriving)?;
        let all = self.all_arriving.fetch_add(1, Ordering::Relaxed);
        if all < self.arriving_in_all || self.has_few_arriving(client) {
            return Ok(arriving);
        }
        // Its end takes it off the count.
        drop(arriving);
        (self.refused)(client, Excess::Arriving);
        Err(Excess::Arriving)
    }

    /// Whether a client has no more of them than any may have, however many others have.
    fn has_few_arriving(&self, client: ClientId) -> bool {
        let shard = self.shard(client).lock();
        let arriving = shard.under_way.get(&(client, What::Arriving));
        arriving.is_none_or(|it| *it <= self.arriving / FEW)
    }

    fn begin(
        self: &Arc<Self>,
        client: ClientId,
        what: What,
        most: usize,
        excess: Excess,
    ) -> Result<Permit, Excess> {
        let begun = self.begin_within(client, what, most);
        begun.ok_or_else(|| {
            (self.refused)(client, excess);
            excess
        })
    }

    fn begin_within(self: &Arc<Self>, client: ClientId, what: What, most: usize) -> Option<Permit> {
        let mut shard = self.shard(client).lock();
        match shard.under_way.entry((client, what)) {
            Entry::Occupied(it) if *it.get() >= most && client != ClientId::NOBODY => return None,
            entry => *entry.or_default() += 1,
        }
        drop(shard);
        Some(Permit {
            quotas: self.clone(),
            client,
            what,
        })
    }

    fn shard(&self, client: ClientId) -> &Mutex<Shard> {
        &self.shards[client.0 as usize % SHARDS]
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").finish_non_exhaustive()
    }
}

impl Shard {
    fn remember(&mut self, client: ClientId, next: u64, now: u64) {
        if self.rates.len() >= MOST_RATES && !self.rates.contains_key(&client) {
            // A client that has rested counts as one that has never asked.
            self.rates.retain(|_, due| *due > now);
            if self.rates.len() >= MOST_RATES {
                let any = self.rates.keys().next().copied();
                any.and_then(|any| self.rates.remove(&any));
            }
        }
        self.rates.insert(client, next);
    }
}

impl OpenRequests {
    /// One more.
    ///
    /// # Errors
    /// [`Excess::Open`].
    pub(crate) fn begins(&self) -> Result<(), Excess> {
        if self.count.fetch_add(1, Ordering::Relaxed) < self.quotas.open {
            return Ok(());
        }
        self.ends();
        (self.quotas.refused)(self.client, Excess::Open);
        Err(Excess::Open)
    }

    /// One more that must be heard.
    pub(crate) fn begins_anyway(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn ends(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// One of them has to be waited for.
    ///
    /// # Errors
    /// [`Excess::Arriving`].
    pub(crate) fn arrives(&self) -> Result<Permit, Excess> {
        self.quotas.arrives(self.client)
    }
}

impl Drop for OpenRequests {
    fn drop(&mut self) {
        /// This one, and the shard's.
        const LAST: usize = 2;
        let mut shard = self.quotas.shard(self.client).lock();
        if Arc::strong_count(&self.count) == LAST {
            shard.open.remove(&self.client);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.what == What::Arriving {
            self.quotas.all_arriving.fetch_sub(1, Ordering::Relaxed);
        }
        let mut shard = self.quotas.shard(self.client).lock();
        if let Entry::Occupied(mut under_way) = shard.under_way.entry((self.client, self.what)) {
            *under_way.get_mut() -= 1;
            if *under_way.get() == 0 {
                under_way.remove();
            }
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
