//! What a connection is told about itself and the node.

use redis::{Value, cmd};

use super::*;

#[tokio::test]
async fn a_connection_has_a_version_a_name_and_an_id_until_it_is_reset() {
    let origin = CountingOrigin::start().await;
    // The hash of `any`.
    let hash = "d6a7cd2a7371b1a15d543196979ff74fdb027023ebf187d5d329be11055c77fd";
    let tokens = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&tokens, format!("me {hash} read\n")).expect("written");
    let tokens = format!("auth.token_file={}", tokens.path().display());
    let nodes = nodes(1, &origin, &[&tokens]).await;
    let mut raw = Raw::connect(&nodes[0]).await;
    raw.send("PING\r\n").await;
    raw.answers("+PONG\r\n").await;
    raw.send(command(&["CLIENT", "ID"])).await;
    raw.answers(":1\r\n").await;
    let version = env!("CARGO_PKG_VERSION");
    let hello = ["HELLO", "3", "AUTH", "default", "any", "SETNAME", "me"];
    raw.send(command(&hello)).await;
    raw.answers("%7\r\n$6\r\nserver\r\n$8\r\ngaocache\r\n$7\r\nversion\r\n")
        .await;
    raw.answers(value(version)).await;
    raw.answers("$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n")
        .await;
    raw.answers("$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n")
        .await;
    raw.answers("$7\r\nmodules\r\n*0\r\n").await;
    raw.send(
        [
            command(&["client", "getname"]),
            command(&["GET", "users:missing"]),
        ]
        .concat(),
    )
    .await;
    raw.answers("$2\r\nme\r\n_\r\n").await;
    raw.send(command(&["RESET"])).await;
    raw.answers("+RESET\r\n").await;
    raw.send(
        [
            command(&["client", "getname"]),
            command(&["GET", "users:missing"]),
        ]
        .concat(),
    )
    .await;
    raw.answers("$-1\r\n$-1\r\n").await;
    raw.send("CLIENT INFO\r\n").await;
    raw.answers("$").await;
    raw.send("QUIT\r\nPING\r\n").await;
    let rest = raw.rest().await;
    assert!(rest.contains("id=1 addr=127.0.0.1:"), "{rest}");
    assert!(
        rest.ends_with("+OK\\r\\n"),
        "nothing after the goodbye: {rest}"
    );
}

#[tokio::test]
async fn what_a_connection_may_ask_for_is_answered_as_redis_does() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    for (words, answer) in [
        (&["PING", "x"][..], "$1\r\nx\r\n"),
        (&["ECHO", "x"], "$1\r\nx\r\n"),
        (&["SELECT", "0"], "+OK\r\n"),
        (&["CLIENT", "SETINFO", "LIB-NAME", "mine"], "+OK\r\n"),
        (&["CLIENT", "SETINFO", "LIB-VER", "1"], "+OK\r\n"),
        (
            &["CLIENT", "SETNAME", "a b"],
            "-ERR Client names cannot contain",
        ),
        (&["HELLO", "4"], "-NOPROTO unsupported"),
        (
            &["HELLO", "3", "X"],
            "-ERR Syntax error in HELLO option 'x'",
        ),
        (
            &["AUTH", "secret"],
            "-WRONGPASS this node accepts no tokens\r\n",
        ),
        (
            &["AUTH", "default", "secret"],
            "-WRONGPASS this node accepts",
        ),
        (&["AUTH", "other", "secret"], "-WRONGPASS invalid"),
        (
            &["HELLO", "3", "AUTH", "other", "secret"],
            "-WRONGPASS invalid",
        ),
        (
            &["HELLO", "3", "AUTH", "default", "secret"],
            "-WRONGPASS this node accepts",
        ),
    ] {
        let mut raw = Raw::connect(&nodes[0]).await;
        raw.send(command(words)).await;
        raw.answers(answer).await;
    }
}

#[tokio::test]
async fn the_node_tells_which_commands_it_has_and_how_it_is() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    for version in [2, 3] {
        let mut client = redis_client(&nodes[0], version).await;
        let all: Vec<Value> = cmd("COMMAND").query_async(&mut client).await.unwrap();
        let count: usize = cmd("COMMAND")
            .arg("COUNT")
            .query_async(&mut client)
            .await
            .unwrap();
        assert_eq!(all.len(), count);
        let mut some = cmd("COMMAND");
        some.arg(&["INFO", "get", "nothing"]);
        let some: Vec<Value> = some.query_async(&mut client).await.unwrap();
        let [Value::Array(get), Value::Nil] = &some[..] else {
            panic!("{some:?}");
        };
        assert_eq!(get[..2], [Value::BulkString(b"get".into()), Value::Int(2)]);
        let mut docs = cmd("COMMAND");
        docs.arg(&["DOCS", "del"]);
        let docs: Value = docs.query_async(&mut client).await.unwrap();
        assert!(format!("{docs:?}").contains("summary"), "{docs:?}");
        let info: redis::InfoDict = cmd("INFO").query_async(&mut client).await.unwrap();
        assert_eq!(info.get::<String>("role"), Some("master".into()));
        let clients: Option<u64> = info.get("connected_clients");
        assert!(clients.is_some_and(|it| it >= 1), "{clients:?}");
        let server: redis::InfoDict = cmd("INFO")
            .arg("server")
            .query_async(&mut client)
            .await
            .unwrap();
        assert_eq!(server.get::<String>("role"), None);
    }
}
