//! The service `gaocache.v1.Cache`, for clients.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::HeaderMap;
use http_body::Body;
use tonic::{Request, Response, Status};

use super::{
    convert,
    lean::Reply,
    many,
    many_body::{Counted, ManyBody},
};
use crate::{
    auth::{Action, Call, Caller, Permissions},
    service::Service,
    status::grpc::to_status,
    telemetry::trace::{Call as Traced, Scope},
    traffic::Traffic,
    wire::{self, cache_server::Cache},
};
use gaocache_core::{
    error::{Error, ErrorKind},
    group::Answer,
};

/// The service for a node's groups.
#[derive(Clone)]
pub struct CacheService {
    service: Service,
    pub(super) permissions: Permissions,
}

impl CacheService {
    /// A service for these groups.
    pub(crate) fn new(service: Service, permissions: Permissions) -> Self {
        Self {
            service,
            permissions,
        }
    }

    /// The trace scope in which a call runs.
    pub(super) fn begin(&self, call: Traced, headers: &HeaderMap) -> Scope {
        self.service.begin(call, headers)
    }

    /// `Get` with the value kept separate, for the lean path.
    pub(super) async fn reply(
        &self,
        caller: Caller,
        request: wire::GetRequest,
    ) -> Result<Reply, Error> {
        let answer = self.find(&caller, &request).await?;
        Ok(convert::get_reply(answer, self.service.now()))
    }

    async fn find(&self, caller: &Caller, request: &wire::GetRequest) -> Result<Answer, Error> {
        let wire::GetRequest { group, key } = request;
        self.admit(caller, 1)?;
        self.permissions.check(caller, Action::Read, group)?;
        let moment = self.service.moment();
        match self.service.get_held(group, key, &moment) {
            Some(held) => held,
            // Only now it matters who asks.
            None => self.asked_by(caller).get_elsewhere(group, key).await,
        }
    }

    /// `GetMany`, for the lean path.
    pub(super) fn reply_many(
        &self,
        caller: &Caller,
        request: wire::GetManyRequest,
        traffic: &Arc<Traffic>,
    ) -> Result<impl Body<Data = Bytes, Error = Status> + Send + use<>, Status> {
        let (batches, keys) = self.find_many(caller, request, traffic)?;
        let service = self.service.clone();
        Ok(ManyBody::new(batches, keys, move || service.now()))
    }

    fn find_many(
        &self,
        caller: &Caller,
        request: wire::GetManyRequest,
        traffic: &Arc<Traffic>,
    ) -> Result<
        (
            impl Stream<Item = Counted> + Send + Unpin + use<>,
            Arc<[String]>,
        ),
        Status,
    > {
        let wire::GetManyRequest { group, keys } = request;
        let answers = || {
            self.admit(caller, keys.len())?;
            self.permissions.check(caller, Action::Read, &group)?;
            let keys = Arc::<[String]>::from(keys);
            let service = self.asked_by(caller);
            Ok((
                many::answers(&service, &group, keys.clone(), traffic)?,
                keys,
            ))
        };
        answers().map_err(|error: Error| to_status(&error))
    }

    fn asked_by(&self, caller: &Caller) -> Service {
        self.service.asked_by(self.permissions.client(caller))
    }

    fn admit(&self, caller: &Caller, keys: usize) -> Result<(), Error> {
        match self.service.limits_requests() {
            true => self.asked_by(caller).admit(keys),
            false => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl Cache for CacheService {
    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        let caller = caller(&request)?;
        let answer = self.find(&caller, request.get_ref()).await;
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
        let caller = caller(&request)?;
        let Some(traffic) = request.extensions().get::<Arc<Traffic>>().cloned() else {
            return Err(Status::internal("a call that came over no connection"));
        };
        let (batches, keys) = self.find_many(&caller, request.into_inner(), &traffic)?;
        let service = self.service.clone();
        let answers = batches.flat_map(|batch| stream::iter(batch.answers));
        Ok(Response::new(Box::pin(answers.map(
            move |(place, answer)| {
                let key = keys[place].clone();
                Ok(convert::many_response(key, answer, service.now()))
            },
        ))))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveRequest>,
    ) -> Result<Response<wire::RemoveResponse>, Status> {
        let caller = caller(&request)?;
        let admitted = self.admit(&caller, 1);
        admitted.map_err(|error| to_status(&error))?;
        let wire::RemoveRequest { group, key } = request.into_inner();
        let (call, removal) = (
            Call::remove(&group, &key),
            self.service.remove(&group, &key),
        );
        let removed = self.permissions.run(&caller, call, removal).await;
        removed.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::RemoveResponse {}))
    }

    async fn purge(
        &self,
        request: Request<wire::PurgeRequest>,
    ) -> Result<Response<wire::PurgeResponse>, Status> {
        let caller = caller(&request)?;
        let admitted = self.admit(&caller, 1);
        admitted.map_err(|error| to_status(&error))?;
        let group = request.into_inner().group;
        let purge = self.service.purge(&group);
        let purged = self
            .permissions
            .run(&caller, Call::purge(&group), purge)
            .await;
        let entries = purged.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::PurgeResponse { entries }))
    }

    async fn purge_tag(
        &self,
        request: Request<wire::PurgeTagRequest>,
    ) -> Result<Response<wire::PurgeTagResponse>, Status> {
        let caller = caller(&request)?;
        let admitted = self.admit(&caller, 1);
        admitted.map_err(|error| to_status(&error))?;
        let wire::PurgeTagRequest { group, tag } = request.into_inner();
        let call = Call::purge_tag(&group, &tag);
        let purge = self.service.purge_tag(&group, &tag);
        let purged = self.permissions.run(&caller, call, purge).await;
        purged.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::PurgeTagResponse {}))
    }
}

/// Who calls, as the listener has noted it.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let noted = request.extensions().get::<Caller>().cloned();
    noted.ok_or_else(|| {
        let what = "the listener did not record who is calling, a bug in gaocache";
        to_status(&Error::new(ErrorKind::Internal, what))
    })
}
