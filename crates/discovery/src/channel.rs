//! A tonic channel over a discovery. Every endpoint has its own connection, and each request goes
//! to an endpoint that is ready.
//!
//! An endpoint is ready when it is connected and its health check reports that it is serving. An
//! endpoint without the health service counts as healthy while it is connected. An endpoint stops
//! being ready immediately when its connection breaks, its health check fails, or it leaves etcd.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, body::Body};
use tower::Service;

use super::{
    discovery::Discovery,
    options::ChannelOptions,
    pick::Picker,
    pool::{Line, Pool, supervise},
};

/// The request header (gRPC metadata) that [`Picker::ConsistentHash`] hashes.
pub const HASH_KEY_HEADER: &str = "x-hash-key";

/// The channel. Cheap to clone; connections close when the last clone is dropped.
///
/// It is a tower service, so any generated tonic client takes it:
///
/// ```no_run
/// # async fn example() -> Result<(), tonic::Status> {
/// use gaocache_discovery::{BalancedChannel, Discovery, EtcdConfig, Picker};
/// use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
///
/// let etcd = EtcdConfig::new(["http://127.0.0.1:2379"]);
/// let discovery = Discovery::start(etcd, ["greeter/"]);
/// let channel = BalancedChannel::new(discovery, Picker::LeastInFlight);
/// let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
/// println!("{:?}", answer.into_inner().status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BalancedChannel {
    pool: Arc<Pool>,
    _stop: Arc<DropGuard>,
}

impl BalancedChannel {
    /// A channel over all endpoints that `discovery` finds.
    pub fn new(discovery: Discovery, picker: Picker) -> Self {
        let options = ChannelOptions {
            picker,
            ..ChannelOptions::default()
        };
        Self::with_options(discovery, options)
    }

    /// As [`BalancedChannel::new`], with all options.
    pub fn with_options(discovery: Discovery, options: ChannelOptions) -> Self {
        let pool = Arc::new(Pool::new(options));
        let stop = CancellationToken::new();
        tokio::spawn(supervise(pool.clone(), discovery, stop.clone()));
        Self {
            pool,
            _stop: Arc::new(stop.drop_guard()),
        }
    }

    /// The keys of the endpoints that are currently ready.
    pub fn ready(&self) -> Vec<String> {
        let ready = self.pool.ready.borrow().clone();
        ready
            .iter()
            .map(|backend| backend.key.to_string())
            .collect()
    }

    /// Resolves when `enough` returns true for the keys of the endpoints that are ready.
    pub async fn until_ready(&self, enough: impl Fn(&[String]) -> bool) {
        let mut changes = self.pool.ready.subscribe();
        while !enough(&self.ready()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move {
            let header = request.headers().get(HASH_KEY_HEADER);
            let hash_key = header.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
            let line = channel.pool.line(hash_key).await?;
            let counted = Counted::new(line.clone());
            let mut connection = line.channel.clone();
            let ready = std::future::poll_fn(|cx| connection.poll_ready(cx)).await;
            let answer = match ready {
                Ok(()) => connection.call(request).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => Ok(response.map(|body| {
                    Body::new(CountedBody {
                        body,
                        _counted: counted,
                    })
                })),
                Err(error) => {
                    line.broken.notify_one();
                    Err(Status::from_error(error.into()))
                }
            }
        })
    }
}

/// Counts a request as in flight until it is dropped.
struct Counted(Arc<Line>);

impl Counted {
    fn new(line: Arc<Line>) -> Self {
        line.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(line)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response body; its request counts as in flight until the body ends.
struct CountedBody {
    body: Body,
    _counted: Counted,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
