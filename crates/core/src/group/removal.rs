//! Removal: once `remove`, `purge` or `purge_tag` has answered OK, no get that begins later returns
//! a value whose load began before.
//!
//! The node that is asked (the coordinator) drops the key and notifies every member that it knows,
//! including those that vanished and may still be running. Each drops the key, grounds the loads in
//! flight, and for a while accepts the key only from its origin (`tombstones`). Members that can't
//! be reached directly are notified through the registry. The removal is acknowledged when each
//! member has confirmed or has left the list: one that has left answers nothing from memory any
//! more (`fence`, `expulsion`). Members that join meanwhile are notified too.
//!
//! It must never acknowledge while this node may have been taken off the list itself: then it
//! doesn't know which members have joined.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{Group, check_key};
use crate::{
    cluster::Topology,
    error::{Error, ErrorKind, Result},
    membership::{IdHash, Member},
    notices,
    ports::{Notice, NoticeId, Notices, PeerError, Removal, Removed, Session},
    standing::Waiting,
    tags::{TagHash, check_tag},
};

/// A member that has not confirmed within this time is notified through the registry as well, and
/// taken off the list without delay if it vanished.
const DIRECT: Duration = Duration::from_millis(300);
/// Pauses between attempts to notify a member directly.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Why a member could not be reached so far, by incarnation.
type Problems = Arc<Mutex<HashMap<IdHash, String>>>;

impl Group {
    /// Drops a key everywhere.
    ///
    /// # Errors
    /// - [`ErrorKind::PeerUnreachable`], naming each member that has not confirmed: it may still
    ///   serve the old value. All others have dropped it.
    /// - [`ErrorKind::Registry`] if this node is not sure to know all members, and did not become
    ///   so within the bound on a removal: the lease, and two seconds. Any member may still serve
    ///   the old value; another node may be able to notify them.
    ///
    /// Calling again is safe after either.
    pub async fn remove(self: &Arc<Self>, key: &str) -> Result<()> {
        check_key(key)?;
        let what = Removal::Key(key.into());
        self.remove_everywhere(&what).await.map(|_| ())
    }

    /// Drops all keys of the group everywhere; returns how many entries went.
    ///
    /// # Errors
    /// As [`Group::remove`].
    pub async fn purge(self: &Arc<Self>) -> Result<u64> {
        self.remove_everywhere(&Removal::All).await
    }

    /// Drops all keys everywhere whose values carry that tag.
    ///
    /// # Errors
    /// As [`Group::remove`], and [`ErrorKind::InvalidRequest`] for what can't be a tag.
    pub async fn purge_tag(self: &Arc<Self>, tag: &str) -> Result<()> {
        check_tag(tag)?;
        let what = Removal::Tag(tag.into());
        self.remove_everywhere(&what).await.map(|_| ())
    }

    /// Removes at this node only; returns how many entries went, as far as it is known.
    pub fn remove_here(&self, what: &Removal) -> u64 {
        let shared = &self.shared;
        let now = shared.clock.now();
        match what {
            Removal::Key(key) => {
                let (hash, key) = (self.hash(key), self.hashed(key));
                let owned = self.local.ground(&key, || {
                    self.tombstones.removed(hash, now);
                    self.failures.forget(hash);
                    shared.owned.remove(&key)
                });
                let hot = self.remote.ground(&key, || shared.hot.remove(&key));
                u64::from(owned) + u64::from(hot)
            }
            Removal::Tag(tag) => {
                let tag = TagHash::of(tag);
                // First: what comes from another node is checked after its flight has departed.
                self.tombstones.tag_removed(tag, now);
                shared.owned.purge_tag(self.id, tag);
                shared.hot.purge_tag(self.id, tag);
                // Last: what departs later finds nothing that is purged. Which tags the value of a
                // flight under way will have is not known, so that is found out when it lands.
                self.local.share_no_more();
                self.remote.share_no_more();
                self.sweep();
                0
            }
            Removal::All => {
                self.tombstones.purged(now);
                self.drop_everything()
            }
        }
    }

    /// Drops all entries and grounds all flights. No entry is found from now on; their memory is
    /// freed in the background.
    pub fn drop_everything(&self) -> u64 {
        // Flights first: one that lands between the two is purged with the rest.
        self.ground_all();
        let entries = self.shared.owned.purge(self.id) + self.shared.hot.purge(self.id);
        // One that departed between the two may have seen an entry that is purged now.
        self.ground_all();
        self.sweep();
        entries
    }

