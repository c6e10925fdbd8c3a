//! Several keys at once. Each key has a flight of its own, by the rules of a single get; what the
//! flights ask of one owner leaves in one message, and what they ask of an origin that takes
//! batches in one call.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{
    Stream,
    future::{BoxFuture, pending, ready},
    stream::FuturesUnordered,
};
use tokio::sync::{Semaphore, oneshot};

use super::{Answer, FlightOutcome, Group, check_key, to_peer, together::Seat};
use crate::{
    askers::{Askers, FollowedAskers},
    cluster::Owner,
    error::{BoxError, Error, ErrorKind, Result},
    flight::{Callers, abandoned},
    membership::{IdHash, Member},
    ports::{
        Asked, Fetched, KeyAsked, LoadTurn, Loaded, MANY_AT_ONCE, PeerAnswer, PeerError, Timestamp,
    },
};

/// Values above this size, in bytes, are not part of a batch.
const LARGE: usize = 64 << 10;
/// All values of a batch together, in bytes.
const ROOM: usize = 4 << 20;

/// A seat among the fetches of a batch.
pub(super) type FetchSeat = Seat<(Member, KeyAsked)>;
/// A seat among the loads of a batch.
pub(super) type LoadSeat = Seat<LoadCall>;

/// The load of one key, as a part of a batch.
pub(super) struct LoadCall {
    key: Box<str>,
    askers: Askers,
    /// If it need not begin once they have all given up.
    callers: Option<Callers<Result<FlightOutcome>>>,
    loaded: oneshot::Sender<(Result<Loaded, BoxError>, Asked)>,
}

/// What a key of a batch brings, once it is there; `None`: it has to be asked for alone. What it
/// waits for has begun: others may share the flight.
type Asking<T> = BoxFuture<'static, Result<Option<T>>>;

/// The results of a batch, each with the place of its key. Keys that have not begun, or that the
/// batch has not brought, are asked for by `alone`, in turn.
fn as_they_come<T, F>(
    keys: &[&str],
    begun: Vec<Option<Asking<T>>>,
    alone: F,
) -> impl Stream<Item = (usize, Result<T>)> + Send + use<T, F>
where
    T: Send + 'static,
    F: Fn(Box<str>) -> BoxFuture<'static, Result<T>> + Send + Sync + 'static,
{
    let (turns, alone) = (Arc::new(Semaphore::new(MANY_AT_ONCE)), Arc::new(alone));
    let results = keys
        .iter()
        .zip(begun)
        .enumerate()
        .map(|(place, (key, asking))| {
            let (turns, alone, key) = (turns.clone(), alone.clone(), Box::<str>::from(*key));
            let result = async move {
                if let Some(asking) = asking
                    && let Some(brought) = asking.await?
                {
                    return Ok(brought);
                }
                let _turn = turns.acquire().await;
                alone(key).await
            };
            async move { (place, result.await) }
        });
    results.collect::<FuturesUnordered<_>>()
}

/// How much of the values a batch may still take along. What finds no room has to be asked for
/// alone: the answers of a batch wait uncounted until their reader takes them.
pub struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self(AtomicUsize::new(ROOM))
    }
}

impl Room {
    /// Takes room for a value of so many bytes, if there is any.
    pub fn take(&self, bytes: usize) -> bool {
        let rest = |room: usize| room.checked_sub(bytes);
        bytes <= LARGE
            && self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest)
                .is_ok()
    }

    fn fetched(&self, answer: PeerAnswer) -> Fetched {
        if self.take(answer.value_bytes()) {
            Fetched::Answer(answer)
        } else {
            Fetched::Large
        }
    }
}

