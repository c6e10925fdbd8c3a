//! Clients that know nothing of gaocache, on each listener.

use super::*;

#[tokio::test]
async fn each_listener_speaks_tls_and_the_protocols_that_it_has() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let mut node = node(&origin, &files.settings()).await;
    node.ready().await;
    let Addresses {
        grpc, http, admin, ..
    } = node.addresses;
    let mut client = tls::grpc(grpc, files.trusting(None));
    let got = client.get(get_request("a")).await;
    assert_eq!(got.expect("a value").into_inner().value, "value of a");

    let mut old = files.trusting(None);
    old.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut both = old.clone();
    both.alpn_protocols.insert(0, b"h2".to_vec());
    for (address, path, version) in [
        (http, "/v1/users/a", http::Version::HTTP_2),
        (admin, "/readyz", http::Version::HTTP_11),
    ] {
        let url = format!("https://{address}{path}");
        let answer = tls::https(both.clone()).get(&url).send().await.unwrap();
        assert_eq!(
            (answer.status(), answer.version()),
            (200.try_into().unwrap(), version)
        );
        let answer = tls::https(old.clone()).get(&url).send().await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_11, "{url}");
    }
    let refused = tls::connect(grpc, "localhost", old).await.unwrap_err();
    assert!(
        refused.to_string().contains("NoApplicationProtocol"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_older_tls_is_refused_and_counted() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let node = node(&origin, &files.settings()).await;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::pem::PemObject::from_pem_slice(files.authority.pem.as_bytes());
    roots.add(ca.unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let refused = tls::connect(node.addresses.http, "localhost", config).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    let labels = ["listener=\"http\"", "reason=\"tls\""];
    counted(&node, &files, &labels).await;
}

/// Returns when a refusal is counted: after its connection was closed.
async fn counted(node: &TestNode, files: &Files, labels: &[&str]) {
    let name = "gaocache_connection_refusals_total";
    within("the count", async {
        while metric_over_tls(node, files, name, labels).await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_and_one_that_is_too_long_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let mut settings = files.settings();
    settings.push("limits.handshake_timeout_seconds=0.2".into());
    let node = node(&origin, &settings).await;
    let mut silent = tokio::net::TcpStream::connect(node.addresses.grpc)
        .await
        .unwrap();
    // The begin of a handshake.
    silent.write_all(&[22, 3, 1]).await.unwrap();
    let ended = within("the end", silent.read(&mut [0; 64])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let labels = ["listener=\"grpc\"", "reason=\"handshake\""];
    let cut = "gaocache_connection_cuts_total";
    assert_eq!(metric_over_tls(&node, &files, cut, &labels).await, 1.0);

    let mut long = tokio::net::TcpStream::connect(node.addresses.http)
        .await
        .unwrap();
    // 20 KB of a hello of 60 KB: nobody waits for the rest of it.
    let mut hello = vec![1, 0, 0xea, 0x60];
    hello.resize(20_000, 0);
    for part in hello.chunks(16_000) {
        let length = (part.len() as u16).to_be_bytes();
        let record = [&[22, 3, 1], &length[..], part].concat();
        if long.write_all(&record).await.is_err() {
            break;
        }
    }
    let _ = within("the end", long.read_to_end(&mut Vec::new())).await;
    let labels = ["listener=\"http\"", "reason=\"tls\""];
    counted(&node, &files, &labels).await;
}

#[tokio::test]
async fn a_redis_client_is_answered_over_tls_and_shows_its_certificate_where_that_is_required() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let mut settings = vec!["redis.listen=127.0.0.1:0".to_owned()];
    settings.extend(files.of("redis"));
    settings.extend(files.asking("redis", "required"));
    let mut node = node(&origin, &settings).await;
    node.ready().await;
    let address = node.addresses.redis.expect("it listens");
    let get = async |shown: Option<&Issued>| -> std::io::Result<String> {
        let config = std::sync::Arc::new(files.trusting(shown));
        let stream = tokio::net::TcpStream::connect(address).await?;
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(config);
        let mut stream = connector.connect(name, stream).await?;
        stream.write_all(b"GET users:alice\r\nQUIT\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let right = files.authority.issue(&["client.example"]);
    let answer = within("an answer", get(Some(&right))).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer, "$14\r\nvalue of alice\r\n+OK\r\n");
    assert!(within("a refusal", get(None)).await.is_err());
}
