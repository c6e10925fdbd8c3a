//! What a failure says about what to do next.

use super::{etcd::told, *};
use common::etcd::Etcd;

/// The output of a command in a home of its own, which has these variables.
fn at_home(home: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .env("XDG_CONFIG_HOME", home)
        .envs(variables.iter().copied())
        .output()
        .expect("runs");
    let both = text(&output.stdout) + &text(&output.stderr);
    (output.status.code(), both)
}

/// The name of a file in a home.
fn written(home: &Path, name: &str, content: &str) -> String {
    let path = home.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(&path, content).expect("written");
    path.display().to_string()
}

/// An etcd that wants a password; `reader` may read nothing.
async fn with_users() -> Etcd {
    let etcd = Etcd::start().await;
    let mut admin = etcd.client().await;
    for (user, password) in [("root", "secret"), ("reader", "secret")] {
        let added = admin.user_add(user, password, None).await;
        added.expect("added");
    }
    let granted = admin.user_grant_role("root", "root").await;
    granted.expect("granted");
    admin.auth_enable().await.expect("enabled");
    etcd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_etcd_refuses_names_what_to_set() {
    let (etcd, open) = (with_users().await, Etcd::start().await);
    let home = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| written(home.path(), name, content);
    let (good, wrong) = (file("good", "secret"), file("wrong", "guess"));
    let flags = "--etcd-user and --etcd-password-file";
    for (url, user, password, meaning) in [
        (&etcd.url, "", &good, "etcd wants a login"),
        (
            &etcd.url,
            "root",
            &wrong,
            "etcd refuses the user or the password",
        ),
        (
            &etcd.url,
            "nobody",
            &good,
            "etcd refuses the user or the password",
        ),
        (
            &etcd.url,
            "reader",
            &good,
            "this user lacks a role for the keys of the service",
        ),
        (&open.url, "root", &good, "etcd takes no login"),
    ] {
        let login = ["--etcd-user", user, "--etcd-password-file", password];
        let login = if user.is_empty() { &[][..] } else { &login };
        let all = [&["members", "--etcd", url], login].concat();
        let (code, shown, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(1), "{shown}");
        assert!(
            errors.contains(meaning) && errors.contains(flags),
            "{user}: {errors}"
        );
    }
}

/// In the words of where the login was set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_names_the_context_or_the_settings_that_have_it() {
    let (etcd, home) = (with_users().await, tempfile::tempdir().expect("a folder"));
    let file = |name: &str, content: &str| written(home.path(), name, content);
    let wrong = file("wrong", "guess");
    let context = format!(
        "current = \"c\"\n[contexts.c]\netcd = [\"{}\"]\netcd_user = \"root\"\n\
         etcd_password_file = \"{wrong}\"",
        etcd.url
    );
    file("gaocache/config.toml", &context);
    let (_, told) = tokio::task::block_in_place(|| at_home(home.path(), &[], &["members"]));
    let meant = "see etcd_user and etcd_password_file of the context";
    assert!(told.contains(meant), "{told}");
    let settings = format!(
        "[registry.etcd]\nendpoints = [\"{}\"]\nusername = \"root\"\npassword_file = \"{wrong}\"",
        etcd.url
    );
    let settings = file("gaocache.toml", &settings);
    let members = ["members", "--config", &settings];
    let elsewhere = Path::new("/nonexistent");
    let (_, told) = tokio::task::block_in_place(|| at_home(elsewhere, &[], &members));
    let meant = "see registry.etcd.username and registry.etcd.password_file";
    assert!(told.contains(meant), "{told}");
}

/// Somebody may listen at the usual ports of this machine. Then there is nothing to say.
#[test]
fn who_named_no_node_is_told_how_to_name_one() {
    let hint = "this address was tried because none was named";
    for (command, flag) in [
        (&["get", "users", "a"][..], "--target, GAOCACHE_TARGET"),
        (&["ring"], "--admin, GAOCACHE_ADMIN"),
        (&["explain", "users", "a"], "--admin, GAOCACHE_ADMIN"),
        (&["reload"], "--admin, GAOCACHE_ADMIN"),
    ] {
        let (_, told) = at_home(Path::new("/nonexistent"), &[], command);
        let refused = told.contains("Connection refused");
        assert_eq!(
            told.contains(hint) && told.contains(flag),
            refused,
            "{told}"
        );
    }
    for (command, flag) in [
        (&["get", "users", "a"][..], "--target"),
        (&["ring"], "--admin"),
    ] {
        let named = [command, &[flag, "127.0.0.1:1"]].concat();
        let (_, told) = at_home(Path::new("/nonexistent"), &[], &named);
        assert!(told.contains("Connection refused"), "{told}");
        assert!(!told.contains(hint), "{told}");
    }
}