impl Group {
    /// Gets several keys: answers as they come, each with the place of its key. What memory has
    /// is not counted against the room of a batch, and comes in turn.
    pub fn get_many(
        self: &Arc<Self>,
        keys: &[&str],
    ) -> impl Stream<Item = (usize, Result<Answer>)> + Send + use<> {
        let topology = self.shared.cluster.snapshot();
        let (fetches, mut loads) = (self.fetches(), Loads::of(self));
        let is_sure = self.is_sure();
        let now = self.shared.clock.now();
        let get = |key: &&str| -> Option<Asking<Answer>> {
            if let Err(error) = check_key(key) {
                return Some(Box::pin(ready(Err(error))));
            }
            let (hashed, hash) = (self.hashed(key), self.hash(key));
            self.find(&hashed, now).is_none().then_some(())?;
            let group = self.clone();
            if topology.owner(hash) == Owner::Me && is_sure {
                let load = self.load_together(key, loads.seat()?);
                let answer = async move { group.answer(load.await?, || hash).map(Some) };
                return Some(Box::pin(answer));
            }
            let waiting = self.join_remote(&hashed, hash, Some(fetches.clone()));
            let key = Box::<str>::from(*key);
            Some(Box::pin(async move {
                let outcome = waiting.landed(&key).await?;
                outcome.map(|it| group.answer(it, || hash)).transpose()
            }))
        };
        let begun = keys.iter().map(get).collect();
        let group = self.clone();
        as_they_come(keys, begun, move |key| {
            let group = group.clone();
            Box::pin(async move { group.get(&key).await })
        })
    }

    /// Answers another node for several keys, as [`Group::answer_peer`]: first for those that this
    /// node holds.
    pub fn answer_peer_many(
        self: &Arc<Self>,
        keys: &[&str],
    ) -> impl Stream<Item = (usize, Result<Fetched>)> + Send + use<> {
        let room = Arc::<Room>::default();
        let mut loads = Loads::of(self);
        let answer = |key: &&str| -> Option<Asking<Fetched>> {
            if let Some(held) = self.held_for_peer(key) {
                let fetched = held.map(|answer| Some(room.fetched(answer)));
                return Some(Box::pin(ready(fetched)));
            }
            let load = self.load_together(key, loads.seat()?);
            let room = room.clone();
            let fetched = async move { Ok(Some(room.fetched(to_peer(&load.await?)))) };
            Some(Box::pin(fetched))
        };
        let begun = keys.iter().map(answer).collect();
        let group = self.clone();
        as_they_come(keys, begun, move |key| {
            let (group, room) = (group.clone(), room.clone());
            Box::pin(async move { group.answer_peer(&key).await.map(|it| room.fetched(it)) })
        })
    }

    /// Answers another node from what this node holds, as [`Group::answer_peer`]; `None` if it has
    /// to be loaded.
    pub fn held_for_peer(self: &Arc<Self>, key: &str) -> Option<Result<PeerAnswer>> {
        self.held_for_peer_at(key, self.shared.clock.now())
    }

    /// The same, judged by this moment: of many keys that are asked for at once, the clock is read
    /// once for all.
    pub fn held_for_peer_at(
        self: &Arc<Self>,
        key: &str,
        now: Timestamp,
    ) -> Option<Result<PeerAnswer>> {
        if let Err(error) = check_key(key).and_then(|()| self.may_answer_peers(now)) {
            return Some(Err(error));
        }
        let key = self.hashed(key);
        let entry = self.shared.owned.get(&key, now)?;
        self.refresh_ahead(&key, &entry);
        Some(Ok(to_peer(&FlightOutcome::hit(entry))))
    }

