//! Keys of a batch that their owners are likely to have in memory. Each owner is asked for its keys
//! in one message, and what it has is answered as it comes, without a flight.
//!
//! Nothing is kept and nobody shares it, so there is nothing that a removal would have to ground: a
//! get that begins after a removal asks the owner after it, too. What the owner doesn't bring is
//! asked for by the rules of a single get. That must not wait for other owners.

use std::sync::Arc;

use futures::{
    FutureExt, Stream, StreamExt,
    stream::{self, BoxStream},
};

use super::{Answer, Group, check_key};
use crate::{
    error::Result,
    membership::Member,
    ports::{PeerAnswer, Timestamp},
    ring::KeyHash,
};

/// At most so many answers of a batch that are there at the same time come together.
const TOGETHER: usize = 64;

/// Answers that come at the same moment, each with the place of its key.
pub type Batch = Vec<(usize, Result<Answer>)>;

/// An owner, its id as answers tell it, and its keys: their places and hashes.
struct Holder {
    member: Member,
    id: Arc<str>,
    keys: Vec<(usize, KeyHash)>,
}

impl Group {
    /// Gets the keys at these places, which memory doesn't have: answers as they come. See
    /// [`Group::get_many`].
    pub fn get_batch(
        self: &Arc<Self>,
        keys: &Arc<[String]>,
        places: &[usize],
    ) -> impl Stream<Item = Batch> + Send + use<> {
        let (holders, rest) = self.holders(keys, places);
        let rest = self.get_rest(keys, rest);
        let held = holders.into_iter().map(|holder| {
            let (group, keys) = (self.clone(), keys.clone());
            let held = async move { group.get_held_by(holder, keys).await };
            held.flatten_stream().boxed()
        });
        stream::select_all(held.chain(rest))
    }

    /// The owners that are to be asked for what they have in memory, and the places that are left.
    fn holders(&self, keys: &[String], places: &[usize]) -> (Vec<Holder>, Vec<usize>) {
        // Outside the fence, more than the owner may have to be asked.
        if !self.is_sure() {
            return (Vec::new(), places.to_vec());
        }
        let (topology, now) = (self.shared.cluster.topology(), self.shared.clock.now());
        let members = &topology.view.members;
        // By the member's index; `Some(None)`: it is not to be asked.
        let mut holders: Vec<Option<Option<Holder>>> = Vec::new();
        holders.resize_with(members.len(), || None);
        let mut rest = Vec::new();
        for &place in places {
            let key = &*keys[place];
            let hash = self.hash(key);
            let owner = topology.owner_index(hash).filter(|it| !topology.is_me(*it));
            let holder = owner.filter(|_| check_key(key).is_ok()).and_then(|at| {
                let id = || topology.id_for_answer(at).unwrap_or_default();
                let of_owner = holders[at].get_or_insert_with(|| self.holder(&members[at], id));
                of_owner.as_mut()
            });
            match holder {
                // A flight keeps a copy of what is hot.
                Some(holder) if !self.shared.hot_keys.is_nearly_hot(hash, now) => {
                    holder.keys.push((place, hash));
                }
                _ => rest.push(place),
            }
        }
        (holders.into_iter().flatten().flatten().collect(), rest)
    }

    /// The member, if it is to be asked for what it has in memory.
    fn holder(&self, member: &Member, id: impl FnOnce() -> Arc<str>) -> Option<Holder> {
        let peers = &self.shared.peers;
        let asked = peers.usable(member) && peers.holds_most(member, &self.name);
        asked.then(|| Holder {
            member: member.clone(),
            id: id(),
            keys: Vec::new(),
        })
    }

    /// What the owner has in memory, then what it hasn't.
    async fn get_held_by(
        self: Arc<Self>,
        holder: Holder,
        keys: Arc<[String]>,
    ) -> impl Stream<Item = Batch> + Send + use<> {
        let places = holder.keys.iter().map(|(place, _)| *place);
        let asked: Vec<&str> = places.map(|place| &*keys[place]).collect();
        let peers = &self.shared.peers;
        let held = peers.held(&holder.member, &self.name, &asked).await;
        let now = self.shared.clock.now();
        let (mut batch, mut rest) = (Batch::with_capacity(held.len()), Vec::new());
        let mut held = held.into_iter();
        for (place, hash) in holder.keys {
            let answer = held.next().flatten();
            match answer.and_then(|it| self.answer_of(it, &holder.id, now)) {
                Some(answer) => {
                    self.shared.hot_keys.count(hash, now);
                    batch.push((place, answer));
                }
                None => rest.push(place),
            }
        }
        let held = (!batch.is_empty()).then_some(batch);
        let rest = stream::iter(self.get_rest(&keys, rest)).flatten();
        stream::iter(held).chain(rest)
    }

    /// The answer to a get with what its owner has.
    fn answer_of(
        &self,
        held: PeerAnswer,
        owner: &Arc<str>,
        now: Timestamp,
    ) -> Option<Result<Answer>> {
        let held = self.judged(held, now)?;
        // It must not pin the message of all of them.
        let record = held.record.detached();
        if record.is_absent() {
            return Some(Err(self.no_such_key(&record)));
        }
        Some(Ok(Answer {
            value: record.value.unwrap_or_default(),
            expires_at: record.expires_at,
            entity_tag: record.entity_tag,
            source: held.source,
            owner: owner.clone(),
            metadata: record.metadata,
            course: held.course,
        }))
    }

    /// The keys at these places by the rules of single gets; `None` if there are none.
    fn get_rest(
        self: &Arc<Self>,
        keys: &[String],
        places: Vec<usize>,
    ) -> Option<BoxStream<'static, Batch>> {
        let asked: Vec<&str> = places.iter().map(|place| &*keys[*place]).collect();
        (!asked.is_empty()).then(|| {
            let answers = self.get_many(&asked);
            let answers = answers.map(move |(nth, answer)| (places[nth], answer));
            answers.ready_chunks(TOGETHER).boxed()
        })
    }
}
