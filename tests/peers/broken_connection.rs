//! Connections that end under a load.

use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};
use tonic::{Response, Status};

use super::*;

/// A way to `target` whose connections can be cut.
pub(super) struct Way {
    pub(super) address: SocketAddr,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepting: JoinHandle<()>,
}

impl Way {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<JoinSet<()>>>::default();
        let accepted = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                accepted.lock().spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self {
            address,
            connections,
            accepting,
        }
    }

    /// Ends what is connected.
    pub(super) async fn cut(&self) {
        let mut connections = std::mem::take(&mut *self.connections.lock());
        connections.shutdown().await;
    }

    /// The same, and nothing can be connected any more.
    async fn end(self) {
        self.accepting.abort();
        assert!(self.accepting.await.is_err(), "its listener is closed");
        let mut connections = std::mem::take(&mut *self.connections.lock());
        connections.shutdown().await;
    }
}

/// A node, another that it believes in and reaches by a way, and a key of the other's.
async fn two_nodes(origin: &CountingOrigin) -> (TestNode, TestNode, Way, String) {
    let far = builder(&settings("far", &origin.url(), &["peer.insecure=true"]));
    let far = far.registry(gaocache::Registry::memory());
    let mut far = TestNode::start(far.bind().await.expect("binds"));
    far.ready().await;
    let way = Way::to(far.addresses.peer).await;
    let node = node_among(&[("far", way.address)], &origin.url(), &[]).await;
    let mut client = node.client().await;
    let mut number = 0;
    let key = loop {
        let key = format!("user-{number}");
        let answer = client.get(get_request(&key)).await.expect("a value");
        if answer.into_inner().owner == "far" {
            break key;
        }
        number += 1;
    };
    let removed = wire::RemoveRequest {
        group: "users".into(),
        key: key.clone(),
    };
    client.remove(removed).await.expect("removed");
    (node, far, way, key)
}

/// A get of that key by that node, whose load is held back.
async fn held_get(
    node: &TestNode,
    origin: &CountingOrigin,
    key: &str,
) -> JoinHandle<Result<Response<wire::GetResponse>, Status>> {
    let before = origin.loads_of(key);
    origin.hold();
    let mut client = node.client().await;
    let asked = key.to_owned();
    let get = tokio::spawn(async move { client.get(get_request(&asked)).await });
    until_loads(origin, key, before + 1).await;
    get
}

async fn until_loads(origin: &CountingOrigin, key: &str, wanted: usize) {
    within("the load", async {
        while origin.loads_of(key) < wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_load_is_made_anew_and_the_load_is_joined() {
    let origin = CountingOrigin::start().await;
    let (node, _far, way, key) = two_nodes(&origin).await;
    let before = origin.loads_of(&key);
    let get = held_get(&node, &origin, &key).await;
    way.cut().await;
    // It is asked by a new connection, while the load still runs.
    within("the new connection", async {
        while way.connections.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.release();
    let answer = within("the value", get).await.unwrap().expect("a value");
    assert_eq!(answer.into_inner().value, format!("value of {key}"));
    assert_eq!(origin.loads_of(&key), before + 1);
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 0.0);
}

#[tokio::test]
async fn an_owner_that_dies_under_a_load_is_replaced_at_once() {
    let origin = CountingOrigin::start().await;
    let (node, _far, way, key) = two_nodes(&origin).await;
    let before = origin.loads_of(&key);
    let get = held_get(&node, &origin, &key).await;
    way.end().await;
    until_loads(&origin, &key, before + 2).await;
    assert_eq!(metric(&node, "gaocache_peers_ejected", &[]).await, 1.0);
    origin.release();
    within("the value", get).await.unwrap().expect("a value");
}
