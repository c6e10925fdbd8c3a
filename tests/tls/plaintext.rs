//! Ends that don't speak the same.

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
    for listener in ["grpc", "http", "admin"] {
        let label = format!("listener=\"{listener}\"");
        let labels = [&*label, "reason=\"plaintext\""];
        let name = "gaocache_connection_refusals_total";
        assert_eq!(
            metric_over_tls(&node, &files, name, &labels).await,
            1.0,
            "{listener}"
        );
    }
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
