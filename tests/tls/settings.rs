//! What is wrong with files is told at the start, all of it at once.

use gaocache::internal::loopback;

use super::*;

/// What is told of these settings.
pub(super) fn told(given: &[String]) -> String {
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    match loopback("n0", &given) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn all_that_is_wrong_with_the_files_of_listeners_is_told_together() {
    let files = Files::new();
    let folder = &files.folder;
    folder.write("empty.pem", "");
    folder.write_identity("other", &files.authority.issue(&HERE));
    folder.write_identity("expired", &files.authority.issue_until(&HERE, 2020));
    let set = |name: &str, file: &str| format!("{name}={}", folder.text(file));
    let told = told(&[
        set("grpc.tls.cert", "node.pem"),
        set("grpc.tls.key", "other.key"),
        set("grpc.tls.client_ca", "empty.pem"),
        "grpc.tls.client_auth=required".into(),
        set("http.tls.cert", "expired.pem"),
        set("http.tls.key", "absent.key"),
        "http.tls.client_auth=optional".into(),
        set("admin.tls.cert", "node.pem"),
        set("admin.tls.client_ca", "ca.pem"),
    ]);
    for wanted in [
        ("grpc.tls.key", "the key does not belong to the certificate"),
        (
            "grpc.tls.client_ca",
            "the file contains no certificate in PEM format",
        ),
        ("http.tls.cert", "the certificate expired on"),
        ("http.tls.key", "the file can't be read"),
        ("http.tls.client_auth", "need client_ca"),
        ("admin.tls.cert", "cert and key must be set together"),
        ("admin.tls.client_auth", "client_ca has no use"),
    ] {
        // The setting, and below it what is wrong with it.
        let lines: Vec<&str> = told.lines().collect();
        let is_told = |pair: &[&str]| pair[0].contains(wanted.0) && pair[1].contains(wanted.1);
        assert!(lines.windows(2).any(is_told), "{wanted:?} in {told}");
    }
    assert!(told.starts_with("7 wrong settings"), "{told}");
}

#[test]
fn a_certificate_that_clients_would_refuse_is_refused_at_the_start() {
    let files = Files::new();
    let folder = &files.folder;
    folder.write_identity("early", &files.authority.issue_from(&HERE, 3000));
    folder.write_identity("client", &files.authority.issue_for_client(&HERE));
    let identity = |section: &str, name: &str| {
        let set = |setting: &str, kind: &str| {
            format!(
                "{section}.{setting}={}",
                folder.text(&format!("{name}.{kind}"))
            )
        };
        [set("cert", "pem"), set("key", "key")]
    };
    for section in ["grpc.tls", "http.tls", "admin.tls", "redis.tls"] {
        let early = told(&identity(section, "early"));
        assert!(
            early.contains("the certificate is not valid before Jan  1"),
            "{section}: {early}"
        );
        let client = told(&identity(section, "client"));
        assert!(
            client.contains("the certificate is not for servers"),
            "{client}"
        );
    }
    // etcd is shown it by a client.
    let etcd = identity("registry.etcd.tls", "client");
    assert_eq!(told(&etcd), "");
    folder.write(
        "client.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n",
    );
    let encrypted = told(&etcd);
    assert!(
        encrypted.contains("the private key is encrypted"),
        "{encrypted}"
    );
}

#[test]
fn a_node_whose_certificate_the_others_would_refuse_does_not_start() {
    let files = Files::new();
    let folder = &files.folder;
    let set = |name: &str, file: &str| format!("peer.tls.{name}={}", folder.text(file));
    let of = |names: &[&str], allowed: &str| {
        folder.write_identity("peer", &files.authority.issue(names));
        told(&[
            set("ca", "ca.pem"),
            set("cert", "peer.pem"),
            set("key", "peer.key"),
            format!("peer.allowed_peers=[\"{allowed}\"]"),
        ])
    };
    assert_eq!(of(&["n0.nodes"], "{id}.nodes"), "");
    assert_eq!(of(&["spiffe://c/cache"], "spiffe://c/cache"), "");
    let other = of(&["n1.nodes"], "{id}.nodes");
    assert!(
        other.contains("does not allow it for the node 'n0'"),
        "{other}"
    );
    let unnamed = of(&["n0.others"], "{id}.nodes");
    assert!(
        unnamed.contains("none of its names is in peer.allowed_peers"),
        "{unnamed}"
    );
    assert!(
        unnamed.contains("the certificate is for: n0.others"),
        "{unnamed}"
    );
    folder.write("ca.pem", &Authority::new().pem);
    let unsigned = of(&["n0.nodes"], "{id}.nodes");
    assert!(
        unsigned.contains("other nodes would refuse the certificate"),
        "{unsigned}"
    );
    folder.write("ca.pem", &files.authority.pem);
    folder.write_identity("peer", &files.authority.issue(&["n0.nodes"]));
    folder.write("peer.key", &folder_key(&files));
    let set = told(&[
        set("ca", "ca.pem"),
        set("cert", "peer.pem"),
        set("key", "peer.key"),
        "peer.allowed_peers=[\"{id}.nodes\"]".into(),
    ]);
    assert!(
        set.contains("the key does not belong to the certificate"),
        "{set}"
    );
}

fn folder_key(files: &Files) -> String {
    files.authority.issue(&["n0.nodes"]).pair.serialize_pem()
}
