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
use gaocache_core::{
    cluster::Cluster,
    error::{Error, ErrorKind},
    membership::{Fingerprint, IdHash},
};

/// The service for a node's groups.
#[derive(Clone)]
pub struct PeerService {
    service: Service,
    cluster: Arc<Cluster>,
}

impl PeerService {
    /// Over these groups, in this cluster.
    pub fn new(service: Service, cluster: Arc<Cluster>) -> Self {
        Self { service, cluster }
    }

    /// What a call is to run in.
    pub(super) fn follow(&self, call: Call, headers: &HeaderMap) -> Scope {
        self.service.follow(call, headers)
    }

    /// `Fetch` with the value apart, for the lean path.
    pub(super) async fn reply(&self, request: wire::FetchRequest) -> Result<Reply, Error> {
        let answer = self
            .service
            .answer_peer(&request.group, &request.key, IdHash(request.asker))
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
        let wire::FetchRequest { group, key, asker } = request.into_inner();
        let answer = self.service.answer_peer(&group, &key, IdHash(asker)).await;
        let answer = answer.map_err(|error| to_status(&error))?;
        Ok(Response::new(convert::fetch_response(answer)))
    }

    async fn peek(
        &self,
        request: Request<wire::PeekRequest>,
    ) -> Result<Response<wire::PeekResponse>, Status> {
        let wire::PeekRequest { group, key, asker } = request.into_inner();
        let found = self.service.peek_for_peer(&group, &key, IdHash(asker));
        let found = found.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::PeekResponse {
            entry: found.map(convert::fetch_response),
        }))
    }

    async fn invalidate(
        &self,
        request: Request<wire::InvalidateRequest>,
    ) -> Result<Response<wire::InvalidateResponse>, Status> {
        let request = request.into_inner();
        let known = Fingerprint(request.members_fingerprint);
        let key = request.key.as_deref();
        let done = self.service.invalidate_for_peer(&request.group, key, known);
        let done = done.map_err(|error| to_status(&error))?;
        Ok(Response::new(convert::invalidate_response(done)))
    }

    async fn await_revision(
        &self,
        request: Request<wire::AwaitRevisionRequest>,
    ) -> Result<Response<wire::AwaitRevisionResponse>, Status> {
        let wanted = request.into_inner().revision;
        let mut rings = self.cluster.rings();
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
    fn accept(&self, batch: wire::HandoffBatch) -> Result<wire::HandoffReceipt, Status> {
        let sender = IdHash(batch.sender);
        let Some(parcels) = convert::parcels(batch) else {
            return Err(Status::unimplemented("unknown entry format"));
        };
        if !self.cluster.topology().knows(sender) {
            // Who is no member is not told of removals, so what it holds may be old.
            let error = Error::new(
                ErrorKind::NotReady,
                "this node does not know the sender as a member",
            );
            return Err(to_status(&error));
        }
        let receipt = self.service.accept(&parcels, sender);
        let receipt = receipt.map_err(|error| to_status(&error))?;
        Ok(convert::handoff_receipt(receipt))
    }
}
