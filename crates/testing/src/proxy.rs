//! A proxy that can be cut.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A TCP proxy to an address that can be cut.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    open: watch::Sender<bool>,
    _task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `target`, open.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let changes = open.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let mut changes = changes.clone();
                if !*changes.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut outside) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            open,
            _task: task,
        }
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts what is connected, and everything that connects from now on.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets everything through again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}
