//! Remote flights: a key that another member owns. It is asked, then its stand-in; in the
//! end this node loads the value itself.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{FlightOutcome, Group, Landed, Source, abandoned, many::FetchSeat};
use crate::{
    askers::Askers,
    cluster::Owner,
    error::{Error, ErrorKind, Result},
    flight::Leader,
    key::HashedKey,
    membership::Member,
    ports::{Fetched, PeerAnswer, PeerError, TRANSFER_TIMEOUT, Timestamp},
    record::{Record, Stale},
    ring::KeyHash,
    store::Entry,
};

/// How many stand-ins are tried for an owner that is out of reach, before this node loads the value
/// itself.
const MAX_STAND_INS: usize = 2;

/// A place in a remote flight.
pub(super) struct WaitingRemotely {
    waiter: oneshot::Receiver<Landed>,
    /// Another has begun the flight.
    collapsed: bool,
}

impl WaitingRemotely {
    /// What the flight brings.
    pub(super) async fn landed(self, key: &str) -> Landed {
        let landed = self.waiter.await.unwrap_or_else(|_| Err(abandoned(key)));
        landed.map(|outcome| {
            outcome.map(|mut it| {
                it.course.collapsed |= self.collapsed;
                it
            })
        })
    }
}

impl Group {
    /// Asks the owner, or its stand-in, once for all callers that ask this node at the same moment.
    pub(super) async fn ask_owner(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
    ) -> Result<FlightOutcome> {
        loop {
            let waiting = self.join_remote(key, hash, None);
            // A flight of a batch may bring only word of the value. The next one is this get's own,
            // unless another batch comes first.
            if let Some(outcome) = waiting.landed(key.text()).await? {
                return Ok(outcome);
            }
        }
    }

    /// Joins the call to the owner, or begins it; as a part of a batch, if there is a seat.
    pub(super) fn join_remote(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
        seat: Option<FetchSeat>,
    ) -> WaitingRemotely {
        let hot = self.shared.hot_keys.count(hash, self.shared.clock.now());
        let askers = (self.shared.askers)();
        let joined = self.remote.join(key, self.sharing(hash), askers);
        let collapsed = joined.leader.is_none();
        if let Some(leader) = joined.leader {
            let (group, text) = (self.clone(), key.text().to_owned());
            self.shared.spawn(async move {
                let key = group.hashed(&text);
                let (mut leader, mut seat) = (Some(leader), seat);
                while let Some(duty) = leader {
                    let flight = group.fly_remotely(&key, hash, hot, duty, seat.take());
                    leader = flight.await;
                }
            });
        } else {
            self.observer.waited_for_flight();
        }
        WaitingRemotely {
            waiter: joined.waiter,
            collapsed,
        }
    }

    /// One flight; returns the duty to fly again, if somebody waits for that.
    async fn fly_remotely(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
        hot: bool,
        leader: Leader<Landed>,
        seat: Option<FetchSeat>,
    ) -> Option<Leader<Landed>> {
        let fence = &self.shared.standing.fence;
        let departed = self.shared.clock.now();
        let pass = fence.pass(departed);
        let under_way = hot.then(|| self.shared.hot.departs(self.id));
        // A fetch without callers is dropped, so that it holds no slot here or at the owner.
        // The owner continues a load that is already running.
        let result = tokio::select! {
            result = self.fetch(key, hash, leader.askers(), seat) => result,
            () = leader.abandoned() => Err(given_up()),
        };
        let copy = match &result {
            Ok(Brought::ByPeer(outcome)) if hot && !outcome.uncacheable => {
                Some(outcome.entry.clone())
            }
            _ => None,
        };
        leader.land(result.map(Brought::landed), || {
            let now = self.shared.clock.now();
            // Keep it only if the fence stayed open, there is no tombstone, and the fetch was too
            // short to outlast one.
            let keep = pass.is_some_and(|pass| fence.still(pass, now))
                && now.since(departed) < TRANSFER_TIMEOUT
                && !self.tombstones.refuse(hash, now);
            let removed = |entry: &Entry| self.tombstones.refuse_tags(entry.metadata(), now);
            let brings = |entry: &Entry| under_way.is_some_and(|it| it.brings(entry));
            if let Some(entry) = copy.filter(|entry| keep && !removed(entry) && brings(entry))
                && self.shared.hot.insert(entry)
            {
                self.observer.kept_hot_copy();
            }
        })
    }

