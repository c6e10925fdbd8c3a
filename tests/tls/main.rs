//! TLS of the listeners for clients and operators: who gets in, how certificates are replaced, and
//! what is told when the two ends don't speak the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod listeners;
mod origin;
mod plaintext;
mod rotation;
mod settings;

use common::*;
use gaocache_testing::{Authority, Issued, PemFolder};

/// What certificates of nodes are for.
const HERE: [&str; 2] = ["localhost", "127.0.0.1"];

/// A node's files.
struct Files {
    authority: Authority,
    folder: PemFolder,
}

impl Files {
    fn new() -> Self {
        let (authority, folder) = (Authority::new(), PemFolder::new());
        folder.write("ca.pem", &authority.pem);
        folder.write("clients.pem", &authority.pem);
        folder.write_identity("node", &authority.issue(&HERE));
        Self { authority, folder }
    }

    /// The settings of all listeners with these files.
    fn settings(&self) -> Vec<String> {
        let listeners = ["grpc", "http", "admin"];
        listeners.iter().flat_map(|it| self.of(it)).collect()
    }

    /// Those of one listener.
    fn of(&self, listener: &str) -> [String; 2] {
        [("cert", "node.pem"), ("key", "node.key")]
            .map(|(name, file)| format!("{listener}.tls.{name}={}", self.folder.text(file)))
    }

    /// Those by which it asks for certificates.
    fn asking(&self, listener: &str, auth: &str) -> [String; 2] {
        [
            format!(
                "{listener}.tls.client_ca={}",
                self.folder.text("clients.pem")
            ),
            format!("{listener}.tls.client_auth={auth}"),
        ]
    }

    fn trusting(&self, shown: Option<&Issued>) -> rustls::ClientConfig {
        tls::trusting(&[&self.authority.pem], shown)
    }
}

/// A node alone, with these settings.
async fn node(origin: &CountingOrigin, further: &[String]) -> TestNode {
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    joining(&gaocache::Registry::memory(), "n0", &origin.url(), &further).await
}

/// The value of a metric of a node whose admin listener speaks TLS.
async fn metric_over_tls(node: &TestNode, files: &Files, name: &str, labels: &[&str]) -> f64 {
    let url = format!("https://{}/metrics", node.addresses.admin);
    metric_at(&tls::https(files.trusting(None)), &url, name, labels).await
}
