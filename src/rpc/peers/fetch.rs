//! The call that carries the reads: `Peer.Fetch`, and `Peer.Peek`, which takes no slot.
//!
//! A fetch takes as long as the owner's load may take, as far as this node's settings tell. Past
//! that its callers get `origin_timeout`, never a second load. A caller that doesn't want to wait
//! that long sets a deadline or hangs up: the fetch is dropped then, which resets its stream at the
//! owner.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tracing::Instrument;

use super::{
    failed::{Failed, Why},
    failure::known,
    links::{Lane, Link},
    pool::{Client, GrpcPeers},
    slots::LoadBounds,
};
use crate::{
    backoff::pauses,
    rpc::{asked_for, convert},
    telemetry::trace::{self, SpanAttributes},
    wire,
};
use gaocache_core::{
    askers::{Asker, Askers, FollowedAskers},
    error::{Error, ErrorKind},
    group::Source,
    membership::Member,
    ports::{Peeked, PeerAnswer, PeerError, Timestamp},
};

/// Pauses before an owner is told again who else wants a key whose load it has not begun.
pub(super) const WANT_PAUSE: Duration = Duration::from_millis(10);
const LAST_WANT_PAUSE: Duration = Duration::from_secs(1);

impl GrpcPeers {
    /// A fetch with its metrics and its span.
    pub(super) async fn fetch_traced(
        &self,
        member: &Member,
        group: &str,
        key: &str,
        askers: &Askers,
    ) -> Result<PeerAnswer, PeerError> {
        let started = Instant::now();
        let span = trace::fetch_span("gaocache.v1.Peer/Fetch", member, group);
        let call = async {
            let result = self.fetch_in_turn(member, group, key, askers).await;
            self.record(member, &result);
            result
        };
        let result = call.instrument(span).await;
        let took = started.elapsed().as_secs_f64();
        self.metrics().peers.fetch_duration.observe(took);
        result.map_err(|failed| failed.error)
    }

    pub(super) fn record(&self, member: &Member, result: &Result<PeerAnswer, Failed>) {
        let outcome = match result {
            Ok(answer) if answer.source != Source::Origin => "hit",
            Ok(_) => "origin",
            Err(failed) => failed.why.name(),
        };
        let fetches = &self.metrics().peers.fetches;
        fetches.with_label_values(&[&*member.id, outcome]).inc();
        let value = result.as_ref().ok();
        let value = value.and_then(|it| it.record.value.as_ref());
        trace::ended(
            match result {
                Ok(_) => Ok(outcome),
                Err(failed) => {
                    let (PeerError::Answered(error) | PeerError::Unreachable(error)) =
                        &failed.error;
                    Err(error)
                }
            },
            SpanAttributes {
                bytes: value.map(Bytes::len),
                ..SpanAttributes::default()
            },
        );
    }

    /// A message leaves that asks for values.
    pub(super) fn counted(&self, member: &Member, call: &str) {
        let messages = &self.metrics().peers.messages;
        messages.with_label_values(&[&*member.id, call]).inc();
    }

    /// A fetch over a slot of its group; where none is free, a peek first.
    async fn fetch_in_turn(
        &self,
        member: &Member,
        group: &str,
        key: &str,
        askers: &Askers,
    ) -> Result<PeerAnswer, Failed> {
        let bounds = self.bounds_of(group)?;
        let link = self.link(Lane::Data, member)?;
        let queue = link.slots.queue(group, &bounds);
        let _slot = match link.slots.try_take(&queue) {
            Some(slot) => slot,
            None => {
                // Without a short limit: this fetch would only wait elsewhere. And many calls that
                // are dropped at once look like an attack to the peer, which hangs up (h2 counts
                // resets of calls that it has not begun).
                let request = peek_request(group, key);
                let peeked = self.call_peek(member, &link, bounds.longest, request);
                match peeked.await {
                    Ok(Peeked {
                        entry: Some(answer),
                        ..
                    }) => return Ok(answer),
                    Ok(_) => {}
                    // It is alive, and may yet load the value.
                    Err(failed) if matches!(failed.why, Why::Late | Why::Incompatible) => {}
                    Err(failed) => return Err(failed),
                }
                let slot = timeout(bounds.longest, link.slots.take(&queue, askers.follow())).await;
                let slot = slot.map_err(|_| load_too_long(member))?;
                if self.is_ejected(member) {
                    return Err(Failed::not_connected(member));
                }
                slot.map_err(Failed::answered)?
            }
        };
        let call = self.call_fetch(member, &link, (group, key), askers, &bounds);
        call.await
    }

