//! The origin behind the cache: a version per key, counted loads, and moods.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep},
};

use crate::{board::Board, health::Health, net, net::Party};

/// Where the origin listens.
pub const PORT: u16 = 8000;

/// How the origin behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Answers at once.
    Well,
    /// Answers after this time.
    Slow(Duration),
    /// Answers 503.
    Failing,
    /// Answers when the mood has changed.
    Hung,
}

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The key's version when the load reached the origin.
    pub version: u64,
    /// When the origin gave it away, in milliseconds of [`Origin::now`].
    pub given: u64,
}

impl Stamp {
    fn write(self, size: usize) -> Bytes {
        let mut body = format!("v{} t{} ", self.version, self.given).into_bytes();
        body.resize(body.len().max(size), b'.');
        body.into()
    }

    /// Reads it from a value.
    pub fn read(body: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(&body[..body.len().min(64)]).ok()?;
        let mut words = head.split(' ');
        let version = words.next()?.strip_prefix('v')?.parse().ok()?;
        let given = words.next()?.strip_prefix('t')?.parse().ok()?;
        Some(Self { version, given })
    }
}

/// The origin. Keys are written `group/key`.
pub struct Origin {
    /// How it is; ill in any mood but [`Mood::Well`].
    pub health: Arc<Health>,
    board: Arc<Board>,
    began: Instant,
    mood: watch::Sender<Mood>,
    sizes: HashMap<String, usize>,
    versions: Mutex<HashMap<String, u64>>,
    loads: Mutex<HashMap<String, u64>>,
    total: AtomicU64,
}

impl Origin {
    /// Listens in its namespace; `sizes` are of the values, by group.
    ///
    /// # Errors
    /// If it can't listen.
    pub fn start(
        party: &Party,
        sizes: HashMap<String, usize>,
        board: Arc<Board>,
    ) -> Result<Arc<Self>> {
        let address = SocketAddr::from((party.ip, PORT));
        let listener = net::inside(&party.namespace, || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let listener = TcpListener::from_std(listener)?;
        let origin = Arc::new(Self {
            health: Arc::default(),
            board,
            began: Instant::now(),
            mood: watch::Sender::new(Mood::Well),
            sizes,
            versions: Mutex::default(),
            loads: Mutex::default(),
            total: AtomicU64::new(0),
        });
        tokio::spawn(origin.clone().accept(listener));
        Ok(origin)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let origin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| origin.answer(request));
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let key = request.uri().path().trim_start_matches('/').to_owned();
        self.total.fetch_add(1, SeqCst);
        *self.loads.lock().entry(key.clone()).or_default() += 1;
        self.board.count(self.board.kinds(), |row| row.loads += 1);
        // Taken before the wait: a slow load brings what was true when it began.
        let version = self.version(&key);
        let mood = *self.mood.borrow();
        match mood {
            Mood::Well => {}
            Mood::Slow(pause) => sleep(pause).await,
            Mood::Failing => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return Ok(response);
            }
            Mood::Hung => {
                let mut moods = self.mood.subscribe();
                let _ = moods.wait_for(|mood| *mood != Mood::Hung).await;
            }
        }
        let group = key.split('/').next().unwrap_or_default();
        let size = self.sizes.get(group).copied().unwrap_or_default();
        let given = self.now();
        Ok(Response::new(Full::new(
            Stamp { version, given }.write(size),
        )))
    }

    /// Milliseconds since it began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Changes its mood.
    pub fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// A key's version.
    pub fn version(&self, key: &str) -> u64 {
        self.versions.lock().get(key).copied().unwrap_or(1)
    }

    /// Changes a key's value; its new version.
    pub fn change(&self, key: &str) -> u64 {
        let mut versions = self.versions.lock();
        let version = versions.entry(key.to_owned()).or_insert(1);
        *version += 1;
        *version
    }

    /// Loads of all keys together.
    pub fn loads(&self) -> u64 {
        self.total.load(SeqCst)
    }

    /// Loads of these keys together.
    pub fn loads_of<'a>(&self, keys: impl IntoIterator<Item = &'a String>) -> u64 {
        let loads = self.loads.lock();
        keys.into_iter().filter_map(|key| loads.get(key)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp {
            version: 12,
            given: 3456,
        };
        assert_eq!(Stamp::read(&stamp.write(100)), Some(stamp));
        assert_eq!(stamp.write(100).len(), 100);
        assert_eq!(Stamp::read(&stamp.write(0)), Some(stamp));
        assert_eq!(Stamp::read(b"else"), None);
    }
}
