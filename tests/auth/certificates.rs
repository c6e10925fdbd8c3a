//! What the names of a client's certificate are granted, at the listeners that ask for one.

use gaocache_testing::{Authority, Issued, PemFolder};
use reqwest::Method;

use crate::{
    calls::{Verdict, verdict},
    common::{CountingOrigin, TestNode, joining, tls},
    redis::Typed,
};
use gaocache::{
    Registry,
    internal::wire::{PurgeRequest, RemoveRequest},
};

struct Clients {
    authority: Authority,
    web: Issued,
    other: Issued,
}

async fn node(clients: &Clients, folder: &PemFolder) -> TestNode {
    folder.write("clients.pem", &clients.authority.pem);
    let own = clients.authority.issue(&["localhost", "127.0.0.1"]);
    folder.write_identity("node", &own);
    let mut further = vec![
        "auth.anonymous=".to_owned(),
        "auth.grants=[\"certificate:web.test read,remove users\", \"certificate:web.test admin\"]"
            .into(),
    ];
    further.push("redis.listen=127.0.0.1:0".into());
    for listener in ["grpc", "http", "admin", "redis"] {
        further.extend([
            format!("{listener}.tls.cert={}", folder.text("node.pem")),
            format!("{listener}.tls.key={}", folder.text("node.key")),
            format!("{listener}.tls.client_ca={}", folder.text("clients.pem")),
            format!("{listener}.tls.client_auth=optional"),
        ]);
    }
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let origin = CountingOrigin::start().await;
    joining(&Registry::memory(), "n0", &origin.url(), &further).await
}

#[tokio::test]
async fn a_client_has_what_is_granted_to_a_name_of_its_certificate_at_every_listener() {
    let authority = Authority::new();
    let clients = Clients {
        web: authority.issue(&["web.test"]),
        other: authority.issue(&["other.test"]),
        authority,
    };
    let folder = PemFolder::new();
    let node = node(&clients, &folder).await;
    let http = format!("https://{}/v1/users/k", node.addresses.http);
    let admin = format!("https://{}/log?level=warn", node.addresses.admin);
    for (shown, wanted) in [
        (Some(&clients.web), Verdict::Allowed),
        (Some(&clients.other), Verdict::Denied),
        (None, Verdict::Unauthenticated),
    ] {
        let trusting = || tls::trusting(&[&clients.authority.pem], shown);
        let mut client = tls::grpc(node.addresses.grpc, trusting());
        let request = RemoveRequest {
            group: "users".into(),
            key: "k".into(),
        };
        let removed = client.remove(request).await.err();
        assert_eq!(verdict(removed.as_ref()), wanted, "gRPC");
        let got = client.get(crate::common::get_request("k")).await.err();
        assert_eq!(verdict(got.as_ref()), wanted, "gRPC");
        let request = PurgeRequest {
            group: "users".into(),
        };
        let purged = client.purge(request).await.err();
        assert_ne!(verdict(purged.as_ref()), Verdict::Allowed, "not granted");
        let asks = tls::https(trusting());
        for (method, url) in [
            (Method::GET, &http),
            (Method::DELETE, &http),
            (Method::PUT, &admin),
        ] {
            let answer = asks.request(method.clone(), url).send().await;
            let given = match answer.expect("answers").status().as_u16() {
                401 => Verdict::Unauthenticated,
                403 => Verdict::Denied,
                _ => Verdict::Allowed,
            };
            assert_eq!(given, wanted, "{method} {url}");
        }
        let redis = node.addresses.redis.expect("it listens");
        let stream = tls::connect(redis, "localhost", trusting()).await;
        let mut typed = Typed::new(stream.expect("connects"));
        for words in ["GET users:k", "DEL users:k"] {
            let answer = typed.answer(words).await;
            let given = match answer.split(' ').next() {
                Some("-NOAUTH") => Verdict::Unauthenticated,
                Some("-NOPERM") => Verdict::Denied,
                _ => Verdict::Allowed,
            };
            assert_eq!(given, wanted, "{words}: {answer}");
        }
    }
    node.stopped().await;
}
