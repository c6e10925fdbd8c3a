//! The call for several values at once: `Peer.FetchMany`.
//!
//! It keeps the rules of a fetch. What it leaves open is fetched key by key, which settles what
//! that says about the peer: it may be an older release that doesn't know the call, its connection
//! may have ended, or no slot is free, and then hits must not wait behind loads.

use std::{convert::Infallible, future::pending};

use futures::{
    StreamExt,
    future::join_all,
    stream::{self, FuturesUnordered},
};
use tokio::{
    join,
    sync::mpsc::{self, Receiver, Sender},
    time::{Instant, sleep, timeout},
};
use tonic::Status;
use tracing::Instrument;

use super::{
    failed::{Failed, Why},
    failure::{Failure, known},
    fetch::{WANT_PAUSE, load_too_long},
    links::Lane,
    pool::{Client, GrpcPeers},
};
use crate::{
    fairness::ClientId,
    rpc::{
        asked_for,
        many::{MAX_FETCHED_KEY_BYTES, in_messages},
    },
    service::HELD_BYTES,
    telemetry::trace,
    wire::{self, fetch_many_response::Outcome},
};
use gaocache_core::{
    askers::{Asker, FollowedAskers},
    membership::Member,
    ports::{Fetched, KeyAsked, MANY_AT_ONCE, MAX_BATCH_KEYS, Timestamp, all_given_up},
};

/// The keys of one message: those that have no answer yet.
struct Open(Vec<Option<KeyAsked>>);

/// How a call ended, while keys may be open.
enum Ended {
    /// They are to be fetched one by one.
    Open,
    /// All of them have failed so.
    Failed(Failed),
    /// Nobody waits for them any more.
    GivenUp,
}

