//! Certificates and authorities are replaced while clients get.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use rustls::ClientConfig;

use super::*;

/// Gets over a connection that stays and over new ones, until told to stop.
async fn keep_getting(
    node: Addresses,
    config: Arc<Mutex<ClientConfig>>,
    stop: Arc<AtomicBool>,
    got: Arc<AtomicUsize>,
) {
    let now = || config.lock().clone();
    let mut kept = tls::grpc(node.grpc, now());
    while !stop.load(Ordering::Relaxed) {
        kept.get(get_request("a"))
            .await
            .expect("over the old connection");
        let new = tls::grpc(node.grpc, now()).get(get_request("a")).await;
        new.expect("over a new connection");
        let url = format!("https://{}/v1/users/a", node.http);
        let answer = tls::https(now()).get(url).send().await.expect("over HTTP");
        assert_eq!(answer.status(), 200);
        got.fetch_add(3, Ordering::Relaxed);
    }
}

/// Returns when a new connection is accepted from who shows this, or isn't any more, on both
/// listeners.
async fn accepts(node: &TestNode, config: &ClientConfig, wanted: bool) {
    within("the listeners' new files", async {
        loop {
            let over_grpc = tls::grpc(node.addresses.grpc, config.clone());
            let grpc = { over_grpc }.get(get_request("a")).await.is_ok();
            let url = format!("https://{}/v1/users/a", node.addresses.http);
            let http = tls::https(config.clone()).get(url).send().await.is_ok();
            if grpc == wanted && http == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_replaced_under_load_without_a_failed_get() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let (old, new) = (&files.authority, Authority::new());
    let mut settings = files.settings();
    settings.extend(files.asking("grpc", "required"));
    settings.extend(files.asking("http", "required"));
    let mut node = node(&origin, &settings).await;
    node.ready().await;
    let (of_old, of_new) = (old.issue(&["client"]), new.issue(&["client"]));
    let both = [&*old.pem, &*new.pem];
    let config = Arc::new(Mutex::new(tls::trusting(&both, Some(&of_old))));
    let (stop, got) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let getting = keep_getting(node.addresses, config.clone(), stop.clone(), got.clone());
    let getting = tokio::spawn(getting);
    let more = async || {
        let before = got.load(Ordering::Relaxed);
        within("gets", async {
            while got.load(Ordering::Relaxed) < before + 20 {
                assert!(!getting.is_finished(), "a get failed");
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    more().await;
    // Both authorities, then a client and then the node with certificates of the new one, then the
    // new one alone.
    files.folder.write("clients.pem", &both.concat());
    let by_new = tls::trusting(&both, Some(&of_new));
    accepts(&node, &by_new, true).await;
    more().await;
    *config.lock() = by_new.clone();
    more().await;
    files.folder.write_identity("node", &new.issue(&HERE));
    let only_new = tls::trusting(&[&new.pem], Some(&of_new));
    accepts(&node, &only_new, true).await;
    more().await;
    files.folder.write("clients.pem", &new.pem);
    let by_old = tls::trusting(&both, Some(&of_old));
    accepts(&node, &by_old, false).await;
    more().await;
    stop.store(true, Ordering::Relaxed);
    getting.await.expect("no get failed");
}

/// A connection of HTTP/2 as its client drives it: who sends requests, and its end.
async fn driven(
    to: std::net::SocketAddr,
    mut config: ClientConfig,
) -> (
    hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>>,
    tokio::task::JoinHandle<hyper::Result<()>>,
) {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tls::connect(to, "localhost", config).await.expect("let in");
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let connected = hyper::client::conn::http2::handshake(executor, io).await;
    let (sender, connection) = connected.expect("it speaks HTTP/2");
    (sender, tokio::spawn(connection))
}

#[tokio::test]
async fn connections_do_not_outlive_the_authority_of_their_certificates() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let (old, new) = (&files.authority, Authority::new());
    let mut settings = files.settings();
    settings.extend(files.asking("grpc", "required"));
    settings.extend(files.asking("http", "optional"));
    settings.push("limits.untrusted_timeout_seconds=0.2".into());
    let mut node = node(&origin, &settings).await;
    node.ready().await;
    let both = [&*old.pem, &*new.pem];
    files.folder.write("clients.pem", &both.concat());
    let by_new = tls::trusting(&both, Some(&new.issue(&["client"])));
    accepts(&node, &by_new, true).await;
    let by_old = tls::trusting(&both, Some(&old.issue(&["client"])));
    let grpc = driven(node.addresses.grpc, by_old.clone()).await;
    let http = driven(node.addresses.http, by_old.clone()).await;
    let stays = driven(node.addresses.grpc, by_new.clone()).await;
    let without = driven(node.addresses.http, tls::trusting(&both, None)).await;
    files.folder.write("clients.pem", &new.pem);
    for (sender, ended) in [grpc, http] {
        let ended = within("the node closes it", ended).await.unwrap();
        ended.expect("in order");
        assert!(sender.is_closed());
    }
    accepts(&node, &by_old, false).await;
    for (sender, ended) in [&stays, &without] {
        assert!(!ended.is_finished() && !sender.is_closed());
    }
    let name = "gaocache_connection_cuts_total";
    let cuts = metric_over_tls(&node, &files, name, &["untrusted"]).await;
    assert_eq!(cuts, 2.0);
}

#[tokio::test]
async fn files_that_can_t_be_used_change_nothing_and_are_told() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let mut node = node(&origin, &files.settings()).await;
    node.ready().await;
    let until = async |value| {
        let unusable = "gaocache_certificate_files_unusable";
        within("the metric", async {
            for listener in ["grpc", "http", "admin"] {
                let label = format!("listener=\"{listener}\"");
                while metric_over_tls(&node, &files, unusable, &[&label]).await != value {
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
    };
    until(0.0).await;
    let expired = files.authority.issue_until(&HERE, 2020);
    let early = files.authority.issue_from(&HERE, 3000);
    let of_client = files.authority.issue_for_client(&HERE);
    for what in [0, 1, 2, 3, 4] {
        match what {
            0 => files.folder.write("node.pem", "no certificate"),
            1 => files.folder.write_identity("node", &expired),
            2 => files.folder.write_identity("node", &early),
            3 => files.folder.write_identity("node", &of_client),
            // The key of another certificate.
            _ => {
                files
                    .folder
                    .write_identity("node", &files.authority.issue(&HERE));
                let other = files.authority.issue(&HERE);
                files.folder.write("node.key", &other.pair.serialize_pem());
            }
        }
        until(1.0).await;
        let mut client = tls::grpc(node.addresses.grpc, files.trusting(None));
        let got = client.get(get_request("a")).await;
        got.expect("by the certificate from before");
        files
            .folder
            .write_identity("node", &files.authority.issue_until(&HERE, 3000 + what));
        until(0.0).await;
    }
    let ends = ["listener=\"grpc\""];
    let name = "gaocache_certificate_not_after_timestamp_seconds";
    let shown = metric_over_tls(&node, &files, name, &ends).await;
    assert_eq!(shown, 32_629_824_000.0, "the begin of the year 3004");
}
