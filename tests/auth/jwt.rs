//! JWTs of an issuer whose keys are made here.

use std::{fs, sync::Arc};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing,
};
use gaocache_testing::{Authority, PemFolder};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use parking_lot::Mutex;
use ring::{hmac, signature::KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::{
    calls::{Call, Listener, Verdict, make},
    common::{CountingOrigin, TestNode, joining, metric, within},
    issuer::{Key, encoded, public, token},
};
use gaocache::Registry;

const SUBJECT: &str = "system:serviceaccount:shop:web";

/// As Kubernetes makes them out for service accounts, and with a change.
fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = json!({
        "iss": "https://issuer.test",
        "aud": ["gaocache", "other"],
        "sub": SUBJECT,
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "kubernetes.io": { "namespace": "shop" },
    });
    change(&mut claims);
    claims
}

/// Changes claims; the second is the time, in seconds.
type Change = fn(&mut Value, u64);

/// Claims that make a token one that doesn't count, by what is wrong with it.
const WRONG: [(&str, Change); 9] = [
    ("another audience", |it, _| it["aud"] = "other".into()),
    ("no audience", |it, _| {
        drop(it.as_object_mut().unwrap().remove("aud"))
    }),
    ("another issuer", |it, _| {
        it["iss"] = "https://other.test".into()
    }),
    ("no issuer", |it, _| {
        drop(it.as_object_mut().unwrap().remove("iss"))
    }),
    ("expired", |it, now| it["exp"] = (now - 60).into()),
    ("no expiry", |it, _| {
        drop(it.as_object_mut().unwrap().remove("exp"))
    }),
    ("not yet valid", |it, now| it["nbf"] = (now + 600).into()),
    ("no subject", |it, _| {
        drop(it.as_object_mut().unwrap().remove("sub"))
    }),
    ("an odd subject", |it, _| it["sub"] = json!([SUBJECT])),
];

async fn node(keys: &str) -> TestNode {
    node_with(&[keys]).await
}

async fn node_with(keys: &[&str]) -> TestNode {
    let origin = CountingOrigin::start().await;
    let grant = format!("auth.grants=jwt:{SUBJECT} remove users");
    let further = [
        "auth.anonymous=",
        "auth.jwt.issuer=https://issuer.test",
        "auth.jwt.audience=gaocache",
        &grant,
    ];
    let further = [&further, keys].concat();
    joining(&Registry::memory(), "n0", &origin.url(), &further).await
}

async fn removes(node: &TestNode, token: &str) -> Verdict {
    let listener = Listener::Grpc(node.addresses.grpc.port());
    make(&listener, Call::Remove, "users", Some(token)).await
}

#[tokio::test]
async fn a_jwt_counts_only_if_its_issuer_made_it_out_for_this_audience_and_it_is_valid_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jwks.json");
    let keys = [Key::rsa(), Key::ec(), Key::ed()];
    let ids = ["rsa", "ec", "ed"];
    let mut jwks: Vec<Value> = keys.iter().zip(ids).map(|(key, id)| key.jwk(id)).collect();
    // Keys that are not for signatures of these kinds hinder nobody.
    jwks.push(json!({ "kty": "oct", "kid": "oct", "k": encoded("secret") }));
    fs::write(&file, json!({ "keys": jwks }).to_string()).expect("written");
    let node = node(&format!("auth.jwt.jwks_file={}", file.display())).await;

    let now = claims(|_| ())["iat"].as_u64().unwrap();
    for (key, id) in keys.iter().zip(ids) {
        let good = key.token(id, &claims(|_| ()));
        assert_eq!(removes(&node, &good).await, Verdict::Allowed, "{id}");
        let without_id = json!({ "alg": key.algorithm() });
        let without_id = token(&without_id, &claims(|_| ()), |it| key.sign(it));
        assert_eq!(removes(&node, &without_id).await, Verdict::Allowed, "{id}");
        let other = claims(|it| it["sub"] = "system:serviceaccount:shop:other".into());
        assert_eq!(
            removes(&node, &key.token(id, &other)).await,
            Verdict::Denied,
            "{id}"
        );
        for (name, change) in WRONG {
            let wrong = key.token(id, &claims(|it| change(it, now)));
            assert_eq!(
                removes(&node, &wrong).await,
                Verdict::Unauthenticated,
                "{id} {name}"
            );
        }
        let (head, signed) = good.rsplit_once('.').unwrap();
        let header = encoded(json!({ "alg": key.algorithm(), "kid": id }).to_string());
        let forged = encoded(claims(|it| it["exp"] = (now + 9999).into()).to_string());
        for forged in [
            format!("{header}.{forged}.{signed}"),
            format!("{head}."),
            head.to_owned(),
            format!("{good}.x"),
        ] {
            assert_eq!(
                removes(&node, &forged).await,
                Verdict::Unauthenticated,
                "{forged}"
            );
        }
    }
    node.stopped().await;
}