/// What comes next of a call.
enum Next<T> {
    Answer(T),
    /// The member has not begun the key at that place, which another client has come to want.
    NotBegun(usize),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl GrpcPeers {
    /// Fetches these keys from that member, in as few messages as bounds allow.
    pub(super) async fn fetch_together(&self, member: &Member, group: &str, asked: Vec<KeyAsked>) {
        let messages = in_messages(asked, KeyAsked::key, MAX_BATCH_KEYS, MAX_FETCHED_KEY_BYTES);
        let messages = messages.into_iter().map(|keys| {
            let span = trace::fetch_span("gaocache.v1.Peer/FetchMany", member, group);
            self.fetch_message(member, group, keys).instrument(span)
        });
        let messages: Vec<_> = messages.collect();
        stream::iter(messages)
            .buffer_unordered(MANY_AT_ONCE)
            .collect::<()>()
            .await;
    }

    async fn fetch_message(&self, member: &Member, group: &str, keys: Vec<KeyAsked>) {
        let (alone, keys_alone) = mpsc::channel(keys.len());
        join!(
            self.fetch_open(member, group, keys, alone),
            self.fetch_each(member, group, keys_alone)
        );
    }

    /// Fetches these keys one by one, as they come.
    async fn fetch_each(&self, member: &Member, group: &str, mut keys: Receiver<KeyAsked>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                asked = keys.recv(), if under_way.len() < MANY_AT_ONCE => match asked {
                    Some(asked) => under_way.push(self.fetch_alone(member, group, asked)),
                    None => break,
                },
                Some(()) = under_way.next() => {}
            }
        }
        under_way.collect::<()>().await;
    }

    async fn fetch_alone(&self, member: &Member, group: &str, asked: KeyAsked) {
        let (key, askers) = (asked.key().to_owned(), asked.askers().clone());
        let fetch = self.fetch_traced(member, group, &key, &askers);
        asked.answer_from(fetch).await;
    }

    /// The call for these keys. Those that are to be fetched alone go there.
    async fn fetch_open(
        &self,
        member: &Member,
        group: &str,
        keys: Vec<KeyAsked>,
        alone: Sender<KeyAsked>,
    ) {
        let mut open = Open(keys.into_iter().map(Some).collect());
        let ended = match open.0.len() {
            1 => Ended::Open,
            _ => {
                let started = Instant::now();
                let (not_begun, unbegun) = mpsc::channel(open.0.len());
                let telling = self.tell_of_others(member, group, open.others(), not_begun);
                let call = self.call_fetch_many(member, group, &mut open, (unbegun, &alone));
                let ended = tokio::select! {
                    biased;
                    ended = call => ended,
                    never = telling => match never {},
                };
                let took = started.elapsed().as_secs_f64();
                self.metrics().peers.fetch_duration.observe(took);
                ended.unwrap_or_else(|ended| ended)
            }
        };
        match ended {
            Ended::GivenUp => {}
            Ended::Failed(failed) => {
                for asked in open.rest() {
                    self.record(member, &Err(failed.clone()));
                    asked.answer(Err(failed.error.clone()));
                }
            }
            Ended::Open => {
                for asked in open.rest() {
                    let _ = alone.send(asked).await;
                }
            }
        }
    }

    /// Tells the member who else wants one of these keys: the message names one client. It goes on
    /// until it is dropped. Where the member has not begun a key, its place comes out: the key
    /// waits there behind others of this message, for a client that has asked for none of them.
    async fn tell_of_others(
        &self,
        member: &Member,
        group: &str,
        keys: Vec<(usize, String, FollowedAskers)>,
        not_begun: Sender<usize>,
    ) -> Infallible {
        if let Ok(link) = &self.link(Lane::Data, member) {
            let telling = keys.into_iter().map(async |(place, key, mut others)| {
                loop {
                    let askers = others.further().await;
                    if self
                        .is_not_begun(member, link, (group, &key), &askers)
                        .await
                    {
                        // It may have overtaken the message, or the answer be on its way.
                        sleep(WANT_PAUSE).await;
                        let _ = not_begun.send(place).await;
                        return;
                    }
                }
            });
            join_all(telling).await;
        }
        pending().await
    }

    /// One call. Between two answers it takes no longer than a load may take.
    async fn call_fetch_many(
        &self,
        member: &Member,
        group: &str,
        open: &mut Open,
        (mut not_begun, alone): (Receiver<usize>, &Sender<KeyAsked>),
    ) -> Result<Ended, Ended> {
        let bounds = self.bounds_of(group)?;
        let bound = bounds.longest.saturating_add(self.timeout());
        let link = self.link(Lane::Data, member)?;
        let queue = link.slots.queue(group, &bounds);
        let Some(_slot) = link.slots.try_take(&queue) else {
            return Ok(Ended::Open);
        };
        let message = wire::FetchManyRequest {
            group: group.to_owned(),
            keys: open.keys(),
        };
        let send = |mut client: Client| {
            let mut request = trace::request(message.clone());
            asked_for::tell(request.metadata_mut().as_mut());
            async move { known(client.fetch_many(request).await) }
        };
        self.counted(member, "fetch_many");
        let asked_at = self.now();
        let call = self.call(member, &link, bound, send);
        let mut answers = match open.unless_given_up(call).await? {
            Ok(Some(answers)) => answers,
            Ok(None) => return Ok(Ended::Open),
            // Slow, and not out of reach.
            Err(failed) if failed.why == Why::Late => return Ok(load_too_long(member).into()),
            Err(failed) => return Ok(failed.into()),
        };
        let mut held = 0;
        loop {
            let next = async {
                tokio::select! {
                    next = timeout(bound, answers.message()) => Next::Answer(next),
                    Some(place) = not_begun.recv() => Next::NotBegun(place),
                }
            };
            let next = match open.unless_given_up(next).await? {
                Next::Answer(next) => next,
                Next::NotBegun(place) => {
                    if let Some(asked) = open.0.get_mut(place).and_then(Option::take) {
                        let _ = alone.send(asked).await;
                    }
                    continue;
                }
            };
            match next {
                Ok(Ok(Some(answer))) => {
                    held += usize::from(is_held(&answer));
                    self.take(member, open, answer, asked_at);
                }
                Ok(Ok(None)) => {
                    self.holding().had(member, group, held, open.0.len());
                    return Ok(Ended::Open);
                }
                Ok(Err(status)) => return Ok(self.broke_off(member, &status)),
                Err(_) => return Ok(load_too_long(member).into()),
            }
        }
    }

    /// An answer for one of the keys.
    fn take(
        &self,
        member: &Member,
        open: &mut Open,
        answer: wire::FetchManyResponse,
        asked_at: Timestamp,
    ) {
        // An outcome that this release doesn't know: the key stays open and is asked for alone.
        let Some(outcome) = answer.outcome else {
            return;
        };
        let place = usize::try_from(answer.place).ok();
        // What was not asked for is ignored.
        let Some(asked) = place.and_then(|place| open.0.get_mut(place)?.take()) else {
            return;
        };
        let result = match outcome {
            Outcome::Found(found) => self.read(member, found, asked_at),
            Outcome::Error(error) => Err(Failed::by_peer(error.error())),
            Outcome::Large(_) => return asked.answer(Ok(Fetched::Large)),
        };
        self.record(member, &result);
        let result = result.map_err(|failed| failed.error);
        asked.answer(result.map(Fetched::Answer));
    }

    /// What the end of a stream means for the keys that are open.
    fn broke_off(&self, member: &Member, status: &Status) -> Ended {
        let failure = Failure::of(status);
        let asked_again =
            failure.is_worth_another() || matches!(failure, Failure::Unusable | Failure::TooLarge);
        if asked_again {
            return Ended::Open;
        }
        self.failed(member, status).into()
    }
}

