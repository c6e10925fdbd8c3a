//! Nodes with certificates from files: which callers they accept, and how the files are replaced.

use gaocache::internal::wire;
use gaocache_testing::{Authority, Issued, PemFolder};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::Code;

use super::{
    attacker::{Held, shown_by, with_key},
    calls::*,
    common::{peer::batch, *},
};

/// What the holder of a certificate with this name holds.
fn issue(authority: &Authority, name: &str) -> Held {
    held(&authority.issue(&[name]))
}

fn held(issued: &Issued) -> Held {
    Held {
        certificate: issued.certificate.der().clone(),
        key: PrivateKeyDer::Pkcs8(issued.pair.serialize_der().into()),
    }
}

/// A folder with a node's files, of which the settings are these.
struct Folder(PemFolder);

impl Folder {
    fn new(id: &str, authority: &Authority) -> Self {
        let folder = Self(PemFolder::new());
        folder.0.write("ca.pem", &authority.pem);
        folder.certify(id, authority);
        folder
    }

    /// Gives the node another certificate, and returns it.
    fn certify(&self, id: &str, authority: &Authority) -> CertificateDer<'static> {
        let issued = authority.issue(&[&format!("{id}.nodes")]);
        self.0.write_identity("node", &issued);
        issued.certificate.der().clone()
    }

    fn settings(&self) -> Vec<String> {
        let files = [("ca", "ca.pem"), ("cert", "node.pem"), ("key", "node.key")];
        let files = files.map(|(name, file)| format!("peer.tls.{name}={}", self.0.text(file)));
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
    tells_nothing(&further, None, issue(&authority, "other.nodes")).await;
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
        issue(&Authority::new(), "n1.nodes"),
        issue(&authority, "n1.nodes.other"),
    ];
    for held in &others {
        gets_no_connection(&nodes[0], &mut with_key(address, held), n1).await;
    }
    let mut unknown = with_key(address, &issue(&authority, "n7.nodes"));
    is_answered(&mut unknown, n1, Code::Unauthenticated).await;
    let mut peer = with_key(address, &issue(&authority, "n1.nodes"));
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

/// Returns when the node accepts the holder of this, or doesn't any more.
async fn hears(node: &TestNode, held: &Held, wanted: bool) {
    let revision = wire::AwaitRevisionRequest::default();
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
        folder.0.write("ca.pem", &format!("{}{}", old.pem, new.pem));
    }
    let by_new = issue(&new, "n1.nodes");
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
        folder.0.write("ca.pem", &new.pem);
    }
    let by_old = issue(&old, "n1.nodes");
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
