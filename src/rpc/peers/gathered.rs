//! Fetches from one member that come at the same moment share a message, `Peer.FetchHeld`, which is
//! answered from the member's memory.
//!
//! Nothing waits for others to come: a message leaves once its worker has begun what was ready when
//! the first of its keys came. So a fetch that comes alone leaves alone. The message takes no place
//! and waits for no load. What it doesn't bring is fetched alone, by all the rules of a fetch; a
//! load must never begin here, since its caller couldn't give it up by itself.

use std::{collections::HashMap, mem, sync::Arc};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};
use tonic::transport::Channel;

use super::{
    failed::{Failed, Why},
    fetch::load_too_long,
    fetch_many::{known, messages},
    links::{Lane, Link},
    pool::GrpcPeers,
};
use crate::{
    rpc::{
        many::{MAX_HELD_KEY_BYTES, MAX_HELD_KEYS},
        wire::{self, fetch_many_response::Outcome, peer_client::PeerClient},
    },
    telemetry::trace::Scope,
};
use gaocache_core::{
    membership::Member,
    ports::{Fetched, KeyAsked, PeerAnswer, PeerError, Timestamp},
};

/// Where less than half of a message was brought, so many fetches go alone: the values are large,
/// or the member has to load them, or it doesn't know the call.
const ALONE: u32 = 256;

/// Fetches that are about to leave over one connection, by group.
#[derive(Default)]
pub(super) struct Gathered(Mutex<HashMap<Box<str>, OfGroup>>);

#[derive(Default)]
struct OfGroup {
    keys: Vec<KeyAsked>,
    /// So many more go alone.
    alone: u32,
}

type Answered = oneshot::Receiver<Result<Fetched, PeerError>>;

impl Gathered {
    /// Where the answer comes, and whether the key is the first of its message; `None` if it is to
    /// go alone.
    fn add(&self, group: &str, key: &str) -> Option<(Answered, bool)> {
        let mut groups = self.0.lock();
        let of_group = match groups.get_mut(group) {
            Some(of_group) => of_group,
            None => groups.entry(group.into()).or_default(),
        };
        if let Some(left) = of_group.alone.checked_sub(1) {
            of_group.alone = left;
            return None;
        }
        let (asked, answered) = KeyAsked::new(key);
        of_group.keys.push(asked);
        Some((answered, of_group.keys.len() == 1))
    }

    /// The keys that leave now.
    fn leave(&self, group: &str) -> Vec<KeyAsked> {
        let mut groups = self.0.lock();
        let of_group = groups.get_mut(group);
        of_group
            .map(|it| mem::take(&mut it.keys))
            .unwrap_or_default()
    }

    /// So many keys of a message were answered.
    fn brought(&self, group: &str, answered: usize, of: usize) {
        if answered * 2 < of
            && let Some(of_group) = self.0.lock().get_mut(group)
        {
            of_group.alone = ALONE;
        }
    }
}

impl GrpcPeers {
    /// A fetch that leaves with others; `None` if it has to be made alone.
    pub(super) async fn fetch_gathered(
        &self,
        member: &Member,
        group: &str,
        key: &str,
    ) -> Option<Result<PeerAnswer, PeerError>> {
        // A trace tells of each fetch by itself.
        if !matches!(Scope::current(), Scope::Nothing) {
            return None;
        }
        let link = self.link(Lane::Data, member).ok()?;
        let (answered, is_first) = link.gathered.add(group, key)?;
        if is_first {
            let (peers, member, group) = (self.clone(), member.clone(), Arc::<str>::from(group));
            // Behind all that is ready on this worker by now. A task of its own: whoever is first
            // may give up before the others.
            tokio::spawn(async move { peers.leave_together(&member, &group, &link).await });
        }
        match answered.await {
            Ok(Ok(Fetched::Answer(answer))) => Some(Ok(answer)),
            Ok(Err(error)) => Some(Err(error)),
            Ok(Ok(Fetched::Large)) | Err(_) => None,
        }
    }