    pub(super) fn bounds_of(&self, group: &str) -> Result<LoadBounds, Failed> {
        self.load_bounds(group).ok_or_else(|| {
            let what = format!("no group '{group}' is configured here");
            Failed::answered(Error::new(ErrorKind::UnknownGroup, what))
        })
    }

    async fn call_fetch(
        &self,
        member: &Member,
        link: &Arc<Link>,
        (group, key): (&str, &str),
        askers: &Askers,
        bounds: &LoadBounds,
    ) -> Result<PeerAnswer, Failed> {
        let bound = bounds.longest.saturating_add(self.timeout());
        let mut further = askers.follow();
        further.take();
        let send = |mut client: Client| {
            // Each attempt names all: the one before may have reached nobody.
            let told = askers.follow().take();
            let mut request = trace::request(wire::FetchRequest {
                group: group.to_owned(),
                key: key.to_owned(),
            });
            request.set_timeout(bound);
            asked_for::tell_all(request.metadata_mut().as_mut(), &told);
            async move { client.fetch(request).await }
        };
        self.counted(member, "fetch");
        let asked_at = self.now();
        let telling = self.tell_of_further(member, link, (group, key), further);
        let answered = tokio::select! {
            biased;
            answered = self.call(member, link, bound, send) => answered,
            never = telling => match never {},
        };
        match answered {
            Ok(response) => self.read(member, response, asked_at),
            Err(failed) if failed.why == Why::Late => Err(load_too_long(member)),
            Err(failed) => Err(failed),
        }
    }

    /// Tells the owner who else wants a key that is asked for over this link, as they come.
    pub(super) async fn tell_of_further(
        &self,
        member: &Member,
        link: &Arc<Link>,
        (group, key): (&str, &str),
        mut further: FollowedAskers,
    ) -> Infallible {
        loop {
            let mut askers = further.further().await;
            for pause in pauses(WANT_PAUSE, LAST_WANT_PAUSE) {
                if !self.is_not_begun(member, link, (group, key), &askers).await {
                    break;
                }
                // It may have overtaken the fetch.
                sleep(pause).await;
                askers.extend(further.take());
            }
        }
    }

    /// Tells the owner that these want a key, too; whether it says that no load of it is under way.
    pub(super) async fn is_not_begun(
        &self,
        member: &Member,
        link: &Arc<Link>,
        (group, key): (&str, &str),
        askers: &[Asker],
    ) -> bool {
        let request = wire::WantRequest {
            group: group.to_owned(),
            key: key.to_owned(),
            clients: askers.iter().map(|it| it.0).collect(),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { known(client.want(request).await) }
        };
        // Few keys come to be wanted by others: what a call takes is not in the future of each.
        let call = Box::pin(self.call(member, link, self.timeout(), send));
        // Whatever else becomes of it, the fetch goes on.
        matches!(call.await, Ok(Some(answer)) if answer.not_begun)
    }

    /// The answer to a request that was sent at `asked_at`.
    pub(super) fn read(
        &self,
        member: &Member,
        response: wire::FetchResponse,
        asked_at: Timestamp,
    ) -> Result<PeerAnswer, Failed> {
        let answer = convert::peer_answer(response, asked_at)
            .ok_or_else(|| self.failed(member, &Status::unimplemented("unknown entry format")))?;
        self.arrived(member, answer.value_bytes());
        Ok(answer)
    }

    /// Counts bytes of values in answers.
    pub(super) fn arrived(&self, member: &Member, bytes: usize) {
        let topology = self.cluster().topology();
        let received = &self.metrics().peers.fetched_bytes;
        received.add(topology.me(), Some(member), bytes);
    }

    /// What the member has in memory.
    pub(super) async fn call_peek(
        &self,
        member: &Member,
        link: &Arc<Link>,
        bound: Duration,
        request: wire::PeekRequest,
    ) -> Result<Peeked, Failed> {
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.peek(request).await }
        };
        self.counted(member, "peek");
        let asked_at = self.now();
        let found = self.call(member, link, bound, send).await?;
        let peeked = convert::peeked(found, asked_at);
        if let Some(answer) = &peeked.entry {
            self.arrived(member, answer.value_bytes());
        }
        Ok(peeked)
    }
}

/// Asks for what a member has in memory.
pub(super) fn peek_request(group: &str, key: &str) -> wire::PeekRequest {
    wire::PeekRequest {
        group: group.to_owned(),
        key: key.to_owned(),
    }
}

pub(super) fn load_too_long(member: &Member) -> Failed {
    let what = format!(
        "{} has not loaded the value in the time that loads of this group may take",
        member.id
    );
    Failed::answered(Error::new(ErrorKind::OriginTimeout, what))
}
