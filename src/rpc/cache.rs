//! The service `gaocache.v1.Cache`, for clients.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use http::HeaderMap;
use tonic::{Request, Response, Status};

use super::{
    convert,
    lean::Reply,
    many,
    wire::{self, cache_server::Cache},
};
use crate::{
    service::Service,
    status::grpc::to_status,
    telemetry::trace::{Call, Scope},
    traffic::Traffic,
};
use gaocache_core::error::Error;

/// The service for a node's groups.
#[derive(Clone)]
pub struct CacheService {
    service: Service,
}

impl CacheService {
    /// A service for these groups.
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// The trace scope in which a call runs.
    pub(super) fn begin(&self, call: Call, headers: &HeaderMap) -> Scope {
        self.service.begin(call, headers)
    }

    /// `Get` with the value kept separate, for the lean path.
    pub(super) async fn reply(&self, request: wire::GetRequest) -> Result<Reply, Error> {
        let answer = self.service.get(&request.group, &request.key).await?;
        Ok(convert::get_reply(answer, self.service.now()))
    }
}

#[tonic::async_trait]
impl Cache for CacheService {
    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        let wire::GetRequest { group, key } = request.into_inner();
        let answer = self.service.get(&group, &key).await;
        let answer = answer.map_err(|error| to_status(&error))?;
        Ok(Response::new(convert::get_response(
            answer,
            self.service.now(),
        )))
    }

    type GetManyStream = Pin<Box<dyn Stream<Item = Result<wire::GetManyResponse, Status>> + Send>>;

    async fn get_many(
        &self,
        request: Request<wire::GetManyRequest>,
    ) -> Result<Response<Self::GetManyStream>, Status> {
        let traffic = request.extensions().get::<Arc<Traffic>>().cloned();
        let answers = many::answers(self.service.clone(), request.into_inner(), traffic);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveRequest>,
    ) -> Result<Response<wire::RemoveResponse>, Status> {
        let wire::RemoveRequest { group, key } = request.into_inner();
        let removed = self.service.remove(&group, &key).await;
        removed.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::RemoveResponse {}))
    }

    async fn purge(
        &self,
        request: Request<wire::PurgeRequest>,
    ) -> Result<Response<wire::PurgeResponse>, Status> {
        let purged = self.service.purge(&request.into_inner().group).await;
        let entries = purged.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::PurgeResponse { entries }))
    }
}
