//! What TLS costs: a hit over TLS 1.3 against one in plaintext, and a get that crosses one hop with
//! mutual TLS against one whose hop is plaintext.

use std::{sync::Arc, time::Duration};

use gaocache::{
    GroupDefinition, Registry,
    internal::{self, wire::cache_client::CacheClient},
    loader,
};
use gaocache_testing::{Authority, PemFolder};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{
    ROUNDS, SIZES,
    rounds::{Round, Server, median},
    value,
};

/// Whether the hop of [`serve_pair`] is plaintext.
const INSECURE: &str = "peer.insecure=true";
/// Gets of a round over two nodes.
const HOPS: usize = 20_000;

pub async fn compare() {
    let (authority, folder) = (Authority::new(), PemFolder::new());
    folder.write_identity("node", &authority.issue(&["localhost"]));
    let [cert, key] = [("cert", "node.pem"), ("key", "node.key")]
        .map(|(name, file)| format!("grpc.tls.{name}={}", folder.text(file)));
    let plain = Server::start(&["gaocache"]).await;
    let trusts = trusting(&authority.pem);
    let connect = async |address: &str| secured(address.to_owned(), trusts.clone()).await;
    let tls = Server::connected_by(&["gaocache", &cert, &key], connect).await;
    println!("\n| value | plaintext hit, CPU s/1M | TLS 1.3 hit, CPU s/1M | ratio |");
    println!("|---|---|---|---|");
    for (size, gets) in SIZES {
        row(&format!("{size} B"), &plain, &tls, size, gets).await;
    }
    let mut plain = Server::start(&["pair", INSECURE]).await;
    let mut tls = Server::start(&["pair"]).await;
    // Each caller has a key of its own: gets of one key at a time share a hop.
    for server in [&mut plain, &mut tls] {
        server.key = |size, caller| format!("{size}/{caller}");
    }
    println!("\nTwo nodes; about half of the gets cross a hop:\n");
    println!("| value | plaintext hop, CPU s/1M of both nodes | mutual TLS, CPU s/1M | ratio |");
    println!("|---|---|---|---|");
    row("100 B", &plain, &tls, 100, HOPS).await;
}

async fn row(name: &str, plain: &Server, tls: &Server, size: usize, gets: usize) {
    for server in [plain, tls] {
        server.round(size, gets / 10).await;
    }
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(plain.round(size, gets).await);
        with.push(tls.round(size, gets).await);
    }
    let cpu = |rounds: &[Round]| median(rounds.iter().map(|it| it.cpu));
    let ratio = median(
        without
            .iter()
            .zip(&with)
            .map(|(one, other)| other.cpu / one.cpu),
    );
    println!(
        "| {name} | {:.1} | {:.1} | {ratio:.2} |",
        cpu(&without),
        cpu(&with)
    );
}

fn trusting(authority: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

async fn secured(address: String, config: Arc<ClientConfig>) -> CacheClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let connect = move |_: Uri| {
        let (address, connector) = (address.clone(), TlsConnector::from(config.clone()));
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("localhost").unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    };
    let channel = endpoint.connect_with_connector(tower::service_fn(connect));
    CacheClient::new(channel.await.unwrap())
}

/// Two nodes in one process, which keep no copies of each other's keys. It prints the address of
/// one of them.
pub async fn serve_pair() {
    let insecure = std::env::args().nth(2).as_deref() == Some(INSECURE);
    let registry = Registry::memory();
    let mut nodes = Vec::new();
    for id in ["one", "two"] {
        let mut further = vec![
            "node.worker_threads=1",
            "log.level=warn",
            "cache.hot_after_requests=0",
        ];
        further.extend(insecure.then_some(INSECURE));
        let settings = internal::loopback(id, &further).unwrap();
        let values = loader(async |key: String| Ok::<_, gaocache::Error>(value(&key)));
        let group = GroupDefinition::new("bench", values).ttl(Duration::from_secs(3600));
        let builder = internal::configured(&settings).unwrap().group(group);
        let node = builder.registry(registry.clone()).bind().await.unwrap();
        let (address, mut rings) = (node.addresses().grpc.unwrap(), internal::rings(&node));
        nodes.push(tokio::spawn(node.run(std::future::pending())));
        if nodes.len() == 2 {
            let both = rings.wait_for(|ring| ring.ring_len() == 2).await;
            both.unwrap();
            println!("{address}");
        }
    }
    for node in nodes {
        node.await.unwrap().unwrap();
    }
}
