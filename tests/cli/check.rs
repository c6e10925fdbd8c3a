//! `gaocache check`: what it finds between nodes that each seem to be fine.

use gaocache_testing::{Authority, PemFolder};

use super::{etcd::told, *};
use common::{
    CountingOrigin,
    etcd::Etcd,
    process::{NodeProcess, agree},
};

fn check(etcd: &Etcd, further: &[&str]) -> (Option<i32>, String, String) {
    let all = [&["check", "--etcd", &etcd.url], further].concat();
    tokio::task::block_in_place(|| told(&all))
}

/// They hear of each other through etcd, so both are ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_sees_that_nodes_refuse_each_other_s_certificates() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let folders = [PemFolder::new(), PemFolder::new()];
    let node = |number: usize| {
        let (folder, authority, id) = (&folders[number], Authority::new(), format!("n{number}"));
        folder.write("ca.pem", &authority.pem);
        folder.write_identity("node", &authority.issue(&[&format!("{id}.nodes")]));
        let files = [("ca", "ca.pem"), ("cert", "node.pem"), ("key", "node.key")];
        let files = files.map(|(name, file)| format!("peer.tls.{name}={}", folder.text(file)));
        let mut further: Vec<&str> = files.iter().map(String::as_str).collect();
        further.push("peer.allowed_peers=[\"{id}.nodes\"]");
        NodeProcess::start(&id, &[&etcd.url], &origin.url(), &further)
    };
    let nodes = [node(0), node(1)];
    for node in &nodes {
        node.until_ring(&["n0", "n1"]).await;
    }
    common::within("check sees it", async {
        loop {
            let (code, shown, errors) = check(&etcd, &[]);
            if errors.contains("can't connect to n") {
                assert_eq!(code, Some(1), "{shown}");
                assert!(errors.contains("the other's certificate"), "{errors}");
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
    // So does the ring as one of them sees it.
    let rings = nodes.iter().map(|node| {
        let admin = format!("127.0.0.1:{}", node.admin);
        tokio::task::block_in_place(|| told(&["ring", "--admin", &admin])).1
    });
    let rings: Vec<String> = rings.collect();
    let is_told = rings.iter().any(|it| it.contains(" can't connect to: n"));
    assert!(is_told, "{rings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_and_explain_send_a_token_to_the_nodes_that_they_find_in_etcd() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    // The hash of `sesame`.
    let hash = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
    fs::write(&tokens, format!("ci {hash} read\n")).expect("written");
    let file = format!("auth.token_file={}", tokens.display());
    let further = ["auth.anonymous=", &file];
    let node = |id: &str| NodeProcess::start(id, &[&etcd.url], &origin.url(), &further);
    let nodes = [node("n0"), node("n1")];
    agree(&nodes).await;

    for call in [
        &["get", "users", "alice"][..],
        &["remove", "users", "alice"],
    ] {
        let all = [call, &["--etcd", &etcd.url]].concat();
        let (code, _, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(1), "{errors}");
        let hint = "pass --token-file or GAOCACHE_TOKEN";
        assert!(errors.contains(hint), "{call:?}: {errors}");
    }
    let get = ["--group", "users", "--key", "alice"];
    let (code, _, errors) = check(&etcd, &get);
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("pass --token-file or GAOCACHE_TOKEN"),
        "{errors}"
    );
    let (code, shown, errors) = check(&etcd, &[&get[..], &["--token", "sesame"]].concat());
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(shown.matches("get: 14 bytes").count(), 2, "{shown}");

    // The owner is asked first.
    let explain = ["explain", "users", "alice", "--json", "--etcd", &etcd.url];
    let run = |further: &[&str]| {
        let all = [&explain[..], further].concat();
        tokio::task::block_in_place(|| told(&all))
    };
    let (code, _, errors) = run(&[]);
    let refused: serde_json::Value = serde_json::from_str(&errors).expect("JSON");
    assert_eq!(
        (code, &refused["error"]),
        (Some(1), &"unauthenticated".into())
    );
    let (code, shown, errors) = run(&["--token", "sesame"]);
    assert_eq!(code, Some(0), "{errors}");
    let explained: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let asked = &explained["asked"];
    assert_eq!(asked["node"], asked["owner"]["id"]);
    assert_eq!(asked["held"][0]["bytes"], 14);
    let admin = format!("127.0.0.1:{}", nodes[0].admin);
    let (code, _, errors) = run(&["--admin", &admin]);
    assert_eq!(code, Some(2), "{errors}");
}