    async fn leave_together(&self, member: &Member, group: &str, link: &Arc<Link>) {
        let keys = link.gathered.leave(group);
        if keys.len() < 2 {
            // Dropped, it is fetched alone.
            return;
        }
        let messages = messages(keys, MAX_HELD_KEYS, MAX_HELD_KEY_BYTES);
        let calls = messages.into_iter().map(async |keys| {
            let count = keys.len();
            let answered = self.fetch_held(member, group, link, keys).await;
            link.gathered.brought(group, answered, count);
        });
        join_all(calls).await;
    }

    /// One message; returns how many of its keys were answered.
    async fn fetch_held(
        &self,
        member: &Member,
        group: &str,
        link: &Arc<Link>,
        keys: Vec<KeyAsked>,
    ) -> usize {
        let (started, asked_at) = (Instant::now(), self.now());
        let called = self.call_held(member, group, link, &keys).await;
        let took = started.elapsed().as_secs_f64();
        self.metrics().peers.fetch_duration.observe(took);
        match called {
            Ok(None) => 0,
            Ok(Some(held)) => self.hand_out(member, keys, held, asked_at),
            Err(failed) => {
                let count = keys.len();
                for asked in keys {
                    self.told(member, &Err(failed.clone()));
                    asked.answer(Err(failed.error.clone()));
                }
                count
            }
        }
    }

    /// `None` if the member doesn't know the call.
    async fn call_held(
        &self,
        member: &Member,
        group: &str,
        link: &Arc<Link>,
        keys: &[KeyAsked],
    ) -> Result<Option<wire::FetchHeldResponse>, Failed> {
        let bound = self
            .bounds_of(group)?
            .longest
            .saturating_add(self.timeout());
        let send = |mut client: PeerClient<Channel>| {
            let request = wire::FetchManyRequest {
                group: group.to_owned(),
                keys: keys.iter().map(|asked| asked.key().to_owned()).collect(),
            };
            async move { known(client.fetch_held(request).await) }
        };
        self.counted(member, "fetch_held");
        match self.call(member, link, bound, send).await {
            // Slow, and not out of reach.
            Err(failed) if failed.why == Why::Late => Err(load_too_long(member)),
            called => called,
        }
    }

    fn hand_out(
        &self,
        member: &Member,
        keys: Vec<KeyAsked>,
        held: wire::FetchHeldResponse,
        asked_at: Timestamp,
    ) -> usize {
        let mut answered = 0;
        for (asked, answer) in keys.into_iter().zip(held.answers) {
            let result = match answer.outcome {
                Some(Outcome::Found(found)) => self.read(member, found, asked_at),
                Some(Outcome::Error(error)) => Err(Failed::by_peer(error.error())),
                // Dropped, it is fetched alone.
                Some(Outcome::Large(_)) | None => continue,
            };
            answered += 1;
            self.told(member, &result);
            let result = result.map_err(|failed| failed.error);
            asked.answer(result.map(Fetched::Answer));
        }
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_little_is_brought_the_next_fetches_go_alone() {
        let gathered = Gathered::default();
        let add = |group| gathered.add(group, "key").map(|(_, is_first)| is_first);
        assert_eq!(
            (add("a"), add("a"), add("b")),
            (Some(true), Some(false), Some(true))
        );
        assert_eq!(gathered.leave("a").len(), 2);
        assert_eq!(gathered.leave("a").len(), 0);
        gathered.brought("a", 5, 10);
        assert_eq!(add("a"), Some(true), "half of it was worth it");
        gathered.brought("a", 4, 10);
        for _ in 0..ALONE {
            assert_eq!(add("a"), None);
        }
        assert_eq!(add("b"), Some(false), "the other group");
        assert_eq!(add("a"), Some(false), "tried once more");
    }
}
