//! All calls of all listeners, as somebody makes them over real sockets, and what became of each.

use std::path::{Path, PathBuf};

use gaocache::internal::wire::{
    GetManyRequest, GetRequest, PurgeRequest, PurgeTagRequest, RemoveRequest,
    cache_client::CacheClient,
};
use reqwest::Method;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::common::{http, within};

/// Whether a call was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Unauthenticated,
    Denied,
}

/// A listener, and how it is reached.
#[derive(Clone, Debug)]
pub enum Listener {
    Grpc(u16),
    Http(u16),
    Admin(u16),
    Redis(u16),
    Socket(PathBuf),
}

/// A call of a listener.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Get,
    GetMany,
    Remove,
    Purge,
    PurgeTag,
    /// Over HTTP; `{group}` in the path is the group.
    Path(&'static str, &'static str),
    /// Of Redis; `{group}` in it is the group.
    Words(&'static str),
}

/// Every call that a listener has, with the role that it needs; none: everybody may.
pub fn calls(listener: &Listener) -> Vec<(Call, Option<&'static str>)> {
    let grpc = [
        (Call::Get, Some("read")),
        (Call::GetMany, Some("read")),
        (Call::Remove, Some("remove")),
        (Call::Purge, Some("purge")),
        (Call::PurgeTag, Some("purge")),
    ];
    let admin = [
        (Call::Path("GET", "/livez"), None),
        (Call::Path("GET", "/readyz"), None),
        (Call::Path("GET", "/metrics"), None),
        (Call::Path("GET", "/"), None),
        (Call::Path("GET", "/ring"), None),
        (Call::Path("GET", "/log"), None),
        (Call::Path("GET", "/config"), None),
        (
            Call::Path("GET", "/explain?group={group}&key=k"),
            Some("read"),
        ),
        (Call::Path("PUT", "/log?level=warn"), Some("admin")),
        (Call::Path("POST", "/reload"), Some("admin")),
        (Call::Path("POST", "/forget?id=nobody"), Some("admin")),
    ];
    match listener {
        Listener::Redis(_) => redis_calls(),
        Listener::Grpc(_) => grpc.to_vec(),
        Listener::Http(_) => vec![
            (Call::Path("GET", "/v1/{group}/k"), Some("read")),
            (Call::Path("HEAD", "/v1/{group}/k"), Some("read")),
            (Call::Path("DELETE", "/v1/{group}/k"), Some("remove")),
            (Call::Path("DELETE", "/v1/{group}?tag=t"), Some("purge")),
        ],
        Listener::Admin(_) => admin.to_vec(),
        Listener::Socket(_) => [&grpc[..], &admin[..]].concat(),
    }
}

fn redis_calls() -> Vec<(Call, Option<&'static str>)> {
    let read = [
        "GET {group}:k",
        "MGET {group}:k {group}:l",
        "EXISTS {group}:k",
        "STRLEN {group}:k",
        "TTL {group}:k",
        "PTTL {group}:k",
    ];
    let remove = ["DEL {group}:k", "UNLINK {group}:k"];
    let open = [
        "PING",
        "ECHO x",
        "SELECT 0",
        "CLIENT ID",
        "COMMAND COUNT",
        "INFO",
        "HELLO 3",
        "RESET",
        "QUIT",
    ];
    let read = read.map(|it| (Call::Words(it), Some("read")));
    let remove = remove.map(|it| (Call::Words(it), Some("remove")));
    let open = open.map(|it| (Call::Words(it), None));
    [&read[..], &remove, &open].concat()
}

/// Makes a call.
pub async fn make(listener: &Listener, call: Call, group: &str, token: Option<&str>) -> Verdict {
    match call {
        Call::Path(method, path) => {
            let path = path.replace("{group}", group);
            over_http(listener, method, &path, token).await
        }
        Call::Words(words) => {
            let Listener::Redis(port) = listener else {
                unreachable!("words are for Redis")
            };
            over_redis(*port, &words.replace("{group}", group), token).await
        }
        _ => over_grpc(listener, call, group, token).await,
    }
}

