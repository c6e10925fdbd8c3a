//! The service `gaocache.v1.Peer`, for other nodes. Nothing here is ever forwarded.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    convert,
    lean::Reply,
    status::to_status,
    wire::{self, peer_server::Peer},
};
use crate::{core::cluster::Topology, error::Error, service::Service};

/// The service over a node's groups.
#[derive(Clone)]
pub struct PeerService {
    service: Service,
    rings: watch::Receiver<Arc<Topology>>,
}

impl PeerService {
    /// Over these groups; `rings` tells each ring that comes in force.
    pub fn new(service: Service, rings: watch::Receiver<Arc<Topology>>) -> Self {
        Self { service, rings }
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

    async fn look(
        &self,
        request: Request<wire::LookRequest>,
    ) -> Result<Response<wire::LookResponse>, Status> {
        let wire::LookRequest { group, key } = request.into_inner();
        let found = self.service.look_for_peer(&group, &key);
        let found = found.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::LookResponse {
            entry: found.map(convert::fetch_response),
        }))
    }

    async fn invalidate(
        &self,
        request: Request<wire::InvalidateRequest>,
    ) -> Result<Response<wire::InvalidateResponse>, Status> {
        let wire::InvalidateRequest { group, key } = request.into_inner();
        let dropped = self.service.invalidate_here(&group, key.as_deref());
        let entries = dropped.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::InvalidateResponse { entries }))
    }

    async fn await_revision(
        &self,
        request: Request<wire::AwaitRevisionRequest>,
    ) -> Result<Response<wire::AwaitRevisionResponse>, Status> {
        let wanted = request.into_inner().revision;
        let mut rings = self.rings.clone();
        let reached = rings.wait_for(|ring| ring.view.revision >= wanted).await;
        let revision = match reached {
            Ok(ring) => ring.view.revision,
            Err(_) => return Err(Status::unavailable("this node stops")),
        };
        Ok(Response::new(wire::AwaitRevisionResponse { revision }))
    }
}
