//! Which node a command asks if no flag says.

use super::*;

fn told(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .env("XDG_CONFIG_HOME", folder)
        .envs(variables.iter().copied())
        .output()
        .expect("runs");
    let both = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), both)
}

#[test]
fn a_command_asks_the_flag_s_then_the_environment_s_then_the_context_s_node() {
    let files = folder();
    let dev = Dev::start(files.path());
    let home = tempfile::tempdir().expect("a folder");
    let config = home.path().join("gaocache");
    fs::create_dir(&config).expect("made");
    let address = |admin: &str| admin.trim_start_matches("http://").to_owned();
    let (grpc, admin) = (&dev.grpc[0], address(&dev.admin[0]));
    let write = |toml: &str| fs::write(config.join("config.toml"), toml).expect("written");
    write(&format!(
        "current = \"dev\"\n[contexts.dev]\ntarget = \"{grpc}\"\nadmin = \"{admin}\"\n\
         [contexts.away]\ntarget = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:1\"\n\
         [contexts.etcd]\netcd = [\"http://127.0.0.1:1\"]\n"
    ));
    let get = ["get", "files", "a.txt"];
    let on =
        |variables: &[(&str, &str)], arguments: &[&str]| told(home.path(), variables, arguments);
    assert_eq!(on(&[], &get), (Some(0), "first".into()));
    assert!(on(&[], &["ring"]).1.contains("3 members"));
    assert!(
        on(&[], &["explain", "files", "a.txt"])
            .1
            .contains("owner      dev-")
    );

    let away = [("GAOCACHE_CONTEXT", "away")];
    let (code, shown) = on(&away, &get);
    assert!(code == Some(1) && shown.contains("127.0.0.1:1"), "{shown}");
    assert_eq!(
        on(&away, &[&get[..], &["--target", grpc]].concat()).0,
        Some(0)
    );
    assert_eq!(on(&[away[0], ("GAOCACHE_TARGET", grpc)], &get).0, Some(0));
    assert_eq!(
        on(&[away[0], ("GAOCACHE_ADMIN", &admin)], &["ring"]).0,
        Some(0)
    );
    for variables in [
        ("GAOCACHE_CONTEXT", "etcd"),
        ("GAOCACHE_ETCD", "http://127.0.0.1:1"),
    ] {
        for arguments in [&get[..], &["ring"], &["members"]] {
            let (code, shown) = on(&[variables], arguments);
            assert_eq!(code, Some(1), "{shown}");
            assert!(
                shown.contains("etcd: http://127.0.0.1:1"),
                "{arguments:?}: {shown}"
            );
        }
    }
    let (code, shown) = on(&[("GAOCACHE_CONTEXT", "nope")], &get);
    assert_eq!(code, Some(64), "{shown}");
    assert!(
        shown.contains("there is no context 'nope'; the contexts are: away, dev, etcd"),
        "{shown}"
    );
    write("[contexts.dev]\ntarget = 5");
    assert_eq!(on(&[], &get).0, Some(64));
    write("[contexts.dev]\ntargt = \"h:1\"");
    let (code, shown) = on(&[], &get);
    assert!(code == Some(64) && shown.contains("targt"), "{shown}");
}

/// Who chose a context does not mean the node on this machine.
#[test]
fn a_context_without_the_address_that_a_command_needs_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    fs::create_dir(home.path().join("gaocache")).expect("made");
    let contexts = "current = \"production\"\n\
         [contexts.production]\nadmin = \"127.0.0.1:1\"\n\
         [contexts.target]\ntarget = \"127.0.0.1:1\"\n\
         [contexts.garbage]\ntarget = \"garbage\"\n";
    fs::write(home.path().join("gaocache/config.toml"), contexts).expect("written");
    let on = |variables: &[(&str, &str)], arguments: &[&str]| {
        let (code, shown) = told(home.path(), variables, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {shown}");
        shown
    };
    let (purge, target) = (["purge", "users"], ("GAOCACHE_CONTEXT", "target"));
    for (variables, arguments, wanted) in [
        (
            &[][..],
            &purge[..],
            "the context 'production' has no target, so it is not clear which node is meant; pass \
             --target, or set GAOCACHE_TARGET",
        ),
        (
            &[target],
            &["explain", "users", "a"],
            "the context 'target' has no admin",
        ),
        (&[target], &["ring"], "the context 'target' has no admin"),
        (
            &[target],
            &["forget", "n1"],
            "the context 'target' has no etcd",
        ),
        (
            &[target, ("GAOCACHE_ADMIN", "127.0.0.1:1")],
            &purge,
            "the environment overrides the addresses of the context 'target'",
        ),
        (
            &[("GAOCACHE_CONTEXT", "garbage")],
            &purge,
            "target of the context 'garbage': 'garbage': write HOST:PORT",
        ),
        (
            &[("GAOCACHE_TARGET", "garbage")],
            &purge,
            "GAOCACHE_TARGET: 'garbage': write HOST:PORT",
        ),
        (
            &[("GAOCACHE_ADMIN", "garbage")],
            &["reload"],
            "GAOCACHE_ADMIN: 'garbage': write HOST:PORT",
        ),
        (
            &[("GAOCACHE_ETCD", "garbage")],
            &["members"],
            "GAOCACHE_ETCD: write URLs",
        ),
    ] {
        let shown = on(variables, arguments);
        assert!(shown.contains(wanted), "{arguments:?}: {shown}");
    }
}

#[test]
fn members_without_an_etcd_say_how_to_name_one() {
    let home = tempfile::tempdir().expect("a folder");
    let (code, shown) = told(home.path(), &[], &["members"]);
    assert_eq!(code, Some(2), "{shown}");
    let wanted = "pass --etcd or set GAOCACHE_ETCD";
    assert!(shown.contains(wanted), "{shown}");
}