async fn over_http(listener: &Listener, method: &str, path: &str, token: Option<&str>) -> Verdict {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let request = match listener {
        Listener::Http(port) | Listener::Admin(port) => {
            http().request(method, format!("http://127.0.0.1:{port}{path}"))
        }
        Listener::Socket(socket) => over(socket).request(method, format!("http://localhost{path}")),
        Listener::Grpc(_) | Listener::Redis(_) => unreachable!("it has no paths"),
    };
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.send().await.expect("answers");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let kind = headers.get("gaocache-error").map(|it| it.to_str().unwrap());
    let asks = headers
        .get("www-authenticate")
        .is_some_and(|it| it == "Bearer");
    match (status, kind) {
        (401, Some("unauthenticated")) if asks => Verdict::Unauthenticated,
        (403, Some("permission_denied")) => Verdict::Denied,
        (401 | 403, kind) => panic!("{status} {kind:?} {headers:?}"),
        _ => Verdict::Allowed,
    }
}

/// A client for HTTP over a socket.
pub fn over(socket: &Path) -> reqwest::Client {
    let builder = reqwest::Client::builder().unix_socket(socket);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    builder.tls_backend_preconfigured(tls).build().unwrap()
}

/// A channel to a listener.
pub async fn channel(listener: &Listener) -> Channel {
    let address = match listener {
        Listener::Grpc(port) => format!("http://127.0.0.1:{port}"),
        Listener::Socket(socket) => format!("unix://{}", socket.display()),
        other => unreachable!("{other:?} speaks no gRPC"),
    };
    let endpoint = Endpoint::from_shared(address).expect("an address");
    endpoint.connect().await.expect("connects")
}

async fn over_grpc(listener: &Listener, call: Call, group: &str, token: Option<&str>) -> Verdict {
    let mut client = CacheClient::new(channel(listener).await);
    let (group, key) = (group.to_owned(), "k".to_owned());
    let outcome = match call {
        Call::Get => client
            .get(with(token, GetRequest { group, key }))
            .await
            .err(),
        Call::GetMany => {
            let keys = vec![key];
            let answers = client
                .get_many(with(token, GetManyRequest { group, keys }))
                .await;
            match answers {
                Ok(answers) => answers.into_inner().message().await.err(),
                Err(status) => Some(status),
            }
        }
        Call::Remove => client
            .remove(with(token, RemoveRequest { group, key }))
            .await
            .err(),
        Call::Purge => client
            .purge(with(token, PurgeRequest { group }))
            .await
            .err(),
        Call::PurgeTag => {
            let tag = "t".to_owned();
            let request = with(token, PurgeTagRequest { group, tag });
            client.purge_tag(request).await.err()
        }
        Call::Path(..) | Call::Words(_) => unreachable!("not over gRPC"),
    };
    verdict(outcome.as_ref())
}

/// Each call has a connection of its own. The token is a password; who is refused one may still do
/// what everybody may.
async fn over_redis(port: u16, words: &str, token: Option<&str>) -> Verdict {
    let stream = TcpStream::connect(("127.0.0.1", port)).await;
    let mut stream = BufReader::new(stream.expect("connects"));
    let mut answer = async |words: &str| {
        let words = format!("{words}\r\n");
        stream
            .write_all(words.as_bytes())
            .await
            .expect("it is open");
        let mut line = String::new();
        within("an answer", stream.read_line(&mut line))
            .await
            .expect("an answer");
        line
    };
    if let Some(token) = token {
        let answer = answer(&format!("AUTH {token}")).await;
        assert!(
            answer == "+OK\r\n" || answer.starts_with("-WRONGPASS "),
            "{answer}"
        );
    }
    match answer(words).await {
        line if line.starts_with("-NOAUTH ") => Verdict::Unauthenticated,
        line if line.starts_with("-NOPERM ") => Verdict::Denied,
        line if line.starts_with('-') => panic!("{words}: {line}"),
        _ => Verdict::Allowed,
    }
}

/// A request that carries a token.
pub fn with<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// What a status says.
pub fn verdict(status: Option<&Status>) -> Verdict {
    match status.map(Status::code) {
        Some(Code::Unauthenticated) => Verdict::Unauthenticated,
        Some(Code::PermissionDenied) => Verdict::Denied,
        _ => Verdict::Allowed,
    }
}
