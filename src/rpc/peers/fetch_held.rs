//! Fetches from one member that come at the same moment share a message, `Peer.FetchHeld`, which is
//! answered from the member's memory.
//!
//! Nothing waits for others to come: a message leaves once its worker has begun what was ready when
//! the first of its keys came. So a fetch that comes alone leaves alone. The message takes no slot
//! and waits for no load. What it doesn't bring is fetched alone, by all the rules of a fetch; a
//! load must never begin here, since its caller couldn't give it up by itself.

use std::sync::Arc;

use futures::future::join_all;
use tokio::time::Instant;

use super::{
    failed::{Failed, Why},
    failure::known,
    links::{Lane, Link},
    pool::{Client, GrpcPeers},
};
use crate::{
    rpc::many::{MAX_GATHERED_KEY_BYTES, MAX_GATHERED_KEYS, in_messages},
    telemetry::trace::Scope,
    wire::{self, fetch_many_response::Outcome},
};
use gaocache_core::{
    askers::Askers,
    membership::Member,
    ports::{Fetched, KeyAsked, PeerAnswer, PeerError, Timestamp, all_given_up},
};

impl GrpcPeers {
    /// A fetch that leaves with others; `None` if it has to be made alone.
    pub(super) async fn fetch_gathered(
        &self,
        member: &Member,
        group: &str,
        key: &str,
        askers: &Askers,
    ) -> Option<Result<PeerAnswer, PeerError>> {
        // A trace tells of each fetch by itself.
        if !matches!(Scope::current(), Scope::Nothing) {
            return None;
        }
        let link = self.link(Lane::Data, member).ok()?;
        let (answered, is_first) = link.gathered.add(group, key, askers)?;
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
        let messages = in_messages(
            keys,
            KeyAsked::key,
            MAX_GATHERED_KEYS,
            MAX_GATHERED_KEY_BYTES,
        );
        let calls = messages.into_iter().map(async |keys| {
            let count = keys.len();
            let answered = self.fetch_held(member, group, link, keys).await;
            link.gathered.brought(group, answered, count);
        });
        join_all(calls).await;
    }

    /// One message; returns how many of its keys were answered, or given up.
    async fn fetch_held(
        &self,
        member: &Member,
        group: &str,
        link: &Arc<Link>,
        mut keys: Vec<KeyAsked>,
    ) -> usize {
        let asked_at = self.now();
        let request = wire::FetchManyRequest {
            group: group.to_owned(),
            keys: keys.iter().map(|asked| asked.key().to_owned()).collect(),
        };
        let called = tokio::select! {
            called = self.call_held(member, link, &request) => called,
            // What it would have brought is not known.
            () = all_given_up(&mut keys) => return keys.len(),
        };
        match called {
            Ok(None) => 0,
            Ok(Some(held)) => self.hand_out(member, keys, held, asked_at),
            Err(failed) => {
                let count = keys.len();
                for asked in keys {
                    self.record(member, &Err(failed.clone()));
                    asked.answer(Err(failed.error.clone()));
                }
                count
            }
        }
    }

    /// `None` if the member doesn't know the call, or is slow: its memory answers at once, so it
    /// need not be waited for as long as for a load.
    pub(super) async fn call_held(
        &self,
        member: &Member,
        link: &Arc<Link>,
        request: &wire::FetchManyRequest,
    ) -> Result<Option<wire::FetchHeldResponse>, Failed> {
        let send = |mut client: Client| {
            let request = request.clone();
            async move { known(client.fetch_held(request).await) }
        };
        self.counted(member, "fetch_held");
        let started = Instant::now();
        let called = self.call(member, link, self.timeout(), send).await;
        let took = started.elapsed().as_secs_f64();
        self.metrics().peers.fetch_duration.observe(took);
        match called {
            // Slow, and not out of reach.
            Err(failed) if failed.why == Why::Late => Ok(None),
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
            self.record(member, &result);
            let result = result.map_err(|failed| failed.error);
            asked.answer(result.map(Fetched::Answer));
        }
        answered
    }
}
