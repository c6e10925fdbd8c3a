//! A proxy that can be cut.

use std::net::SocketAddr;

use tokio::{
    io::copy,
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
}

/// A TCP proxy to an address that can be cut.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    lets: watch::Sender<Lets>,
    _task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `target`, open.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lets = watch::Sender::new(Lets::All);
        let changes = lets.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let mut changes = changes.clone();
                if *changes.borrow_and_update() != Lets::All {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut outside) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (mut said, mut to_inside) = inside.split();
                    let (mut answered, mut to_outside) = outside.split();
                    let requests = copy(&mut said, &mut to_outside);
                    let mut requests = std::pin::pin!(requests);
                    tokio::select! {
                        _ = &mut requests => return,
                        _ = copy(&mut answered, &mut to_inside) => return,
                        _ = changes.changed() => {}
                    }
                    if *changes.borrow_and_update() == Lets::Requests {
                        tokio::select! {
                            _ = requests => {}
                            _ = changes.changed() => {}
                        }
                    }
                });
            }
        });
        Self {
            address,
            lets,
            _task: task,
        }
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts what is connected, and everything that connects from now on.
    pub fn cut(&self) {
        self.lets.send_replace(Lets::Nothing);
    }

    /// From now on, what the target says is lost. What is connected brings it what it is told.
    pub fn mute(&self) {
        self.lets.send_replace(Lets::Requests);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.lets.send_replace(Lets::All);
    }
}
