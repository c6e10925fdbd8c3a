//! A client's get of several keys, and another node's fetch of those that are in memory.
//!
//! It must never have more under way than bounds allow, whatever the number of keys.

use std::sync::Arc;

use futures::{
    Stream, StreamExt,
    future::ready,
    stream::{self, BoxStream},
};
use tokio::time::Instant;

use super::Service;
use crate::fairness::Permit;
use gaocache_core::{
    error::Result,
    group::{Answer, Batch, Room},
    ports::{Fetched, MAX_BATCH_KEYS},
};

/// Values above this size are not sent with others that come from memory at the same moment: two
/// messages cost less than the copies.
pub(crate) const HELD_BYTES: usize = 4 << 10;
/// And no more than this in all, with what the origin said of them: a message has room for it
/// whatever the groups allow.
const HELD_TOGETHER_BYTES: usize = 512 << 10;
/// What a key that is asked for takes meanwhile, in bytes: its flight, the task of that, and its
/// part in the message to its owner. Measured as 4.0 KB where another node owns it.
const FLIGHT_BYTES: usize = 4 << 10;

/// What the keys of a request take while they are asked for, in bytes.
pub(crate) fn flight_bytes(keys: usize) -> usize {
    keys.min(MAX_BATCH_KEYS) * FLIGHT_BYTES
}

/// Answers as they come.
pub(crate) type Answers = BoxStream<'static, Batch>;

/// The keys of a request that are worked on at the same time.
struct Part {
    /// The place of the first of them.
    first: usize,
    /// What is known of some of them.
    known: Batch,
    /// The places of the others.
    missed: Vec<usize>,
    /// What counts a key for the client, from the first on.
    under_way: Vec<Option<Permit>>,
    /// The place of the first key of the next part.
    next: usize,
    /// When those that memory does not have began, if they are timed.
    started: Option<Instant>,
}

/// What a client gets, in bytes.
fn bytes(answer: &Answer) -> usize {
    let plain = answer.metadata.plain_bytes();
    plain.map_or(answer.value.len(), |it| {
        usize::try_from(it).unwrap_or(usize::MAX)
    })
}

impl Service {
    /// A client's get of several keys: answers as they come, each with the place of its key, first
    /// those that memory has. What is not in memory is asked for at once, in one message to each
    /// owner; but no more than [`MAX_BATCH_KEYS`] keys at a time, nor than the client may have
    /// under way.
    pub fn get_many(
        &self,
        group: &str,
        keys: Arc<[String]>,
    ) -> impl Stream<Item = (usize, Result<Answer>)> + Send + use<> {
        let batches = self.get_in_parts(group, keys, |_| Ok(())).flatten();
        batches.flat_map(stream::iter)
    }

    /// The same in parts, of which each begins when it is asked for. `count` takes room for what is
    /// asked for meanwhile, in bytes, until the part ends. What finds no room is not asked for.
    pub fn get_in_parts<C: Send + 'static, F: Fn(usize) -> Result<C> + Send>(
        &self,
        group: &str,
        keys: Arc<[String]>,
        count: F,
    ) -> impl Stream<Item = Answers> + Send + use<C, F> {
        let (service, group) = (self.clone(), Arc::<str>::from(group));
        stream::unfold(0, move |first| {
            let part = (first < keys.len()).then(|| {
                let part = service.part(&group, &keys, first);
                let next = part.next;
                let counted = match part.missed.len() {
                    0 => Ok(None),
                    missed => count(flight_bytes(missed)).map(Some),
                };
                (service.answers(&group, &keys, part, counted), next)
            });
            ready(part)
        })
    }

    /// The keys from that place on, as far as they may be worked on at once.
    fn part(&self, group: &str, keys: &[String], first: usize) -> Part {
        let room = Room::default();
        let mut part = Part {
            first,
            known: Vec::new(),
            missed: Vec::new(),
            under_way: Vec::new(),
            next: keys.len().min(first + MAX_BATCH_KEYS),
            started: self.inner.measuring.requests.then(Instant::now),
        };
        let now = self.now();
        for (place, key) in (first..part.next).zip(&keys[first..part.next]) {
            part.under_way.push(None);
            // What finds no room is looked for again in its turn.
            let started = self.begin_held();
            if let Some(answer) = self.inner.groups.held(group, key, now) {
                if room.take(answer.as_ref().map_or(0, bytes)) {
                    self.has_held(group, key, started, &answer);
                    part.known.push((place, answer));
                } else {
                    // It is in memory, so it doesn't count as a miss.
                    part.missed.push(place);
                }
                continue;
            }
            let begun = match self.inner.quotas.miss_if_room(self.client) {
                // Others of this request end first.
                None if place > first => {
                    part.next = place;
                    break;
                }
                None => self.miss(),
                Some(begun) => Ok(begun),
            };
            match begun {
                Ok(begun) => {
                    part.missed.push(place);
                    part.under_way[place - first] = Some(begun);
                }
                Err(error) => part.known.push((place, Err(error))),
            }
        }
        part
    }

    fn answers<C: Send + 'static>(
        &self,
        group: &Arc<str>,
        keys: &Arc<[String]>,
        part: Part,
        counted: Result<C>,
    ) -> Answers {
        let Part {
            first,
            known,
            missed,
            mut under_way,
            started,
            ..
        } = part;
        let begun = counted.and_then(|counted| Ok((counted, self.inner.groups.get(group)?)));
        let rest = match begun {
            Ok((counted, found)) => {
                let answers = self.client.within(|| found.get_batch(keys, &missed));
                let answers = self.client.reads(answers).map(move |batch| {
                    let _counted = &counted;
                    batch
                });
                answers.left_stream()
            }
            Err(error) => {
                let refused = missed.into_iter().map(|place| (place, Err(error.clone())));
                stream::iter([refused.collect()]).right_stream()
            }
        };
        let (service, group, keys) = (self.clone(), group.clone(), keys.clone());
        let rest = rest.map(move |batch: Batch| {
            let took = started.map(|it| it.elapsed());
            for (place, answer) in &batch {
                under_way[*place - first] = None;
                let key = &keys[*place];
                if let Some(took) = took {
                    service.measure(&group, key, took, answer);
                }
                service.record_get(&group, key, answer);
            }
            batch
        });
        let plain = self.clone();
        let batches = stream::iter([known]).chain(rest);
        let batches = batches.flat_map(move |batch| plain.clone().plain_batches(batch));
        batches.boxed()
    }

    /// Another node's fetch of several keys, from memory alone. What is not there, or too large to
    /// be sent with others, is to be fetched alone.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownGroup`](crate::ErrorKind::UnknownGroup).
    pub fn held_for_peer(
        &self,
        group: &str,
        keys: &[String],
    ) -> Result<impl Iterator<Item = Result<Fetched>>> {
        let known = self.inner.groups.get(group)?;
        let (mut room, now) = (HELD_TOGETHER_BYTES, self.now());
        Ok(keys.iter().map(move |key| {
            let held = match known.held_for_peer_at(key, now) {
                Some(Ok(answer)) if answer.value_bytes() <= HELD_BYTES => {
                    let Some(rest) = room.checked_sub(answer.record.bytes()) else {
                        return Ok(Fetched::Large);
                    };
                    room = rest;
                    Ok(answer)
                }
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => return Ok(Fetched::Large),
            };
            self.record_fetch(known.name(), key, held.as_ref());
            held.map(Fetched::Answer)
        }))
    }
}
