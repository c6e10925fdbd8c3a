//! What a client of the listener for Redis may do. Its password is a bearer token, which counts for
//! its connection until another takes its place.

use std::fs;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::{
    common::{CountingOrigin, TestNode, joining, metric, within},
    line,
};
use gaocache::Registry;

/// A connection on which a person types.
pub struct Typed<S>(BufReader<S>);

impl<S: tokio::io::AsyncRead + AsyncWrite + Unpin> Typed<S> {
    pub fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// The first line of the answer; what else belongs to it is read, too.
    pub async fn answer(&mut self, words: &str) -> String {
        let words = format!("{words}\r\n");
        let sent = self.0.write_all(words.as_bytes()).await;
        sent.expect("it is open");
        let first = self.line().await;
        if let Some(length) = first.strip_prefix('$') {
            let mut value = vec![0; length.parse::<usize>().expect("a length") + 2];
            self.0.read_exact(&mut value).await.expect("a value");
        }
        first
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = within("an answer", self.0.read_line(&mut line)).await;
        read.expect("an answer");
        line.trim_end().to_owned()
    }
}

async fn typed(node: &TestNode) -> Typed<TcpStream> {
    let address = node.addresses.redis.expect("it listens");
    Typed::new(TcpStream::connect(address).await.expect("connects"))
}

async fn node(origin: &CountingOrigin, folder: &std::path::Path) -> TestNode {
    let tokens = folder.join("tokens");
    let granted = line("web", "t-read", "read users")
        + &line("ci", "t-remove", "remove users")
        + &line("all", "t-all", "read,remove");
    fs::write(&tokens, granted).expect("written");
    let group = |name: &str| {
        let url = origin.url();
        format!("{{ name = \"{name}\", origin = {{ kind = \"http\", url = \"{url}\" }} }}")
    };
    let further = [
        "redis.listen=127.0.0.1:0".into(),
        "auth.anonymous=".into(),
        format!("auth.token_file={}", tokens.display()),
        format!("groups=[{}, {}]", group("users"), group("orders")),
    ];
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    joining(&Registry::memory(), "n0", &origin.url(), &further).await
}

/// Makes commands one after the other, and holds each answer against how it is to begin.
async fn talk(client: &mut Typed<TcpStream>, commands: &[(&str, &str)]) {
    for (words, begin) in commands {
        let answer = client.answer(words).await;
        assert!(answer.starts_with(begin), "{words}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_may_do_what_its_last_password_allows_and_in_its_groups_alone() {
    let origin = CountingOrigin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&origin, folder.path()).await;
    let mut client = typed(&node).await;
    let refused = client.answer("GET users:k").await;
    assert_eq!(
        refused,
        "-NOAUTH unauthenticated: this needs the role 'read' for group 'users', and the call \
         carried no bearer token; log in with AUTH"
    );
    talk(
        &mut client,
        &[
            ("DEL users:k", "-NOAUTH "),
            ("AUTH t-read", "+OK"),
            ("GET users:k", "$"),
            ("GET orders:k", "-NOPERM permission_denied: 'web' lacks"),
            // Nothing of what is asked for is answered, or removed, in part.
            ("MGET users:k orders:k", "-NOPERM "),
            ("EXISTS orders:k users:k", "-NOPERM "),
            ("DEL users:k", "-NOPERM "),
        ],
    )
    .await;
    let mut other = typed(&node).await;
    talk(&mut other, &[("GET users:k", "-NOAUTH ")]).await;
    // Another password takes the place of the first, unless nobody knows it.
    talk(
        &mut client,
        &[
            (
                "AUTH default made-up",
                "-WRONGPASS the bearer token is not known",
            ),
            (
                "HELLO 2 AUTH default made-up",
                "-WRONGPASS the bearer token is not known",
            ),
            ("GET users:k", "$"),
            ("AUTH default t-remove", "+OK"),
            ("GET users:k", "-NOPERM permission_denied: 'ci' lacks"),
            ("DEL users:k", ":1"),
            ("UNLINK orders:k", "-NOPERM "),
            ("DEL users:k orders:k", "-NOPERM "),
            ("AUTH somebody t-all", "-WRONGPASS "),
            ("GET users:k", "-NOPERM permission_denied: 'ci' lacks"),
        ],
    )
    .await;
    node.stopped().await;
}

/// A node may forget a token while its client is connected.
#[tokio::test]
async fn a_token_that_is_taken_back_counts_no_longer_and_a_refused_one_is_counted() {
    let origin = CountingOrigin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&origin, folder.path()).await;
    let (mut client, mut other) = (typed(&node).await, typed(&node).await);
    talk(&mut client, &[("AUTH t-read", "+OK"), ("GET users:k", "$")]).await;
    let changed = line("web", "t-other", "read users");
    fs::write(folder.path().join("tokens"), changed).expect("written");
    // The file is read once a second.
    let forgotten = async {
        while other.answer("AUTH t-read").await == "+OK" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    within("the token is forgotten", forgotten).await;
    let told = "-NOAUTH unauthenticated: this needs the role 'read' for group 'users', and the \
                bearer token is not known";
    talk(&mut client, &[("GET users:k", told)]).await;
    let name = "gaocache_auth_refusals_total";
    let labels = ["role=\"login\"", "reason=\"unauthenticated\""];
    assert_eq!(metric(&node, name, &labels).await, 1.0);
    node.stopped().await;
}

#[tokio::test]
async fn a_password_that_comes_with_hello_counts_until_the_connection_is_reset() {
    let origin = CountingOrigin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let node = node(&origin, folder.path()).await;
    let mut client = typed(&node).await;
    talk(
        &mut client,
        &[
            ("HELLO 2 AUTH somebody t-all", "-WRONGPASS "),
            ("GET users:k", "-NOAUTH "),
        ],
    )
    .await;
    assert_eq!(
        client.answer("HELLO 2 AUTH default t-all SETNAME me").await,
        "*14"
    );
    // Its fields: a name and a value each.
    while client.line().await != "*0" {}
    talk(
        &mut client,
        &[
            ("GET orders:k", "$"),
            ("DEL users:k orders:k", ":2"),
            ("RESET", "+RESET"),
            ("GET orders:k", "-NOAUTH "),
            ("DEL orders:k", "-NOAUTH "),
        ],
    )
    .await;
    assert_eq!(origin.loads(), 1, "what was refused asked no origin");
    node.stopped().await;
}
