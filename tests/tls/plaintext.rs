//! Ends that don't speak the same.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn plaintext_on_a_port_of_tls_is_told_so_and_counted() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let node = node(&origin, &files.settings()).await;
    for address in [node.addresses.http, node.addresses.admin] {
        let answer = http().get(format!("http://{address}/readyz")).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 400);
        let told = answer.text().await.unwrap();
        assert_eq!(told, "this listener speaks TLS; use https://\n");
    }
    let mut client = client(node.addresses.grpc).await;
    let error = client.get(get_request("a")).await.unwrap_err();
    let told = gaocache_core::error::with_causes(error.to_string(), &error);
    assert!(told.contains("this listener speaks TLS"), "{told}");
    // A client that has been told and doesn't hang up is counted all the same.
    let mut stays = tokio::net::TcpStream::connect(node.addresses.http)
        .await
        .unwrap();
    stays.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut told = String::new();
    within("its answer", stays.read_to_string(&mut told))
        .await
        .unwrap();
    assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    for (listener, count) in [("grpc", 1.0), ("http", 2.0), ("admin", 1.0)] {
        let label = format!("listener=\"{listener}\"");
        let labels = [&*label, "reason=\"plaintext\""];
        let name = "gaocache_connection_refusals_total";
        assert_eq!(
            metric_over_tls(&node, &files, name, &labels).await,
            count,
            "{listener}"
        );
    }
}

#[tokio::test]
async fn a_redis_client_in_plaintext_gets_an_error_that_it_can_read() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let mut settings = files.settings();
    settings.push("redis.listen=127.0.0.1:0".into());
    settings.extend(files.of("redis"));
    let node = node(&origin, &settings).await;
    let address = node.addresses.redis.expect("it listens");
    for words in ["*1\r\n$4\r\nPING\r\n", "PING\r\n"] {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(words.as_bytes()).await.unwrap();
        let mut told = String::new();
        let read = client.read_to_string(&mut told);
        within("its answer", read).await.unwrap();
        let wanted = "-ERR this listener speaks TLS; use rediss://, or redis-cli --tls\r\n";
        assert_eq!(told, wanted);
    }
    let labels = ["listener=\"redis\"", "reason=\"plaintext\""];
    let name = "gaocache_connection_refusals_total";
    assert_eq!(metric_over_tls(&node, &files, name, &labels).await, 2.0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_no_refusal() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let node = node(&origin, &files.settings()).await;
    // As a probe of a load balancer.
    drop(
        tokio::net::TcpStream::connect(node.addresses.http)
            .await
            .unwrap(),
    );
    let open = ["listener=\"http\""];
    within("its end", async {
        while metric_over_tls(&node, &files, "gaocache_connections", &open).await > 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let name = "gaocache_connection_refusals_total";
    assert_eq!(metric_over_tls(&node, &files, name, &open).await, 0.0);
}