#[tokio::test]
async fn who_knows_the_public_keys_can_sign_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jwks.json");
    let key = Key::rsa();
    let jwk = key.jwk("rsa");
    let oct = json!({ "kty": "oct", "kid": "oct", "k": encoded("secret") });
    fs::write(&file, json!({ "keys": [jwk, oct] }).to_string()).expect("written");
    let node = node(&format!("auth.jwt.jwks_file={}", file.display())).await;
    let Key::Rsa(pair) = &key else {
        unreachable!("made above")
    };
    let secrets = [
        jwk.to_string().into_bytes(),
        public(pair).n,
        pair.public_key().as_ref().to_vec(),
        b"secret".to_vec(),
        Vec::new(),
    ];
    for secret in &secrets {
        for id in ["rsa", "oct"] {
            let header = json!({ "alg": "HS256", "kid": id });
            let forged = token(&header, &claims(|_| ()), |message| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            });
            assert_eq!(
                removes(&node, &forged).await,
                Verdict::Unauthenticated,
                "{id}"
            );
        }
    }
    for algorithm in ["none", "None", "", "PS256", "RS512"] {
        for signed in [Vec::new(), key.sign(b"anything")] {
            let header = json!({ "alg": algorithm, "kid": "rsa" });
            let forged = token(&header, &claims(|_| ()), |_| signed);
            let verdict = removes(&node, &forged).await;
            assert_eq!(verdict, Verdict::Unauthenticated, "{algorithm}");
        }
    }
    // The key decides what it is for: a token can't have an RSA key taken for another kind.
    let header = json!({ "alg": "ES256", "kid": "rsa" });
    let forged = token(&header, &claims(|_| ()), |it| key.sign(it));
    assert_eq!(removes(&node, &forged).await, Verdict::Unauthenticated);
    node.stopped().await;
}

/// The JWKS of a cluster as its API server shows it: over HTTPS, with a certificate of the
/// cluster's own authority, to who has a token.
struct ApiServer {
    port: u16,
    shown: Arc<Mutex<String>>,
    /// The token that it knows.
    token: Arc<Mutex<String>>,
}