    fn ground_all(&self) {
        self.local.ground_all();
        self.remote.ground_all();
        self.failures.forget_all();
    }

    /// Frees the memory of what was purged, in the background.
    fn sweep(&self) {
        let (owned, hot) = (self.shared.owned.clone(), self.shared.hot.clone());
        self.shared.spawn(async move {
            owned.sweep().await;
            hot.sweep().await;
        });
    }

    /// A node that is not sure to be a member waits until it is: it may be about to join, or have
    /// lost touch for a moment.
    async fn remove_everywhere(self: &Arc<Self>, what: &Removal) -> Result<u64> {
        let standing = &self.shared.standing;
        let clock = &*self.shared.clock;
        let (bound, began) = (standing.removal_bound(), clock.now());
        let deadline = Instant::now() + bound;
        let mut entries = 0;
        while let Ok(true) = timeout_at(deadline, standing.fence.opened(clock)).await {
            let mut round = Round::new(self, what);
            round.entries += self.remove_here(what);
            let done = round.run(deadline).await;
            round.withdraw();
            entries += round.entries;
            done?;
            // The machine may have been suspended: the clock counts that, timers don't.
            if clock.now().since(began) >= bound {
                return Err(round.refused());
            }
            // Checked again at the end: members that join don't wait for a node that is off the
            // list. Those that joined meanwhile have to be notified, so all is done again.
            if standing.fence.is_open(clock.now()) {
                return Ok(entries);
            }
        }
        Err(unsure())
    }
}

/// One removal at the node that was asked.
struct Round<'a> {
    group: &'a Arc<Group>,
    what: &'a Removal,
    rings: watch::Receiver<Arc<Topology>>,
    /// Members that are being notified, or were.
    begun: HashSet<IdHash>,
    confirmed: HashSet<IdHash>,
    /// The others on the list that have not confirmed.
    missing: HashMap<IdHash, Member>,
    telling: FuturesUnordered<BoxFuture<'a, Removed>>,
    problems: Problems,
    notices: Option<watch::Receiver<Notices>>,
    /// The notice through which the others were notified by the registry.
    posted: Option<NoticeId>,
    /// Tells the expulsions not to wait any longer.
    waiting: Option<Waiting>,
    entries: u64,
}

impl<'a> Round<'a> {
    fn new(group: &'a Arc<Group>, what: &'a Removal) -> Self {
        let session = group.shared.standing.session().ok();
        let mut rings = group.shared.cluster.rings();
        rings.mark_changed();
        Self {
            group,
            what,
            rings,
            begun: HashSet::new(),
            confirmed: HashSet::new(),
            missing: HashMap::new(),
            telling: FuturesUnordered::new(),
            problems: Arc::default(),
            notices: session.and_then(|it| it.notices()),
            posted: None,
            waiting: None,
            entries: 0,
        }
    }

