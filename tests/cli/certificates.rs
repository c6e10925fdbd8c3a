//! What `gaocache config` finds wrong with certificates, before a node runs.

use gaocache_testing::{Authority, PemFolder};

use super::settings::{GOOD, refused, shown};

#[test]
fn config_compares_a_certificate_with_its_key_its_authority_and_its_names() {
    let (files, authority) = (PemFolder::new(), Authority::new());
    files.write("ca.pem", &authority.pem);
    files.write("another.pem", &Authority::new().pem);
    files.write_identity("good", &authority.issue(&["n0.nodes"]));
    files.write_identity("other", &authority.issue(&["n1.nodes"]));
    files.write_identity("past", &authority.issue_until(&["n0.nodes"], 2020));
    let of = |ca: &str, cert: &str, key: &str| {
        let file = |setting: &str, name: &str| format!("peer.tls.{setting}={}", files.text(name));
        let allowed = "peer.allowed_peers=[\"{id}.nodes\"]".to_owned();
        let id = "node.id=n0".to_owned();
        [
            file("ca", ca),
            file("cert", cert),
            file("key", key),
            allowed,
            id,
        ]
    };
    let good = of("ca.pem", "good.pem", "good.key");
    shown(GOOD, &good.each_ref().map(String::as_str), &[]);
    for (ca, cert, key, reason) in [
        (
            "ca.pem",
            "good.pem",
            "other.key",
            "the key does not belong to the certificate",
        ),
        (
            "another.pem",
            "good.pem",
            "good.key",
            "other nodes would refuse the certificate",
        ),
        (
            "ca.pem",
            "other.pem",
            "other.key",
            "does not allow it for the node 'n0'",
        ),
        (
            "ca.pem",
            "past.pem",
            "past.key",
            "the certificate expired on",
        ),
        (
            "good.key",
            "good.pem",
            "good.key",
            "no certificate in PEM format",
        ),
        ("ca.pem", "good.pem", "absent.key", "the file can't be read"),
    ] {
        let given = of(ca, cert, key);
        let told = refused(GOOD, &given.each_ref().map(String::as_str), &[]);
        assert!(told.contains(reason), "{ca} {cert} {key}: {told}");
    }
}
