//! The calls of the core, as gRPC.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    fetch::peek_request,
    handoff::GrpcHandoffStream,
    links::Lane,
    pool::{Client, GrpcPeers},
};
use crate::{rpc::convert, wire};
use gaocache_core::{
    askers::Askers,
    membership::{IdHash, Member},
    ports::{
        HandoffStream, KeyAsked, Peeked, PeerAnswer, PeerError, Peers, Removal, Removed, Voucher,
    },
};

/// Bound on a peek, which the peer answers from memory: past it the next is asked, and then the
/// origin.
const PEEK_TIMEOUT: Duration = Duration::from_secs(1);

#[async_trait]
impl Peers for GrpcPeers {
    fn usable(&self, member: &Member) -> bool {
        !self.is_ejected(member)
    }

    async fn fetch(
        &self,
        member: &Member,
        group: &str,
        key: &str,
        askers: &Askers,
    ) -> Result<PeerAnswer, PeerError> {
        match self.fetch_gathered(member, group, key, askers).await {
            Some(fetched) => fetched,
            None => self.fetch_traced(member, group, key, askers).await,
        }
    }

    async fn fetch_many(&self, member: &Member, group: &str, asked: Vec<KeyAsked>) {
        self.fetch_together(member, group, asked).await;
    }

    fn holds_most(&self, member: &Member, group: &str) -> bool {
        self.has_held_most(member, group)
    }

    async fn held(&self, member: &Member, group: &str, keys: &[&str]) -> Vec<Option<PeerAnswer>> {
        self.held_by(member, group, keys).await
    }

    async fn peek(&self, member: &Member, group: &str, key: &str) -> Result<Peeked, PeerError> {
        let found = match self.link(Lane::Data, member) {
            Ok(link) => {
                self.call_peek(member, &link, PEEK_TIMEOUT, peek_request(group, key))
                    .await
            }
            Err(failed) => Err(failed),
        };
        found.map_err(|failed| failed.error)
    }

    async fn remove(
        &self,
        member: &Member,
        group: &str,
        what: &Removal,
    ) -> Result<Removed, PeerError> {
        let (key, tag) = match what {
            Removal::Key(key) => (Some(key.to_string()), None),
            Removal::Tag(tag) => (None, Some(tag.to_string())),
            Removal::All => (None, None),
        };
        let group = group.to_owned();
        let request = wire::RemoveHereRequest { group, key, tag };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.remove(request).await }
        };
        let answer = self.ask(member, self.timeout(), send).await?;
        Ok(Removed {
            entries: answer.entries,
            incarnation: IdHash(answer.incarnation),
        })
    }

    async fn vouch(
        &self,
        member: &Member,
        asker: IdHash,
        counted: &[IdHash],
    ) -> Result<Voucher, PeerError> {
        let request = wire::VouchRequest {
            asker: asker.0,
            counted: counted.iter().map(|it| it.0).collect(),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.vouch(request).await }
        };
        Ok(convert::voucher(
            self.ask(member, self.timeout(), send).await?,
        ))
    }

    async fn promise(&self, member: &Member, against: IdHash) -> Result<IdHash, PeerError> {
        let request = wire::PromiseRequest { against: against.0 };
        let send = |mut client: Client| async move { client.promise(request).await };
        let answer = self.ask(member, self.timeout(), send).await?;
        Ok(IdHash(answer.incarnation))
    }

    async fn handoff(
        &self,
        member: &Member,
        revision: u64,
    ) -> Result<Box<dyn HandoffStream>, PeerError> {
        let opened = GrpcHandoffStream::open(self, member, revision).await;
        Ok(Box::new(opened?))
    }

    async fn await_revision(
        &self,
        member: &Member,
        revision: u64,
        listed: IdHash,
    ) -> Result<(), PeerError> {
        let listed = listed.0;
        let request = wire::AwaitRevisionRequest { revision, listed };
        let send = |mut client: Client| async move { client.await_revision(request).await };
        // Its caller bounds it: the answer waits for what the member is to see.
        self.ask(member, Duration::MAX, send).await.map(|_| ())
    }
}