    /// Returns when each member has confirmed or left the list, in time.
    async fn run(&mut self, deadline: Instant) -> Result<()> {
        let mut post_at = Box::pin(sleep(DIRECT));
        let mut posting: Option<BoxFuture<'a, Option<NoticeId>>> = None;
        loop {
            // Before it is asked whether all have confirmed: another may have joined.
            if self.rings.has_changed().unwrap_or(false) {
                self.follow_ring();
            }
            // A member that confirms later may have handed out the old value after the tombstones
            // of those notified first had run out: this node may have been paused in the meantime.
            if Instant::now() >= deadline {
                return Err(self.refused());
            }
            if self.missing.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(removed) = self.telling.next() => {
                    self.entries += removed.entries;
                    self.missing.remove(&removed.incarnation);
                    self.confirmed.insert(removed.incarnation);
                }
                changed = self.rings.changed() => {
                    if changed.is_err() {
                        return Err(unsure());
                    }
                    // It counts as seen now, but has to be followed.
                    self.rings.mark_changed();
                }
                () = notices::changed(&mut self.notices) => self.read_notices(),
                () = &mut post_at, if posting.is_none() && self.posted.is_none() => {
                    let standing = &self.group.shared.standing;
                    self.waiting.get_or_insert_with(|| standing.note_waiting());
                    posting = self.post();
                    post_at.as_mut().reset(Instant::now() + LAST_PAUSE);
                }
                posted = poll(&mut posting) => {
                    self.posted = posted;
                    self.read_notices();
                }
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Begins to notify the members that are new. Scans all members, so it runs once per ring: a
    /// removal among a thousand members must not scan all of them whenever one confirms.
    fn follow_ring(&mut self) {
        let topology = self.rings.borrow_and_update().clone();
        self.missing.clear();
        for member in topology.others() {
            let incarnation = member.incarnation();
            if self.begun.insert(incarnation) {
                let problems = self.problems.clone();
                let telling = tell(self.group.clone(), member.clone(), self.what, problems);
                self.telling.push(Box::pin(telling));
            }
            if !self.confirmed.contains(&incarnation) {
                self.missing.insert(incarnation, member.clone());
            }
        }
    }

    fn post(&self) -> Option<BoxFuture<'a, Option<NoticeId>>> {
        self.notices.as_ref()?;
        let session = self.group.shared.standing.session().ok()?.clone();
        let notice = Notice::Remove {
            group: self.group.name().clone(),
            what: self.what.clone(),
        };
        Some(Box::pin(async move { session.post(&notice).await.ok() }))
    }

    fn read_notices(&mut self) {
        let (Some(posted), Some(notices)) = (self.posted, &mut self.notices) else {
            return;
        };
        let notices = notices.borrow_and_update();
        let reached = notices.confirmed.iter().filter(|it| it.1.contains(&posted));
        for (member, _) in reached {
            self.missing.remove(member);
            self.confirmed.insert(*member);
        }
    }

    /// Takes the notice back: it has done its work, or comes too late.
    fn withdraw(&self) {
        let (Some(posted), Ok(session)) = (self.posted, self.group.shared.standing.session())
        else {
            return;
        };
        let session: Arc<dyn Session> = session.clone();
        self.group.shared.spawn(async move {
            if let Err(error) = session.withdraw(posted).await {
                tracing::debug!(%error, "a notice stays in the registry until its node restarts");
            }
        });
    }

    fn refused(&self) -> Error {
        let problems = self.problems.lock();
        let named = self.missing.iter().map(|(incarnation, member)| {
            let problem = problems.get(incarnation);
            let problem = problem.map_or("no answer yet", String::as_str);
            format!("{} at {}: {problem}", member.id, member.address)
        });
        let mut named: Vec<String> = named.collect();
        named.sort_unstable();
        let named = match named.is_empty() {
            true => "all members confirmed too late".to_owned(),
            false => named.join("; "),
        };
        let message = format!("may still serve the old value, try again later: {named}");
        Error::new(ErrorKind::PeerUnreachable, message)
    }
}

/// Tells one member, for as long as it takes.
async fn tell(group: Arc<Group>, member: Member, what: &Removal, problems: Problems) -> Removed {
    let incarnation = member.incarnation();
    let mut pause = FIRST_PAUSE;
    loop {
        let problem = match group.shared.peers.remove(&member, group.name(), what).await {
            // A member of a fixed list is known by its id alone.
            Ok(removed) if member.instance.is_empty() || removed.incarnation == incarnation => {
                return Removed {
                    incarnation,
                    ..removed
                };
            }
            Ok(_) => "it was restarted; waiting until this node sees the new one".to_owned(),
            // A member without the group (another configuration, mid-rollout) holds nothing of it.
            Err(PeerError::Answered(error)) if error.kind() == ErrorKind::UnknownGroup => {
                return Removed {
                    entries: 0,
                    incarnation,
                };
            }
            Err(PeerError::Answered(error) | PeerError::Unreachable(error)) => error.to_string(),
        };
        problems.lock().insert(incarnation, problem);
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Resolves with what the future gives, which is gone then; never if there is none.
async fn poll<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(running) => {
            let given = running.await;
            *future = None;
            given
        }
        None => std::future::pending().await,
    }
}

fn unsure() -> Error {
    Error::new(
        // Not `NotReady`: the node serves, and its probe says so.
        ErrorKind::Registry,
        "this node can't be certain that it knows all members right now; ask another, or try again \
         later",
    )
}
