//! A peer whose answers the test makes up: of another release, or as slow as the test wants.

use gaocache::internal::wire::peer_server::{Peer, PeerServer};
use tonic::{Request, Response, Status};

use super::*;

/// Answers in a format of the future, or, like a release without the service, not at all.
#[derive(Default)]
struct Other {
    format: Option<u32>,
    /// The revision that its view has reached; asked for a later one, it waits.
    revision: Option<watch::Receiver<u64>>,
    asked: watch::Sender<u64>,
}

#[tonic::async_trait]
impl Peer for Other {
    async fn fetch(
        &self,
        _: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
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

async fn serve(other: Other) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(PeerServer::new(other));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

#[tokio::test]
async fn a_leaving_node_answers_until_the_others_have_seen_it_go() {
    let origin = CountingOrigin::start().await;
    let (reached, revision) = watch::channel(0);
    let asked = watch::Sender::new(0);
    let address = serve(Other {
        revision: Some(revision),
        asked: asked.clone(),
        ..Other::default()
    })
    .await;
    let node = node_among(&[("slow", address)], &origin.url(), &[]).await;
    node.stop();
    // First out of the ring, then off the list; each time it waits for the other.
    for step in [7, 8] {
        let mut asked = asked.subscribe();
        within("the question", asked.wait_for(|it| *it == step))
            .await
            .unwrap();
        let mut client = node.client().await;
        let request = wire::GetRequest {
            group: "users".into(),
            key: "alice".into(),
        };
        client.get(request).await.expect("it still answers");
        reached.send_replace(step);
    }
    node.stopped().await;
}

#[tokio::test]
async fn a_peer_of_another_version_is_not_believed_and_costs_no_read() {
    for format in [Some(2), Some(0), None] {
        let origin = CountingOrigin::start().await;
        let address = serve(Other {
            format,
            ..Other::default()
        })
        .await;
        let node = node_among(&[("other", address)], &origin.url(), &[]).await;
        read_all(&node).await;
        let counted = metric(
            &node,
            "gaocache_peer_fetches_total",
            &["other", "incompatible"],
        )
        .await;
        assert!(counted > 0.0, "{format:?}");
        let ejected = metric(&node, "gaocache_peers_ejected", &[]).await;
        assert_eq!(ejected, 0.0, "it answers, so it lives: {format:?}");
    }
}
