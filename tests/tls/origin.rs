//! Origins whose certificates are of an authority that the system doesn't know.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Every key has a value. A connection carries one answer, so that each load needs a handshake.
struct HttpsOrigin {
    address: SocketAddr,
    shown: Arc<Mutex<TlsAcceptor>>,
}

impl HttpsOrigin {
    async fn start(issued: &Issued) -> Self {
        let shown = Arc::new(Mutex::new(acceptor(issued)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shows = shown.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = shows.lock().clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let _ = stream.read(&mut [0; 4096]).await;
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nvalue";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, shown }
    }

    fn url(&self) -> String {
        format!("https://{}/{{key}}", self.address)
    }
}

fn acceptor(issued: &Issued) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(issued.pair.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![issued.certificate.der().clone()], key);
    TlsAcceptor::from(Arc::new(config.expect("an identity")))
}

async fn load(node: &TestNode, key: &str) -> (u16, String) {
    let url = node.http(&format!("/v1/users/{key}"));
    let answer = http().get(url).send().await.expect("answers");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

async fn until(node: &TestNode, prefix: &str, wanted: u16) {
    within("the authorities' new file", async {
        for number in 0.. {
            if load(node, &format!("{prefix}-{number}")).await.0 == wanted {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_origin_of_a_private_authority_is_loaded_from_and_the_authority_may_change() {
    let (files, new) = (Files::new(), Authority::new());
    let origin = HttpsOrigin::start(&files.authority.issue(&HERE)).await;
    let memory = gaocache::Registry::memory;
    let quick = "groups[0].origin.retries=0";
    let stranger = joining(&memory(), "n0", &origin.url(), &[quick]).await;
    let (status, told) = load(&stranger, "a").await;
    assert_eq!(status, 502, "{told}");
    assert!(told.contains("UnknownIssuer"), "{told}");

    let ca = format!("groups[0].origin.ca={}", files.folder.text("ca.pem"));
    let mut node = joining(&memory(), "n1", &origin.url(), &[&ca, quick]).await;
    node.ready().await;
    assert_eq!(load(&node, "a").await, (200, "value".into()));
    // A file that can't be used changes nothing.
    files.folder.write("ca.pem", "no certificate");
    assert_eq!(load(&node, "b").await.0, 200);
    // Another authority counts from the next load on, and the one before doesn't any more.
    files.folder.write("ca.pem", &new.pem);
    until(&node, "old", 502).await;
    *origin.shown.lock() = acceptor(&new.issue(&HERE));
    assert_eq!(load(&node, "c").await.0, 200);
}

#[test]
fn authorities_that_can_t_be_used_are_told_at_the_start() {
    let files = Files::new();
    files.folder.write("empty.pem", "");
    let ca = format!("groups[0].origin.ca={}", files.folder.text("empty.pem"));
    let of = |groups: &str| settings::told(&[groups.into(), ca.clone()]);
    let http = "groups=[{ name = \"g\", origin = { kind = \"http\", url = \"https://o/{key}\" } }]";
    let told = of(http);
    assert!(told.contains("contains no certificate"), "{told}");
    let folder = "groups=[{ name = \"g\", origin = { kind = \"file\", path = \"/\" } }]";
    let told = of(folder);
    assert!(told.contains("has no such setting"), "{told}");
}
