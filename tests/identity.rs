//! Who is believed on the listener for nodes: attackers with network access, and members that
//! pretend to be others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::{net::SocketAddr, sync::Arc};

use common::*;
use gaocache::internal::{
    self,
    wire::{self, handoff_entry::What, peer_client::PeerClient},
};
use gaocache_core::{
    membership::{Contact, IdHash, KeyFingerprint, Member},
    ports::{Registry, Session},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

/// What the attacker holds.
struct Held {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Held {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["somebody".to_owned()]).unwrap();
        Self {
            certificate: params.self_signed(&pair).unwrap().der().clone(),
            key: PrivateKeyDer::Pkcs8(pair.serialize_der().into()),
        }
    }

    fn fingerprint(&self) -> KeyFingerprint {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, &self.certificate);
        KeyFingerprint(digest.as_ref().try_into().unwrap())
    }

    fn server(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap()
    }
}

/// A certificate authority.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate with this name.
    fn issue(&self, name: &str) -> (Held, [(&'static str, String); 2]) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&pair, &self.issuer).unwrap();
        let files = [
            ("cert.pem", certificate.pem()),
            ("key.pem", pair.serialize_pem()),
        ];
        let held = Held {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(pair.serialize_der().into()),
        };
        (held, files)
    }
}

/// A folder with a node's files, of which the settings are these.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(id: &str, authority: &Authority) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("ca.pem", &authority.pem);
        folder.certify(id, authority);
        folder
    }

    /// Gives the node another certificate, and returns it.
    fn certify(&self, id: &str, authority: &Authority) -> CertificateDer<'static> {
        let (held, files) = authority.issue(&format!("{id}.nodes"));
        for (file, text) in files {
            self.write(file, &text);
        }
        held.certificate
    }

    /// As Kubernetes does: a reader sees the old file or the new one.
    fn write(&self, file: &str, text: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.0.path().join(file)).unwrap();
    }

    fn settings(&self) -> Vec<String> {
        let file = |name: &str| self.0.path().join(format!("{name}.pem"));
        let files = ["ca", "cert", "key"]
            .map(|name| format!("peer.tls.{name}={}", file(name).to_str().unwrap()));
        let mut settings = Vec::from(files);
        settings.push("peer.allowed_peers=[\"{id}.nodes\"]".into());
        settings
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

impl rustls::server::danger::ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<rustls::server::danger::ClientCertVerified, rustls::Error> {
        Ok(rustls::server::danger::ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}

/// Shows a certificate whether or not the key fits it.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// A client that shows this certificate, and signs with this key; `None`: it shows none.
fn showing(certificate: Option<(&CertificateDer<'static>, &Held)>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut config = match certificate {
        Some((certificate, held)) => {
            let signs = provider()
                .key_provider
                .load_private_key(held.key.clone_key());
            let shown = CertifiedKey::new(vec![certificate.clone()], signs.unwrap());
            let shows = Arc::new(Shows(Arc::new(shown)));
            let roots = builder.with_root_certificates(RootCertStore::empty());
            roots.with_client_cert_resolver(shows)
        }
        None => {
            let roots = builder.with_root_certificates(RootCertStore::empty());
            roots.with_no_client_auth()
        }
    };
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(Anybody));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A connection whose first call makes it.
fn caller(address: SocketAddr, config: ClientConfig) -> PeerClient<Channel> {
    let connector = TlsConnector::from(Arc::new(config));
    let connect = move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("node").unwrap();
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    PeerClient::new(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
}

fn with_key(address: SocketAddr, held: &Held) -> PeerClient<Channel> {
    caller(address, showing(Some((&held.certificate, held))))
}

/// The certificate that a node shows.
async fn shown_by(address: SocketAddr) -> CertificateDer<'static> {
    let held = Held::new();
    let config = showing(Some((&held.certificate, &held)));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("node").unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

fn batch(sender: IdHash, key: &str) -> wire::HandoffBatch {
    wire::HandoffBatch {
        format: 1,
        sender: sender.0,
        receipts: 1,
        revision: u64::MAX,
        entries: vec![wire::HandoffEntry {
            group: "users".into(),
            key: key.into(),
            what: Some(What::Entry(wire::Entry {
                found: true,
                value: "planted".into(),
                entity_tag: 7,
                ttl_remaining_ms: None,
                stale_while_revalidate_ms: 0,
                stale_if_error_ms: 0,
            })),
            ..wire::HandoffEntry::default()
        }],
        ..wire::HandoffBatch::default()
    }
}

/// Hands one batch over and returns what became of its entry.
async fn plant(
    peer: &mut PeerClient<Channel>,
    batch: wire::HandoffBatch,
) -> Result<wire::HandoffFate, Status> {
    let answer = peer.handoff(tokio_stream::once(batch)).await?;
    let mut receipts = answer.into_inner();
    receipts.message().await?.expect("an empty one first");
    let receipt = receipts.message().await?.expect("one for each batch");
    Ok(receipt.fates().next().expect("one for each entry"))
}

/// What a call of each method answers.
async fn every_call(peer: &mut PeerClient<Channel>, sender: IdHash) -> Vec<(&'static str, Code)> {
    let (group, key) = ("users".to_owned(), "alice".to_owned());
    let fetch = wire::FetchRequest {
        group: group.clone(),
        key: key.clone(),
    };
    let peek = wire::PeekRequest {
        group: group.clone(),
        key: key.clone(),
    };
    let remove = wire::RemoveHereRequest {
        group,
        key: Some(key),
    };
    let vouch = wire::VouchRequest {
        asker: sender.0,
        counted: Vec::new(),
    };
    let promise = wire::PromiseRequest { against: sender.0 };
    let revision = wire::AwaitRevisionRequest { revision: 0 };
    let code = |result: Option<Status>| result.map_or(Code::Ok, |status| status.code());
    vec![
        ("fetch", code(peer.fetch(fetch).await.err())),
        ("peek", code(peer.peek(peek).await.err())),
        ("remove", code(peer.remove(remove).await.err())),
        ("vouch", code(peer.vouch(vouch).await.err())),
        ("promise", code(peer.promise(promise).await.err())),
        ("revision", code(peer.await_revision(revision).await.err())),
        (
            "handoff",
            code(plant(peer, batch(sender, "alice")).await.err()),
        ),
    ]
}

async fn refusals(node: &TestNode, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    metric(node, "gaocache_peer_refusals_total", &[&reason]).await
}

#[tokio::test]
async fn who_holds_no_key_gets_no_connection() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(1, &origin.url(), &[]).await;
    let (address, sender) = (nodes[0].addresses.peer, nodes[0].incarnation());
    let plaintext = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut peer = PeerClient::new(plaintext.connect_lazy());
    for (call, code) in every_call(&mut peer, sender).await {
        assert_ne!(code, Code::Ok, "{call} in plaintext");
    }
    let plaintexts = refusals(&nodes[0], "handshake").await;
    assert!(plaintexts > 0.0);
    let mut peer = caller(address, showing(None));
    for (call, code) in every_call(&mut peer, sender).await {
        assert_ne!(code, Code::Ok, "{call} without a certificate");
    }
    let without = refusals(&nodes[0], "handshake").await;
    assert!(without > plaintexts);
    // The certificate of a member, which everybody can see, without its key.
    let (certificate, held) = (shown_by(address).await, Held::new());
    let mut peer = caller(address, showing(Some((&certificate, &held))));
    for (call, code) in every_call(&mut peer, sender).await {
        assert_ne!(code, Code::Ok, "{call} with a member's certificate");
    }
    assert!(refusals(&nodes[0], "handshake").await > without);
    assert_eq!(origin.loads(), 0);
}

#[tokio::test]
async fn a_self_made_key_is_refused_by_every_call_until_its_member_is_registered() {
    let origin = CountingOrigin::start().await;
    let registry = internal::memory();
    let mut node = joining(
        &internal::registry(registry.clone()),
        "n0",
        &origin.url(),
        &[],
    )
    .await;
    node.ready().await;
    let held = Held::new();
    let mut peer = with_key(node.addresses.peer, &held);
    let calls = every_call(&mut peer, node.incarnation()).await;
    for (call, code) in &calls {
        assert_eq!(*code, Code::Unauthenticated, "{call}");
    }
    assert_eq!(refusals(&node, "unknown").await, calls.len() as f64);
    assert_eq!(origin.loads(), 0);
    let answer = node.client().await.get(get_request("alice")).await;
    assert_eq!(answer.unwrap().into_inner().value, "value of alice");

    // The same connection is a member's from the moment at which the node knows its key.
    let (me, _session) = register(&registry, "friend", &held).await;
    node.ring_of(2).await;
    for (call, code) in every_call(&mut peer, me.incarnation()).await {
        assert_eq!(code, Code::Ok, "{call}");
    }
}

/// Registers a member that holds this key, at an address where nobody listens.
async fn register(
    registry: &Arc<dyn Registry>,
    id: &str,
    held: &Held,
) -> (Member, Box<dyn Session>) {
    let mut me = Member::new(id, "127.0.0.1:1");
    me.instance = "1".into();
    me.contact = Contact {
        address: "127.0.0.1:1".into(),
        key: Some(held.fingerprint()),
    };
    let session = registry.join(me.clone()).await.expect("a free id");
    (me, session)
}

#[tokio::test]
async fn a_member_speaks_for_no_other_and_gives_no_value_a_life_or_a_tag_of_its_own() {
    let origin = CountingOrigin::start().await;
    let registry = internal::memory();
    let of_nodes = internal::registry(registry.clone());
    let mut node = joining(&of_nodes, "n0", &origin.url(), &[]).await;
    let mut other = joining(&of_nodes, "n1", &origin.url(), &[]).await;
    let held = Held::new();
    let (me, _session) = register(&registry, "friend", &held).await;
    node.ring_of(3).await;
    other.ring_of(3).await;
    let mut peer = with_key(node.addresses.peer, &held);
    for sender in [node.incarnation(), other.incarnation()] {
        let refused = plant(&mut peer, batch(sender, "a")).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        let vouch = wire::VouchRequest {
            asker: sender.0,
            counted: Vec::new(),
        };
        let refused = peer.vouch(vouch).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    assert_eq!(refusals(&node, "sender").await, 4.0);
    // Its own word counts, within what the group allows. Some of the keys are the node's.
    let mut kept = None;
    for number in 0..100 {
        let key = format!("k{number}");
        let fate = plant(&mut peer, batch(me.incarnation(), &key)).await;
        if fate.expect("heard") == wire::HandoffFate::Kept {
            kept = Some(key);
            break;
        }
    }
    let key = kept.expect("a key of the node");
    let answer = node.client().await.get(get_request(&key)).await;
    let answer = answer.expect("a value").into_inner();
    assert_eq!(answer.value, "planted");
    let left = answer.ttl_remaining_ms.expect("a life as the group has it");
    assert!(left <= 600_000, "{left}");
    assert_ne!(answer.entity_tag, 7);
}

/// A node of these settings gets a member whose address leads to somebody who holds something else:
/// nobody may be told anything there.
async fn tells_nothing(further: &[&str], registered: Option<KeyFingerprint>, impostor: Held) {
    let origin = CountingOrigin::start().await;
    let registry = internal::memory();
    let of_nodes = internal::registry(registry.clone());
    let mut node = joining(&of_nodes, "n0", &origin.url(), further).await;
    node.ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut member = Member::new("gone", "127.0.0.1:1");
    member.contact = Contact {
        address: listener.local_addr().unwrap().to_string().into(),
        key: registered,
    };
    let (tried, mut tries) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(impostor.server()));
        while let Ok((stream, _)) = listener.accept().await {
            let _ = tried.try_send(acceptor.accept(stream).await.is_ok());
        }
    });
    let _session = registry.join(member).await.expect("a free id");
    node.ring_of(2).await;
    let mut client = node.client().await;
    for number in 0..40 {
        let answer = client.get(get_request(&format!("k{number}"))).await;
        let value = answer.expect("a value").into_inner().value;
        assert_eq!(value, format!("value of k{number}"));
    }
    let completed = within("a connection", tries.recv()).await;
    assert_eq!(completed, Some(false), "it was hung up on in the handshake");
    let unreachable = ["gone", "unreachable"];
    assert!(metric(&node, "gaocache_peer_fetches_total", &unreachable).await > 0.0);
}

