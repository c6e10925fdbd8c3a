//! The service `gaocache.v1.Peer`, for other nodes. Nothing here is ever forwarded.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use http::HeaderMap;
use tonic::{Request, Response, Status, Streaming};

use super::{convert, gate::Visitor, lean::Reply, many};
use crate::{
    service::Service,
    status::grpc::to_status,
    telemetry::trace::{Call, Scope},
    traffic::Traffic,
    wire::{self, peer_server::Peer},
};
use gaocache_core::{
    askers::{Asker, MOST_ASKERS},
    cluster::Topology,
    error::Error,
    membership::IdHash,
    ports::{Removal, Sender, Timestamp},
    standing::Standing,
};

/// The service for a node's groups.
#[derive(Clone)]
pub struct PeerService {
    service: Service,
    standing: Arc<Standing>,
}

impl PeerService {
    /// Over these groups; `standing` is this node's place among the members.
    pub fn new(service: Service, standing: Arc<Standing>) -> Self {
        Self { service, standing }
    }

    /// What a call is to run in.
    pub(super) fn follow(&self, call: Call, headers: &HeaderMap) -> Scope {
        self.service.follow(call, headers)
    }

    /// `Fetch` with the value apart, for the lean path.
    pub(super) async fn reply(&self, request: wire::FetchRequest) -> Result<Reply, Error> {
        let asked_at = self.service.now();
        let answer = self
            .service
            .answer_peer(&request.group, &request.key)
            .await?;
        Ok(convert::fetch_reply(answer, asked_at, self.service.now()))
    }

    /// `FetchHeld`, for the lean path.
    pub(super) fn reply_held(&self, request: &wire::FetchManyRequest) -> Result<Reply, Error> {
        let answers = self.held(request)?;
        Ok(Reply::new(&answers, 1, Bytes::new()))
    }

    fn held(&self, request: &wire::FetchManyRequest) -> Result<wire::FetchHeldResponse, Error> {
        let asked_at = self.service.now();
        let held = self.service.held_for_peer(&request.group, &request.keys)?;
        let now = self.service.now();
        let answers = held
            .enumerate()
            .map(|(place, fetched)| convert::fetch_many_response(place, fetched, asked_at, now));
        Ok(wire::FetchHeldResponse {
            answers: answers.collect(),
        })
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        let wire::FetchRequest { group, key } = request.into_inner();
        let asked_at = self.service.now();
        let answer = self.service.answer_peer(&group, &key).await;
        let answer = answer.map_err(|error| to_status(&error))?;
        let now = self.service.now();
        Ok(Response::new(convert::fetch_response(
            answer, asked_at, now,
        )))
    }

    type FetchManyStream = BoxStream<'static, Result<wire::FetchManyResponse, Status>>;

    async fn fetch_many(
        &self,
        request: Request<wire::FetchManyRequest>,
    ) -> Result<Response<Self::FetchManyStream>, Status> {
        let traffic = request.extensions().get::<Arc<Traffic>>().cloned();
        let answers = many::fetched(self.service.clone(), request.into_inner(), traffic);
        let answers = answers.map_err(|error| to_status(&error))?;
        Ok(Response::new(answers.boxed()))
    }

    async fn fetch_held(
        &self,
        request: Request<wire::FetchManyRequest>,
    ) -> Result<Response<wire::FetchHeldResponse>, Status> {
        let held = self.held(request.get_ref());
        held.map(Response::new).map_err(|error| to_status(&error))
    }