/// Whether it is from the member's memory, and may be sent with others.
fn is_held(answer: &wire::FetchManyResponse) -> bool {
    let Some(Outcome::Found(found)) = &answer.outcome else {
        return false;
    };
    let is_small = |entry: &wire::Entry| entry.value.len() <= HELD_BYTES;
    found.source() == wire::Source::Hit && found.entry.as_ref().is_some_and(is_small)
}

impl Open {
    fn keys(&self) -> Vec<String> {
        let open = self.0.iter().flatten();
        open.map(|asked| asked.key().to_owned()).collect()
    }

    /// The keys with their places, and who wants them beside the client for whom the message is.
    fn others(&self) -> Vec<(usize, String, FollowedAskers)> {
        let me = Asker::from(ClientId::current());
        let open = self.0.iter().enumerate();
        let open = open.filter_map(|(place, asked)| Some((place, asked.as_ref()?)));
        open.map(|(place, asked)| {
            let others = asked.askers().follow().but(me);
            (place, asked.key().to_owned(), others)
        })
        .collect()
    }

    fn rest(self) -> impl Iterator<Item = KeyAsked> {
        self.0.into_iter().flatten()
    }

    /// What `work` brings, unless everybody gives up before.
    async fn unless_given_up<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut open = self.0.iter_mut().flatten().peekable();
        if open.peek().is_none() {
            // With all answered, the end of the stream is awaited.
            return Ok(work.await);
        }
        tokio::select! {
            done = work => Ok(done),
            () = all_given_up(open) => Err(Ended::GivenUp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaocache_core::askers::Askers;

    #[test]
    fn no_message_has_more_keys_or_bytes_than_its_receiver_takes() {
        let sizes = |count: usize, bytes: usize| -> Vec<usize> {
            let (key, askers) = ("k".repeat(bytes), Askers::new(Vec::new()));
            let asked = (0..count)
                .map(|_| KeyAsked::new(&key, askers.clone()).0)
                .collect();
            let messages = in_messages(asked, KeyAsked::key, MAX_BATCH_KEYS, MAX_FETCHED_KEY_BYTES);
            messages.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(1_000, 20), [1_000]);
        assert_eq!(sizes(2_500, 20), [1_024, 1_024, 452]);
        assert_eq!(sizes(1_000, 4_096), [256, 256, 256, 232]);
    }
}
