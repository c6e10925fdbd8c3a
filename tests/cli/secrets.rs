//! No secret of the settings is shown, whatever is wrong with them.

use super::{
    settings::{GOOD, refused, shown},
    *,
};

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
        "a URL of etcd with a password",
        "",
        &["registry.etcd.endpoints=http://e1:2379,http://root:geheim@e0:2379"],
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
    let sets = ["trace.endpoint=http://geheim@collector:4317"];
    let shown = shown(&toml, &sets, &[]);
    masked("config", &shown);
    for part in [
        "http://me:***@origin:8000",
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

/// etcd gets no user from a URL, and URLs are in logs, in `/readyz` and in errors.
#[test]
fn a_url_of_etcd_with_a_password_is_refused_and_not_shown() {
    let sets = ["registry.etcd.endpoints=[\"http://root:geheim@e0:2379\"]"];
    let told = refused(GOOD, &sets, &[]);
    assert!(
        told.contains("use registry.etcd.username and registry.etcd.password_file"),
        "{told}"
    );
    assert!(!told.contains("geheim"), "{told}");

    let home = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(home.path().join("gaocache")).expect("made");
    let context = "[contexts.c]\netcd = [\"http://root:geheim@127.0.0.1:1\"]\n";
    let file = home.path().join("gaocache/config.toml");
    std::fs::write(file, context).expect("written");
    let urls = "http://127.0.0.1:1,http://root:geheim@127.0.0.1:1";
    for (flags, variable, source) in [
        (&["--etcd", urls][..], ("LANG", "C"), "--etcd"),
        (&["--etcd", "root:geheim@h:1"], ("LANG", "C"), "--etcd"),
        (&[], ("GAOCACHE_ETCD", urls), "GAOCACHE_ETCD"),
        (&[], ("GAOCACHE_CONTEXT", "c"), "etcd of the context 'c'"),
    ] {
        for command in [&["ring"][..], &["members"], &["get", "users", "alice"]] {
            let output = Command::new(PROGRAM)
                .args(command)
                .args(flags)
                .env("XDG_CONFIG_HOME", home.path())
                .env(variable.0, variable.1)
                .output()
                .expect("runs");
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{told}");
            let wanted = format!("gaocache: {source}: a URL of etcd must not contain a user");
            assert!(told.starts_with(&wanted), "{told}");
            assert!(told.contains("--etcd-user"), "{told}");
            assert!(!told.contains("geheim"), "{told}");
        }
    }
}
