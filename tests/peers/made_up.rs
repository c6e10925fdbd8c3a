//! A peer whose answers the test makes up: of another release, or as slow as the test wants.

use futures::StreamExt;
use gaocache::internal::wire::peer_server::{Peer, PeerServer};
use tonic::{Request, Response, Status};

use super::*;
use tokio::sync::mpsc;

/// An answer for one of several keys.
pub(super) type Many = Result<wire::FetchManyResponse, Status>;

/// What it is asked.
#[derive(Debug)]
pub(super) enum Heard {
    /// The clients that a fetch names.
    Fetch(Vec<String>),
    /// A call for what is in memory began.
    Held,
    /// It was given up.
    HeldNoMore,
    Want(wire::WantRequest),
}

struct TellsOfItsEnd(mpsc::Sender<Heard>);

impl Drop for TellsOfItsEnd {
    fn drop(&mut self) {
        let _ = self.0.try_send(Heard::HeldNoMore);
    }
}

/// Answers in a format of the future, or, like a release without the service, not at all.
#[derive(Default)]
pub(super) struct Other {
    pub(super) format: Option<u32>,
    /// It answers no fetch, and tells what it hears.
    pub(super) holds: Option<mpsc::Sender<Heard>>,
    /// It says that no load has begun, whichever is wanted by others.
    pub(super) begins_nothing: bool,
    /// What it answers for several keys; `None`: it does not know the call.
    pub(super) answers_many: Option<fn(Vec<String>) -> Vec<Many>>,
    /// The revision that its view has reached; asked for a later one, it waits.
    pub(super) revision: Option<watch::Receiver<u64>>,
    /// The revision that it was asked for last.
    pub(super) asked: watch::Sender<u64>,
}

impl Other {
    /// One that answers no fetch, and what it hears.
    pub(super) fn that_holds() -> (Self, mpsc::Receiver<Heard>) {
        let (holds, heard) = mpsc::channel(1_024);
        let other = Self {
            holds: Some(holds),
            ..Self::default()
        };
        (other, heard)
    }
}

#[tonic::async_trait]
impl Peer for Other {
    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        if let Some(holds) = &self.holds {
            let clients = request.metadata().get_all("gaocache-client").iter();
            let clients = clients.map(|it| it.to_str().unwrap().to_owned());
            holds.try_send(Heard::Fetch(clients.collect())).unwrap();
            return std::future::pending().await;
        }
        match self.format {
            Some(format) => Ok(Response::new(wire::FetchResponse {
                format,
                entry: Some(wire::Entry {
                    value: "not to be trusted".into(),
                    found: true,
                    ..wire::Entry::default()
                }),
                ..wire::FetchResponse::default()
            })),
            None => Err(Status::unimplemented("")),
        }
    }
    type FetchManyStream = futures::stream::BoxStream<'static, Many>;
    async fn fetch_many(
        &self,
        request: Request<wire::FetchManyRequest>,
    ) -> Result<Response<Self::FetchManyStream>, Status> {
        let Some(answers) = self.answers_many else {
            return Err(Status::unimplemented(""));
        };
        let keys = request.into_inner().keys;
        Ok(Response::new(futures::stream::iter(answers(keys)).boxed()))
    }
    async fn fetch_held(
        &self,
        _: Request<wire::FetchManyRequest>,
    ) -> Result<Response<wire::FetchHeldResponse>, Status> {
        if let Some(holds) = &self.holds {
            holds.try_send(Heard::Held).unwrap();
            let _given_up = TellsOfItsEnd(holds.clone());
            return std::future::pending().await;
        }
        Err(Status::unimplemented(""))
    }
    async fn want(
        &self,
        request: Request<wire::WantRequest>,
    ) -> Result<Response<wire::WantResponse>, Status> {
        let Some(holds) = &self.holds else {
            return Err(Status::unimplemented(""));
        };
        holds.try_send(Heard::Want(request.into_inner())).unwrap();
        let not_begun = self.begins_nothing;
        Ok(Response::new(wire::WantResponse { not_begun }))
    }
    async fn peek(
        &self,
        _: Request<wire::PeekRequest>,
    ) -> Result<Response<wire::PeekResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn remove(
        &self,
        _: Request<wire::RemoveHereRequest>,
    ) -> Result<Response<wire::RemoveHereResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn vouch(
        &self,
        _: Request<wire::VouchRequest>,
    ) -> Result<Response<wire::VouchResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn promise(
        &self,
        _: Request<wire::PromiseRequest>,
    ) -> Result<Response<wire::PromiseResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn await_revision(
        &self,
        request: Request<wire::AwaitRevisionRequest>,
    ) -> Result<Response<wire::AwaitRevisionResponse>, Status> {
        let Some(mut revisions) = self.revision.clone() else {
            return Err(Status::unimplemented(""));
        };
        let wanted = request.into_inner().revision;
        self.asked.send_replace(wanted);
        let reached = revisions.wait_for(|revision| *revision >= wanted).await;
        let revision = *reached.map_err(|_| Status::cancelled(""))?;
        Ok(Response::new(wire::AwaitRevisionResponse { revision }))
    }
    type HandoffStream = tokio_stream::Empty<Result<wire::HandoffReceipt, Status>>;
    async fn handoff(
        &self,
        _: Request<tonic::Streaming<wire::HandoffBatch>>,
    ) -> Result<Response<Self::HandoffStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl Other {
    pub(super) async fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(PeerServer::new(self));
        tokio::spawn(server.serve_with_incoming(incoming));
        address
    }
}
