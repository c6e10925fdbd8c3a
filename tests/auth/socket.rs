//! The admin socket of a node that runs.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt};

use crate::{
    calls::{Call, Listener, Verdict, make, over},
    common::{CountingOrigin, builder, joining, metric, settings, within},
};
use gaocache::Registry;

#[tokio::test]
async fn only_its_owner_can_open_the_socket_which_goes_with_the_node() {
    let origin = CountingOrigin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let socket = format!("admin.socket={}", path.display());
    let further = ["auth.anonymous=", socket.as_str()];
    let node = joining(&Registry::memory(), "n0", &origin.url(), &further).await;
    let mode = path.metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let listener = Listener::Socket(path.clone());
    for call in [
        Call::Get,
        Call::Remove,
        Call::Purge,
        Call::Path("PUT", "/log?level=info"),
    ] {
        assert_eq!(
            make(&listener, call, "users", None).await,
            Verdict::Allowed,
            "{call:?}"
        );
    }
    let ring = over(&path).get("http://localhost/ring").send().await;
    let ring = ring.expect("answers").text().await.expect("text");
    assert!(ring.contains("\"n0\""), "{ring}");

    let second = builder(&settings("n1", &origin.url(), &further))
        .bind()
        .await;
    let error = second.expect_err("another node has it");
    assert!(error.message().contains("admin.socket"), "{error}");

    node.stopped().await;
    assert!(!path.exists());
    let next = joining(&Registry::memory(), "n0", &origin.url(), &further).await;
    assert_eq!(
        make(&listener, Call::Get, "users", None).await,
        Verdict::Allowed
    );
    next.stopped().await;
}

#[tokio::test]
async fn one_address_can_t_take_the_connections_of_others_at_the_admin_listener() {
    let origin = CountingOrigin::start().await;
    let further = [
        "limits.max_admin_connections=20",
        "limits.max_admin_connections_per_address=5",
    ];
    let node = joining(&Registry::memory(), "n0", &origin.url(), &further).await;
    let admin = node.addresses.admin;
    let mut held = Vec::new();
    for _ in 0..40 {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        let other: SocketAddr = "127.0.0.2:0".parse().expect("an address");
        socket.bind(other).expect("an address of this machine");
        held.push(socket.connect(admin).await.expect("connects"));
    }
    let refused = async || {
        let labels = ["listener=\"admin\"", "reason=\"address\""];
        metric(&node, "gaocache_connection_refusals_total", &labels).await
    };
    within("the others to be refused", async {
        while refused().await < 35.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(refused().await, 35.0);
    drop(held);
    node.stopped().await;
}