#[tokio::test]
async fn a_node_tells_nothing_to_who_holds_another_key_than_the_member() {
    let registered = Held::new().fingerprint();
    tells_nothing(&[], Some(registered), Held::new()).await;
}

#[tokio::test]
async fn a_node_tells_nothing_to_who_has_the_certificate_of_another_member() {
    let authority = Authority::new();
    let folder = Folder::new("n0", &authority);
    let settings = folder.settings();
    let further: Vec<&str> = settings.iter().map(String::as_str).collect();
    tells_nothing(&further, None, authority.issue("other.nodes").0).await;
}

#[tokio::test]
async fn nodes_that_are_told_to_be_insecure_form_a_cluster_of_their_own() {
    let origin = CountingOrigin::start().await;
    let nodes = cluster(3, &origin.url(), &["peer.insecure=true"]).await;
    for node in &nodes {
        let answer = node.client().await.get(get_request("alice")).await;
        assert_eq!(answer.unwrap().into_inner().value, "value of alice");
    }
    assert_eq!(origin.loads(), 1);
}

/// Two nodes with certificates of that authority in these folders.
async fn certified(folders: &[Folder; 2], url: &str) -> Vec<TestNode> {
    let registry = gaocache::Registry::memory();
    let mut nodes = Vec::new();
    for (number, folder) in folders.iter().enumerate() {
        let settings = folder.settings();
        let further: Vec<&str> = settings.iter().map(String::as_str).collect();
        nodes.push(joining(&registry, &format!("n{number}"), url, &further).await);
    }
    for node in &mut nodes {
        node.ring_of(2).await;
        node.ready().await;
    }
    nodes
}