    async fn want(
        &self,
        request: Request<wire::WantRequest>,
    ) -> Result<Response<wire::WantResponse>, Status> {
        let wire::WantRequest {
            group,
            key,
            clients,
        } = request.into_inner();
        let askers = clients.into_iter().take(MOST_ASKERS).map(Asker);
        let askers: Vec<_> = askers.collect();
        let begun = self.service.also_wanted(&group, &key, &askers);
        let begun = begun.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::WantResponse { not_begun: !begun }))
    }

    async fn peek(
        &self,
        request: Request<wire::PeekRequest>,
    ) -> Result<Response<wire::PeekResponse>, Status> {
        let wire::PeekRequest { group, key } = request.into_inner();
        let found = self.service.peek_for_peer(&group, &key);
        let found = found.map_err(|error| to_status(&error))?;
        let now = self.service.now();
        Ok(Response::new(convert::peek_response(found, now)))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveHereRequest>,
    ) -> Result<Response<wire::RemoveHereResponse>, Status> {
        let request = request.into_inner();
        let what = match (request.key, request.tag) {
            (Some(key), _) => Removal::Key(key.into()),
            (None, Some(tag)) => Removal::Tag(tag.into()),
            (None, None) => Removal::All,
        };
        let entries = self.service.remove_here(&request.group, &what);
        let entries = entries.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::RemoveHereResponse {
            entries,
            incarnation: self.incarnation(),
        }))
    }

    async fn vouch(
        &self,
        request: Request<wire::VouchRequest>,
    ) -> Result<Response<wire::VouchResponse>, Status> {
        let Some(visitor) = request.extensions().get::<Visitor>().cloned() else {
            return Err(Status::internal("a call that passed no gate"));
        };
        let wire::VouchRequest { asker, counted } = request.into_inner();
        let speaks = visitor.speaks_as(IdHash(asker));
        speaks.map_err(|error| to_status(&error))?;
        let counted: Vec<IdHash> = counted.into_iter().map(IdHash).collect();
        let now = self.service.now();
        let voucher = self.standing.vouch(IdHash(asker), &counted, now);
        Ok(Response::new(convert::vouch_response(voucher)))
    }

    async fn promise(
        &self,
        request: Request<wire::PromiseRequest>,
    ) -> Result<Response<wire::PromiseResponse>, Status> {
        self.standing.promise(IdHash(request.into_inner().against));
        Ok(Response::new(wire::PromiseResponse {
            incarnation: self.incarnation(),
        }))
    }

    async fn await_revision(
        &self,
        request: Request<wire::AwaitRevisionRequest>,
    ) -> Result<Response<wire::AwaitRevisionResponse>, Status> {
        let wire::AwaitRevisionRequest { revision, listed } = request.into_inner();
        let mut rings = self.standing.cluster().rings();
        let seen = |ring: &Arc<Topology>| ring.has_seen(revision, IdHash(listed));
        let reached = rings.wait_for(seen).await;
        let revision = match reached {
            Ok(ring) => ring.view.revision,
            Err(_) => return Err(Status::unavailable("this node is stopping")),
        };
        Ok(Response::new(wire::AwaitRevisionResponse { revision }))
    }

    type HandoffStream = BoxStream<'static, Result<wire::HandoffReceipt, Status>>;

    async fn handoff(
        &self,
        request: Request<Streaming<wire::HandoffBatch>>,
    ) -> Result<Response<Self::HandoffStream>, Status> {
        let this = self.clone();
        let batches = request.into_inner();
        let mut receipts_sent = ReceiptTimes::default();
        receipts_sent.push(this.service.now());
        let first = wire::HandoffReceipt {
            max_value_bytes: Some(self.service.largest_value()),
            ..wire::HandoffReceipt::default()
        };
        let first = futures::stream::once(async { Ok(first) });
        // A batch is read only when the one before it has been taken: that is the back-pressure.
        let receipts = batches.map(move |batch| this.accept(batch?, &mut receipts_sent));
        Ok(Response::new(first.chain(receipts).boxed()))
    }
}

impl PeerService {
    fn incarnation(&self) -> u64 {
        self.standing.incarnation().unwrap_or_default().0
    }

    fn accept(
        &self,
        batch: wire::HandoffBatch,
        receipts_sent: &mut ReceiptTimes,
    ) -> Result<wire::HandoffReceipt, Status> {
        let sender = Sender {
            member: IdHash(batch.sender),
            revision: batch.revision,
        };
        let Some(read_at) = receipts_sent.read_at(&batch) else {
            return Err(Status::invalid_argument(
                "the batch refers to a receipt that was not sent recently",
            ));
        };
        let Some(parcels) = convert::parcels(batch, read_at) else {
            return Err(Status::unimplemented("unknown entry format"));
        };
        let accepted = self
            .service
            .accept(&self.standing, &parcels, sender, read_at);
        let receipt = accepted.map_err(|error| to_status(&error))?;
        receipts_sent.push(self.service.now());
        Ok(convert::handoff_receipt(receipt))
    }
}

/// When the latest receipts of a stream were sent.
#[derive(Default)]
struct ReceiptTimes {
    sent: u64,
    latest: VecDeque<Timestamp>,
}

impl ReceiptTimes {
    /// More than a sender leaves unanswered.
    const REMEMBERED: usize = 64;

    fn push(&mut self, now: Timestamp) {
        self.sent += 1;
        self.latest.push_front(now);
        self.latest.truncate(Self::REMEMBERED);
    }

    /// The earliest moment at which the sender can have read the batch: it had a receipt that can't
    /// have come before it was sent. `None` if the batch says that it had one that wasn't sent, or
    /// is too old.
    fn read_at(&self, batch: &wire::HandoffBatch) -> Option<Timestamp> {
        let since = self.sent.checked_sub(batch.receipts)?;
        let receipt = self.latest.get(usize::try_from(since).ok()?)?;
        Some(receipt.after(Duration::from_millis(batch.elapsed_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(receipts: u64, elapsed_ms: u64) -> wire::HandoffBatch {
        wire::HandoffBatch {
            receipts,
            elapsed_ms,
            ..wire::HandoffBatch::default()
        }
    }

    #[test]
    fn the_reading_of_a_batch_is_dated_by_the_receipt_before_it() {
        let mut times = ReceiptTimes::default();
        for now in [100, 200, 300] {
            times.push(Timestamp(now));
        }
        assert_eq!(times.read_at(&batch(3, 5)), Some(Timestamp(305)));
        assert_eq!(times.read_at(&batch(1, 5)), Some(Timestamp(105)));
        for unknown in [0, 4, u64::MAX] {
            assert_eq!(times.read_at(&batch(unknown, 5)), None, "{unknown}");
        }
        for now in 0..1_000 {
            times.push(Timestamp(now));
        }
        assert_eq!(times.read_at(&batch(3, 5)), None, "too old");
        assert_eq!(times.latest.len(), ReceiptTimes::REMEMBERED);
    }
}
