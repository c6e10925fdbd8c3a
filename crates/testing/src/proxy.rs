//! A proxy that can be cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What a proxy lets through.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Lets {
    #[default]
    All,
    Nothing,
    /// Nothing of what the target says.
    Requests,
    /// What is connected already.
    Connected,
}

/// A TCP proxy to an address that can be cut.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    way: Way,
    _task: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Way {
    lets: watch::Sender<Lets>,
    /// The answer to the next request with this text is lost.
    lost: Arc<Mutex<Option<&'static str>>>,
}

impl Way {
    /// One connection, until an end closes it or it is cut.
    async fn carry(self, mut inside: TcpStream, target: SocketAddr) {
        let Ok(mut outside) = TcpStream::connect(target).await else {
            return;
        };
        let (said, to_inside) = inside.split();
        let (answered, to_outside) = outside.split();
        let deaf = AtomicBool::new(false);
        let requests = copy(said, to_outside, |bytes| {
            if self.loses_answer_to(bytes) {
                // Before the request goes on: its answer can't come first.
                deaf.store(true, Ordering::SeqCst);
                self.lets.send_replace(Lets::Connected);
            }
            true
        });
        let answers = copy(answered, to_inside, |_| !deaf.load(Ordering::SeqCst));
        let cut = async {
            let mut lets = self.lets.subscribe();
            let change = lets.wait_for(|it| matches!(it, Lets::Nothing | Lets::Requests));
            if change.await.is_ok_and(|it| *it == Lets::Nothing) {
                return;
            }
            deaf.store(true, Ordering::SeqCst);
            let _ = lets.wait_for(|it| *it != Lets::Requests).await;
        };
        let mended = async {
            let mut lets = self.lets.subscribe();
            let deaf = |it: &Lets| *it == Lets::All && deaf.load(Ordering::SeqCst);
            let _ = lets.wait_for(deaf).await;
        };
        tokio::select! {
            () = requests => {}
            () = answers => {}
            () = cut => {}
            () = mended => {}
        }
    }

    fn loses_answer_to(&self, bytes: &[u8]) -> bool {
        let mut lost = self.lost.lock();
        let text = lost.as_ref().map(|it| it.as_bytes());
        let found = text.is_some_and(|text| bytes.windows(text.len()).any(|it| it == text));
        if found {
            *lost = None;
        }
        found
    }
}

/// Carries what passes.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passes: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if passes(&buffer[..read]) && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

impl Proxy {
    /// A proxy to `target`, open.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Way::default();
        let carried = way.clone();
        let task = tokio::spawn(async move {
            while let Ok((inside, _)) = listener.accept().await {
                if *carried.lets.borrow() == Lets::All {
                    tokio::spawn(carried.clone().carry(inside, target));
                }
            }
        });
        Self {
            address,
            way,
            _task: task,
        }
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts what is connected, and everything that connects from now on.
    pub fn cut(&self) {
        self.way.lets.send_replace(Lets::Nothing);
    }

    /// From now on, what the target says is lost. Existing connections still deliver requests to
    /// it.
    pub fn mute(&self) {
        self.way.lets.send_replace(Lets::Requests);
    }

    /// The next request with this text arrives, but nothing is heard on its connection from then
    /// on, and no new connection is made. Other connections stay.
    pub fn lose_answer_to(&self, text: &'static str) {
        *self.way.lost.lock() = Some(text);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.way.lets.send_replace(Lets::All);
    }
}
