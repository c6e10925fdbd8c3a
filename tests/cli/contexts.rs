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
        shown.contains("there is no context 'nope'; there are: away, dev, etcd"),
        "{shown}"
    );
    write("[contexts.dev]\ntarget = 5");
    assert_eq!(on(&[], &get).0, Some(64));
    write("[contexts.dev]\ntargt = \"h:1\"");
    let (code, shown) = on(&[], &get);
    assert!(code == Some(64) && shown.contains("targt"), "{shown}");
}
