//! Certificates of clients: asked for or not, right, wrong and absent.

use super::*;

/// Whether a get is answered over gRPC, over HTTP and at the admin listener.
async fn answered(node: &TestNode, config: rustls::ClientConfig) -> [bool; 3] {
    let Addresses {
        grpc, http, admin, ..
    } = node.addresses;
    let over_http = tls::https(config.clone());
    let get = async |url| {
        over_http
            .get(url)
            .send()
            .await
            .is_ok_and(|it| it.status() == 200)
    };
    [
        tls::grpc(grpc, config).get(get_request("a")).await.is_ok(),
        get(format!("https://{http}/v1/users/a")).await,
        get(format!("https://{admin}/livez")).await,
    ]
}

#[tokio::test]
async fn a_client_shows_a_certificate_as_each_listener_wants() {
    let (origin, files) = (CountingOrigin::start().await, Files::new());
    let right = files.authority.issue(&["client.example"]);
    let wrong = Authority::new().issue(&["client.example"]);
    let expired = files.authority.issue_until(&["client.example"], 2020);
    let mut settings = files.settings();
    settings.extend(files.asking("grpc", "required"));
    settings.extend(files.asking("http", "optional"));
    let mut node = node(&origin, &settings).await;
    node.ready().await;
    for (shown, wanted) in [
        (None, [false, true, true]),
        (Some(&right), [true, true, true]),
        // The admin listener asks for none, and sees none.
        (Some(&wrong), [false, false, true]),
        (Some(&expired), [false, false, true]),
    ] {
        let names = shown.map(|it| it.certificate.pem());
        assert_eq!(
            answered(&node, files.trusting(shown)).await,
            wanted,
            "{names:?}"
        );
    }
    let labels = ["reason=\"tls\""];
    let name = "gaocache_connection_refusals_total";
    assert!(metric_over_tls(&node, &files, name, &labels).await >= 5.0);
}
