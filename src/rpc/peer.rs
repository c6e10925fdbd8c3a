//! The service `gaocache.v1.Peer`, for other nodes. Nothing here is ever forwarded.

use std::sync::Arc;

use futures::{StreamExt, stream::BoxStream};
use http::HeaderMap;
use tonic::{Request, Response, Status, Streaming};

use super::{
    convert,
    lean::Reply,
    wire::{self, peer_server::Peer},
};
use crate::{
    service::Service,
    status::grpc::to_status,
    telemetry::trace::{Call, Scope},
};
use gaocache_core::{error::Error, membership::IdHash, standing::Standing};

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
        let answer = self
            .service
            .answer_peer(&request.group, &request.key)
            .await?;
        Ok(convert::fetch_reply(answer))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        let wire::FetchRequest { group, key } = request.into_inner();
        let answer = self.service.answer_peer(&group, &key).await;
        let answer = answer.map_err(|error| to_status(&error))?;
        Ok(Response::new(convert::fetch_response(answer)))
    }

    async fn peek(
        &self,
        request: Request<wire::PeekRequest>,
    ) -> Result<Response<wire::PeekResponse>, Status> {
        let wire::PeekRequest { group, key } = request.into_inner();
        let found = self.service.peek_for_peer(&group, &key);
        let found = found.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::PeekResponse {
            entry: found.map(convert::fetch_response),
        }))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveHereRequest>,
    ) -> Result<Response<wire::RemoveHereResponse>, Status> {
        let request = request.into_inner();
        let key = request.key.as_deref();
        let entries = self.service.remove_here(&request.group, key);
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
        let wire::VouchRequest { asker, counted } = request.into_inner();
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
        let wanted = request.into_inner().revision;
        let mut rings = self.standing.cluster().rings();
        let reached = rings.wait_for(|ring| ring.view.revision >= wanted).await;
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
        // A batch is read only when the one before it has been taken: that is the back-pressure.
        let receipts = batches.map(move |batch| this.accept(batch?));
        Ok(Response::new(receipts.boxed()))
    }
}

impl PeerService {
    fn incarnation(&self) -> u64 {
        self.standing.incarnation().unwrap_or_default().0
    }

    fn accept(&self, batch: wire::HandoffBatch) -> Result<wire::HandoffReceipt, Status> {
        let sender = IdHash(batch.sender);
        let Some(parcels) = convert::parcels(batch) else {
            return Err(Status::unimplemented("unknown entry format"));
        };
        let receipt = self.service.accept(&self.standing, &parcels, sender);
        let receipt = receipt.map_err(|error| to_status(&error))?;
        Ok(convert::handoff_receipt(receipt))
    }
}