    /// The value from the owner or a stand-in, or loaded here in the end.
    async fn fetch(
        self: &Arc<Self>,
        key: &HashedKey<'_>,
        hash: KeyHash,
        askers: &Askers,
        mut seat: Option<FetchSeat>,
    ) -> Result<Brought> {
        let topology = self.shared.cluster.snapshot();
        // The owner, then its stand-ins. A node that is a member loads the value itself when
        // its turn comes; one that isn't asks on, since it may not keep what it loads.
        let sure = self.is_sure();
        let ranked = topology.ranked(hash).take(1 + MAX_STAND_INS);
        for member in ranked.take_while(|member| !sure || *member != Owner::Me) {
            let asked = (key.text(), askers);
            if let Some(answer) = self.try_member(member, asked, &mut seat).await {
                return answer;
            }
        }
        // The others don't wait for it.
        drop(seat);
        self.get_here(key, hash).await.map(Brought::Here)
    }

    /// One peer's answer; `None` if it is us, ejected, out of reach, or another may know better.
    async fn try_member(
        &self,
        owner: Owner<'_>,
        asked: (&str, &Askers),
        seat: &mut Option<FetchSeat>,
    ) -> Option<Result<Brought>> {
        let Owner::Other(member) = owner else {
            return None;
        };
        if !self.shared.peers.usable(member) {
            return None;
        }
        let mut fetched = self.fetch_from(member, asked, seat.take()).await;
        if let Ok(None) = fetched {
            // Its owner finds it expired too by now, and loads it.
            fetched = self.fetch_from(member, asked, None).await;
        }
        match fetched {
            Ok(brought) => brought.map(Ok),
            Err(PeerError::Answered(error)) if self.may_be_had_elsewhere(&error) => None,
            Err(PeerError::Answered(error)) => Some(Err(error)),
            Err(PeerError::Unreachable(_)) => None,
        }
    }

    /// Whether a peer's error comes from its settings or its state, so that another may answer.
    fn may_be_had_elsewhere(&self, error: &Error) -> bool {
        match error.kind() {
            // It doesn't know the group yet (a rollout), is going, or is not sure to be a member.
            ErrorKind::UnknownGroup | ErrorKind::NotReady => true,
            // It takes smaller values than this node does (a rollout that raises the limit).
            ErrorKind::ValueTooLarge => error.max_value().is_some_and(|it| it < self.max_value()),
            _ => false,
        }
    }

    /// That member's answer; `None` if its time ran out on the way (the simulation found this).
    async fn fetch_from(
        &self,
        member: &Member,
        (key, askers): (&str, &Askers),
        seat: Option<FetchSeat>,
    ) -> Result<Option<Brought>, PeerError> {
        let answer = match seat {
            Some(seat) => match self.fetch_together(seat, member, key, askers).await? {
                Fetched::Answer(answer) => answer,
                Fetched::Large => return Ok(Some(Brought::Large)),
            },
            None => {
                let peers = &self.shared.peers;
                peers.fetch(member, &self.name, key, askers).await?
            }
        };
        let judged = self.judged(answer, self.shared.clock.now());
        Ok(judged.map(|judged| {
            Brought::ByPeer(FlightOutcome {
                source: judged.source,
                course: judged.course,
                uncacheable: judged.uncacheable,
                entry: Entry::new(&self.hashed(key), &judged.record),
            })
        }))
    }

    /// What another member's answer is worth here at `now`; `None` if its time is over.
    pub(super) fn judged(&self, answer: PeerAnswer, now: Timestamp) -> Option<PeerAnswer> {
        let expired = !answer.record.is_fresh(now);
        let source = match answer.source {
            // What was loaded for this flight is answered however short its lifetime is: callers
            // that wait asked before it began.
            Source::Origin => Source::Origin,
            Source::Stale if answer.record.is_usable(now) => Source::Stale,
            Source::Hit | Source::Peer if !expired => Source::Peer,
            Source::Hit | Source::Peer | Source::Stale => return None,
        };
        let wanted = self.now.load();
        // Only the owner knows whether an old value may be served: a copy of it never is one.
        let record = Record {
            stale: Stale::NEVER,
            ..answer.record.with_little_absence(wanted.rules.max_value)
        };
        // Its tag is taken as it is: it comes from the same member as the value, and both go to the
        // same caller.
        let within = wanted.rules.within_life(&record, now);
        Some(PeerAnswer {
            source,
            course: answer.course,
            uncacheable: answer.uncacheable || within.is_none(),
            record: within.unwrap_or(record),
        })
    }
}

/// What came of asking others.
enum Brought {
    /// The answer of another member.
    ByPeer(FlightOutcome),
    /// This node ended up loading it.
    Here(FlightOutcome),
    /// Word from another member that the value is too large for a batch.
    Large,
}

impl Brought {
    fn landed(self) -> Option<FlightOutcome> {
        match self {
            Self::ByPeer(outcome) | Self::Here(outcome) => Some(outcome),
            Self::Large => None,
        }
    }
}

/// No caller is left to see it, except the observers of how a fetch ended.
fn given_up() -> Error {
    let what = "all callers have given up; the key is not fetched";
    Error::new(ErrorKind::Overloaded, what)
}
