//! No secret of the settings is shown, whatever is wrong with them.

use super::settings::{GOOD, refused, shown};

/// What is wrong, the settings as TOML, flags and variables.
type Wrong = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

/// Each holds a secret.
const WRONG_WITH_SECRETS: &[Wrong] = &[
    ("no TOML", "[registry.etcd]\npassword = geheim", &[], &[]),
    ("an open string", "password = \"geheim", &[], &[]),
    ("an unknown setting", "password = \"geheim\"", &[], &[]),
    (
        "an unknown flag",
        "",
        &["registry.etcd.password=geheim"],
        &[],
    ),
    (
        "an unknown variable",
        "",
        &[],
        &[("GAOCACHE__REGISTRY__ETCD__PASSWORD", "geheim")],
    ),
    (
        "no URL",
        "",
        &["registry.etcd.endpoints=root:geheim@e0:2379"],
        &[],
    ),
    (
        "a URL without a key",
        "",
        &["groups=[{ name = \"g\", origin = { kind = \"http\", url = \"http://me:geheim@o/\" } }]"],
        &[],
    ),
    (
        "a broken list",
        "",
        &["groups=[{ headers = { A = \"geheim\" }"],
        &[],
    ),
    (
        "a broken header",
        "",
        &[
            "groups=[{ name = \"g\", origin = { kind = \"http\", headers = { A = \"geheim\\n\" }, url = \"http://o/{key}\" } }]",
        ],
        &[],
    ),
];

/// No secret of the settings is shown, whatever is wrong with them.
#[test]
fn secrets_are_never_printed() {
    const SECRET: &str = "geheim";
    let masked = |what: &str, shown: &str| {
        assert!(!shown.contains(SECRET), "{what}: {shown}");
    };
    let toml = GOOD
        .replace("http://origin", "http://me:geheim@origin")
        .replace(
            "url =",
            "headers = { Authorization = \"Bearer geheim\" }\nurl =",
        );
    let sets = [
        "registry.etcd.endpoints=http://root:geheim@e0:2379,http://e1:2379",
        "trace.endpoint=http://geheim@collector:4317",
    ];
    let shown = shown(&toml, &sets, &[]);
    masked("config", &shown);
    for part in [
        "http://me:***@origin:8000",
        "http://root:***@e0:2379",
        "http://***@collector:4317",
        "Authorization = \"***\"",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let told = refused(&shown, &[], &[]);
    assert!(told.contains("masked by `gaocache config`"), "{told}");
    for (what, toml, sets, variables) in WRONG_WITH_SECRETS {
        let told = refused(toml, sets, variables);
        masked(what, &told);
    }
}