    /// The load of a key that has a seat; it has begun.
    fn load_together(
        self: &Arc<Self>,
        key: &str,
        seat: LoadSeat,
    ) -> BoxFuture<'static, Result<FlightOutcome>> {
        let hash = self.hash(key);
        let begun = self.begin_here(&self.hashed(key), hash, Some(seat));
        let (group, key) = (self.clone(), Box::<str>::from(key));
        Box::pin(async move { group.end_here(&group.hashed(&key), begun).await })
    }

    /// The fetches of a batch: one message to each owner.
    fn fetches(self: &Arc<Self>) -> FetchSeat {
        let group = self.clone();
        Seat::new(move |calls: Vec<(Member, KeyAsked)>| {
            let mut by_member = HashMap::<IdHash, (Member, Vec<KeyAsked>)>::new();
            for (member, asked) in calls {
                let of_member = by_member.entry(member.incarnation());
                of_member
                    .or_insert_with(|| (member, Vec::new()))
                    .1
                    .push(asked);
            }
            for (member, asked) in by_member.into_values() {
                let (peers, name) = (group.shared.peers.clone(), group.name.clone());
                group
                    .shared
                    .spawn(async move { peers.fetch_many(&member, &name, asked).await });
            }
        })
    }

    /// That member's answer, which it sends with those to the other calls of the batch.
    pub(super) async fn fetch_together(
        &self,
        seat: FetchSeat,
        member: &Member,
        key: &str,
        askers: &Askers,
    ) -> Result<Fetched, PeerError> {
        let (asked, answered) = KeyAsked::new(key, askers.clone());
        seat.fill((member.clone(), asked));
        answered.await.unwrap_or_else(|_| {
            let what = "a batch of fetches ended without an answer for the key";
            Err(PeerError::Unreachable(Error::new(
                ErrorKind::PeerUnreachable,
                what,
            )))
        })
    }
}

/// Hands out seats for the loads of a group.
struct Loads {
    group: Arc<Group>,
    batch: usize,
    /// The batch that is being put together, and how many seats are left in it.
    current: Option<(LoadSeat, usize)>,
}

impl Loads {
    fn of(group: &Arc<Group>) -> Self {
        Self {
            batch: group.origin().batch_size(),
            group: group.clone(),
            current: None,
        }
    }

    /// A seat; `None` if the origin takes no batches.
    fn seat(&mut self) -> Option<LoadSeat> {
        if self.batch <= 1 {
            return None;
        }
        let (seat, left) = match self.current.take() {
            Some(current) => current,
            None => (self.begin(), self.batch),
        };
        let mine = seat.clone();
        self.current = (left > 1).then(|| (seat, left - 1));
        Some(mine)
    }

    fn begin(&self) -> LoadSeat {
        let group = self.group.clone();
        Seat::new(move |mut calls: Vec<LoadCall>| {
            let (origin, clock) = (group.origin(), group.shared.clock.clone());
            group.shared.spawn(async move {
                let asked = Asked::by(clock);
                let callers = calls.iter_mut().map(|call| call.callers.take());
                let callers: Option<Vec<_>> = callers.collect();
                let turn = LoadTurn {
                    abandoned: Box::pin(async move {
                        match callers {
                            Some(callers) => abandoned(&callers).await,
                            None => pending().await,
                        }
                    }),
                    asked: asked.clone(),
                    askers: FollowedAskers::of(calls.iter().map(|call| &call.askers)),
                };
                let keys: Vec<&str> = calls.iter().map(|call| &*call.key).collect();
                let mut loaded = origin.ask_many(&keys, turn).await.into_iter();
                for call in calls {
                    let loaded = loaded.next().unwrap_or_else(|| Err(no_result().into()));
                    // Its flight runs to the end, so somebody takes it.
                    let _ = call.loaded.send((loaded, asked.clone()));
                }
            });
        })
    }
}

fn no_result() -> Error {
    Error::origin_failed("load_many returned fewer results than there were keys")
}

/// The load of one key, which runs with those of the other calls of the batch, and when the origin
/// was asked.
pub(super) async fn load_with_others(
    seat: LoadSeat,
    key: &str,
    (askers, callers): (Askers, Option<Callers<Result<FlightOutcome>>>),
    asked: Asked,
) -> (Result<Loaded, BoxError>, Asked) {
    let (sender, loaded) = oneshot::channel();
    seat.fill(LoadCall {
        key: key.into(),
        askers,
        callers,
        loaded: sender,
    });
    loaded.await.unwrap_or_else(|_| {
        let what = "the load of a batch panicked; see the log";
        (Err(Error::new(ErrorKind::Internal, what).into()), asked)
    })
}