#[test]
fn a_node_of_dev_says_where_its_settings_come_from() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let admin = dev.admin[0].trim_start_matches("http://");
    let (code, _, errors) = told(&["reload", "--admin", admin]);
    assert_eq!(code, Some(1));
    let what = "`gaocache dev` takes them from its flags (--set) when it starts";
    assert!(errors.contains(what), "{errors}");
}

#[test]
fn a_file_that_is_none_of_the_kind_is_told_so_and_where_it_is_wrong() {
    let home = tempfile::tempdir().expect("a folder");
    let file = written(home.path(), "a-file", "");
    let binary = home.path().join("binary");
    fs::write(&binary, b"[node]\nid = \"\xff\"").expect("written");
    let binary = binary.display().to_string();
    let is_it = "is this the admin.socket of a node that runs?";
    for (command, reason) in [
        (&["reload", "--socket", &file][..], is_it),
        (&["reload", "--socket", "/nonexistent"], is_it),
        (&["get", "users", "a", "--socket", &file], is_it),
        (
            &["config", "--config", &binary],
            "the file is not text in UTF-8",
        ),
        (&["man", &file], "not a directory"),
        (
            &[
                "serve",
                "--set",
                "registry.kind=memory",
                "--set",
                "log.audit=/nonexistent/a",
                "--set",
                "grpc.listen=127.0.0.1:0",
                "--set",
                "peer.listen=127.0.0.1:0",
                "--set",
                "http.listen=127.0.0.1:0",
                "--set",
                "admin.listen=127.0.0.1:0",
            ],
            "log.audit: the file /nonexistent/a can't be written: No such file",
        ),
    ] {
        let (_, told) = at_home(home.path(), &[], command);
        assert!(told.contains(reason), "{command:?}: {told}");
    }
    let context = "current = \"c\"\n[contexts.c]\ntargt = 1\n";
    written(home.path(), "gaocache/config.toml", context);
    let (code, told) = at_home(home.path(), &[], &["ring"]);
    let place = "config.toml: line 3, column 1: unknown field `targt`";
    assert!(code == Some(64) && told.contains(place), "{told}");
}

/// Records of members that crashed at once; nobody is left to take them off the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forget_says_what_comes_of_those_that_are_left() {
    let etcd = Etcd::start().await;
    let mut client = etcd.client().await;
    for id in ["n1", "n2", "n3"] {
        let record = r#"{"Op":0,"Addr":"127.0.0.1:1","Metadata":{"lease":77,"registered_at":0}}"#;
        let key = format!("gaocache.roster/{id}");
        client.put(key, record, None).await.expect("written");
    }
    // One of a release that tells no time.
    let written = client
        .put("gaocache/n0", r#"{"Op":0,"Addr":"127.0.0.1:1"}"#, None)
        .await;
    written.expect("written");
    let on = |arguments: &[&str]| {
        let all = [arguments, &["--etcd", &etcd.url]].concat();
        let (code, shown, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(0), "{errors}");
        shown
    };
    let members = on(&["members"]);
    let row = |id: &str| {
        members
            .lines()
            .find(|line| line.starts_with(id))
            .expect("a row")
    };
    assert!(
        row("n1").contains("vanished  1970-01-01T00:00:00Z"),
        "{members}"
    );
    assert!(row("n0").contains("serving   unknown"), "{members}");
    let shown = on(&["forget", "n1"]);
    assert!(
        shown.contains("2 of 3 members are still gone: n2, n3; removals stay refused until"),
        "{shown}"
    );
    let shown = on(&["forget", "n2", "--json"]);
    let left: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        left["left"],
        serde_json::json!({ "members": 2, "vanished": ["n3"] })
    );
    let shown = on(&["forget", "n3"]);
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

/// There is no etcd that could be named.
#[test]
fn what_looks_at_registrations_says_that_a_fixed_list_has_none() {
    let fixed = [
        "registry.kind=static",
        "peer.insecure=true",
        "registry.static.peers=a=127.0.0.1:1",
        "node.id=a",
    ];
    let sets: Vec<_> = fixed.iter().flat_map(|set| ["--set", set]).collect();
    for command in [&["check"][..], &["members"], &["forget", "a"]] {
        let output = run(PROGRAM, &[command, &sets].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("a fixed list has no registrations"), "{told}");
        assert!(!told.contains("--etcd"), "{told}");
    }
}