#[tokio::test]
async fn with_certificates_a_peer_is_who_has_a_name_that_is_allowed_and_is_whom_it_names() {
    let (origin, authority) = (CountingOrigin::start().await, Authority::new());
    let folders = [("n0", &authority), ("n1", &authority)].map(|(id, it)| Folder::new(id, it));
    let nodes = certified(&folders, &origin.url()).await;
    let (n0, n1) = (nodes[0].incarnation(), nodes[1].incarnation());
    let address = nodes[0].addresses.peer;
    let others = [
        Held::new(),
        Authority::new().issue("n1.nodes").0,
        authority.issue("n1.nodes.other").0,
    ];
    for held in &others {
        for (call, code) in every_call(&mut with_key(address, held), n1).await {
            assert_ne!(code, Code::Ok, "{call}");
        }
    }
    assert!(refusals(&nodes[0], "handshake").await > 0.0);
    let mut unknown = with_key(address, &authority.issue("n7.nodes").0);
    for (call, code) in every_call(&mut unknown, n1).await {
        assert_eq!(code, Code::Unauthenticated, "{call}");
    }
    let mut peer = with_key(address, &authority.issue("n1.nodes").0);
    for (call, code) in every_call(&mut peer, n1).await {
        assert_eq!(code, Code::Ok, "{call}");
    }
    let refused = plant(&mut peer, batch(n0, "a")).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

/// Reads keys that were not read before, at each node; none of them finds the other unreachable.
async fn read_new_keys(nodes: &[TestNode], round: usize) {
    for node in nodes {
        let mut client = node.client().await;
        for number in 0..20 {
            let key = format!("k{round}-{number}");
            let answer = client.get(get_request(&key)).await.expect("a value");
            assert_eq!(answer.into_inner().value, format!("value of {key}"));
        }
        let unreachable = ["unreachable"];
        let failed = metric(node, "gaocache_peer_fetches_total", &unreachable).await;
        assert_eq!(failed, 0.0);
    }
}

/// Returns when the node hears who holds this, or doesn't any more.
async fn hears(node: &TestNode, held: &Held, wanted: bool) {
    let revision = wire::AwaitRevisionRequest { revision: 0 };
    within("another answer", async {
        while with_key(node.addresses.peer, held)
            .await_revision(revision)
            .await
            .is_ok()
            != wanted
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_authority_is_replaced_without_a_failed_call() {
    let origin = CountingOrigin::start().await;
    let (old, new) = (Authority::new(), Authority::new());
    let folders = [("n0", &old), ("n1", &old)].map(|(id, it)| Folder::new(id, it));
    let nodes = certified(&folders, &origin.url()).await;
    read_new_keys(&nodes, 0).await;
    // Both at once, then other certificates, then the new one alone.
    for folder in &folders {
        folder.write("ca.pem", &format!("{}{}", old.pem, new.pem));
    }
    let by_new = new.issue("n1.nodes").0;
    for node in &nodes {
        hears(node, &by_new, true).await;
    }
    read_new_keys(&nodes, 1).await;
    for (number, folder) in folders.iter().enumerate() {
        // In between, the key doesn't fit the certificate: what was before stays in use.
        let certificate = folder.certify(&format!("n{number}"), &new);
        within("the new certificate", async {
            while shown_by(nodes[number].addresses.peer).await != certificate {
                tokio::task::yield_now().await;
            }
        })
        .await;
        read_new_keys(&nodes, 2 + number).await;
    }
    for folder in &folders {
        folder.write("ca.pem", &new.pem);
    }
    let by_old = old.issue("n1.nodes").0;
    for node in &nodes {
        hears(node, &by_old, false).await;
    }
    read_new_keys(&nodes, 4).await;
    // Removals have a connection of their own, which is made only now.
    let request = wire::PurgeRequest {
        group: "users".into(),
    };
    let purged = nodes[0].client().await.purge(request).await;
    purged.expect("reaches the other node");
}
