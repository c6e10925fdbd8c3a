//! Nodes with certificates from files: who is believed, and how the files are replaced.

use gaocache::internal::wire;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::Code;

use super::{
    attacker::{Held, shown_by, with_key},
    calls::*,
    common::{peer::batch, *},
};

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

#[tokio::test]
async fn a_node_tells_nothing_to_who_has_the_certificate_of_another_member() {
    let authority = Authority::new();
    let folder = Folder::new("n0", &authority);
    let settings = folder.settings();
    let further: Vec<&str> = settings.iter().map(String::as_str).collect();
    tells_nothing(&further, None, authority.issue("other.nodes").0).await;
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
        gets_no_connection(&nodes[0], &mut with_key(address, held), n1).await;
    }
    let mut unknown = with_key(address, &authority.issue("n7.nodes").0);
    is_answered(&mut unknown, n1, Code::Unauthenticated).await;
    let mut peer = with_key(address, &authority.issue("n1.nodes").0);
    is_answered(&mut peer, n1, Code::Ok).await;
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