impl ApiServer {
    async fn start(authority: &Authority) -> Self {
        let (shown, token) = (
            Arc::<Mutex<String>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        let (keys, known) = (shown.clone(), token.clone());
        let answer = move |headers: HeaderMap| {
            let bearer = format!("Bearer {}", known.lock());
            let knows = headers
                .get("authorization")
                .is_some_and(|it| *it == *bearer);
            std::future::ready(match knows {
                true => Ok(keys.lock().clone()),
                false => Err(StatusCode::UNAUTHORIZED),
            })
        };
        let router = Router::new().route("/openid/v1/jwks", routing::get(answer));
        let own = authority.issue(&["localhost"]);
        let key = PrivateKeyDer::Pkcs8(own.pair.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.certificate.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let service = TowerToHyperService::new(router.clone());
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { port, shown, token }
    }

    fn settings(&self, folder: &PemFolder) -> [String; 3] {
        [
            format!(
                "auth.jwt.jwks_url=https://localhost:{}/openid/v1/jwks",
                self.port
            ),
            format!("auth.jwt.ca={}", folder.text("ca.pem")),
            format!("auth.jwt.bearer_file={}", folder.text("token")),
        ]
    }
}

#[tokio::test]
async fn a_service_account_is_known_by_the_keys_that_the_cluster_s_api_server_shows() {
    let (cluster, folder) = (Authority::new(), PemFolder::new());
    let api = ApiServer::start(&cluster).await;
    let key = Key::rsa();
    *api.shown.lock() = json!({ "keys": [key.jwk("1")] }).to_string();
    *api.token.lock() = "first".into();
    folder.write("ca.pem", &cluster.pem);
    // With a line break, as files have it.
    folder.write("token", "first\n");
    let [url, ca, bearer] = api.settings(&folder);
    let node = node_with(&[&url, &ca, &bearer]).await;
    let projected = key.token("1", &claims(|_| ()));
    let until = async |token: &str, wanted| {
        within("the keys", async {
            while removes(&node, token).await != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    until(&projected, Verdict::Allowed).await;
    let other = claims(|it| it["sub"] = "system:serviceaccount:shop:other".into());
    assert_eq!(
        removes(&node, &key.token("1", &other)).await,
        Verdict::Denied
    );

    // The kubelet replaces the node's token, and the cluster has a new key.
    let second = Key::ec();
    *api.shown.lock() = json!({ "keys": [key.jwk("1"), second.jwk("2")] }).to_string();
    *api.token.lock() = "second".into();
    folder.write("token", "second");
    until(&second.token("2", &claims(|_| ())), Verdict::Allowed).await;
    until(&projected, Verdict::Allowed).await;
    node.stopped().await;
}

#[tokio::test]
async fn keys_that_another_than_the_cluster_s_authority_vouches_for_count_for_nothing() {
    let (cluster, other, folder) = (Authority::new(), Authority::new(), PemFolder::new());
    let api = ApiServer::start(&other).await;
    let key = Key::rsa();
    *api.shown.lock() = json!({ "keys": [key.jwk("1")] }).to_string();
    *api.token.lock() = "first".into();
    folder.write("ca.pem", &cluster.pem);
    folder.write("token", "first");
    let [url, ca, bearer] = api.settings(&folder);
    let node = node_with(&[&url, &ca, &bearer]).await;
    let stale = async || metric(&node, "gaocache_auth_source_stale", &["jwks"]).await;
    within("the server to be refused", async {
        while stale().await < 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let token = key.token("1", &claims(|_| ()));
    assert_eq!(removes(&node, &token).await, Verdict::Unauthenticated);
    // Once it is the cluster's, all is well without a restart.
    folder.write("ca.pem", &other.pem);
    within("the keys", async {
        while removes(&node, &token).await != Verdict::Allowed {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node.stopped().await;
}

#[tokio::test]
async fn keys_behind_a_url_are_fetched_anew_when_a_token_names_one_that_is_not_known() {
    let (first, second) = (Key::ec(), Key::ec());
    let shown = Arc::new(Mutex::new(String::from("not yet")));
    let read = shown.clone();
    let answer = move || std::future::ready(read.lock().clone());
    let router = Router::new().route("/jwks", routing::get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let node = node(&format!("auth.jwt.jwks_url=http://{address}/jwks")).await;
    let until = async |key: &Key, id: &str| {
        let token = key.token(id, &claims(|_| ()));
        within("the key", async {
            while removes(&node, &token).await != Verdict::Allowed {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    let too_early = first.token("1", &claims(|_| ()));
    assert_eq!(removes(&node, &too_early).await, Verdict::Unauthenticated);
    *shown.lock() = json!({ "keys": [first.jwk("1")] }).to_string();
    until(&first, "1").await;
    *shown.lock() = json!({ "keys": [first.jwk("1"), second.jwk("2")] }).to_string();
    until(&second, "2").await;
    until(&first, "1").await;
    node.stopped().await;
}
