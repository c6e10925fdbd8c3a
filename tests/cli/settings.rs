//! Settings: what is refused and how that is reported, and what `gaocache config` shows.

use super::*;

pub(super) const GOOD: &str = r#"
[registry]
kind = "memory"
[[groups]]
name = "users"
ttl_seconds = 300
[groups.origin]
kind = "http"
url = "http://origin:8000/users/{key}"
"#;

fn file(toml: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gaocache.toml");
    fs::write(&path, toml).expect("written");
    let path = path.to_str().expect("text").to_owned();
    (folder, path)
}

/// Standard output, standard error and exit code of `gaocache config` with a file.
fn config(toml: &str, sets: &[&str], variables: &[(&str, &str)]) -> (String, String, Option<i32>) {
    let (_folder, path) = file(toml);
    let mut command = Command::new(PROGRAM);
    command
        .args(["config", "--config", &path])
        .envs(variables.iter().copied());
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().expect("runs");
    (
        text(&output.stdout),
        text(&output.stderr),
        output.status.code(),
    )
}

pub(super) fn shown(toml: &str, sets: &[&str], variables: &[(&str, &str)]) -> String {
    let (shown, told, code) = config(toml, sets, variables);
    assert_eq!(code, Some(0), "{told}");
    shown
}

pub(super) fn refused(toml: &str, sets: &[&str], variables: &[(&str, &str)]) -> String {
    let (shown, told, code) = config(toml, sets, variables);
    assert_eq!(code, Some(64), "{shown}{told}");
    told
}

/// The lines of a setting, with single spaces.
fn lines(shown: &str, name: &str) -> Vec<String> {
    let lines = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines
        .filter(|line| line.starts_with(&format!("{name} = ")))
        .collect()
}

#[test]
fn exit_codes_tell_usage_from_configuration() {
    assert_eq!(run(PROGRAM, &["no-such-command"]).status.code(), Some(2));
    let wrong = run(
        PROGRAM,
        &[
            "serve",
            "--set",
            "node.wieght=1",
            "--set",
            "cache.capacity=much",
        ],
    );
    assert_eq!(wrong.status.code(), Some(64));
    let message = text(&wrong.stderr);
    assert!(
        message.contains("node.wieght") && message.contains("cache.capacity"),
        "{message}"
    );
}

#[test]
fn config_prints_what_is_in_force_and_where_it_came_from() {
    let shown = Command::new(PROGRAM)
        .args(["config", "--set", "registry.kind=memory", "--set"])
        .arg("groups=[{ name = \"g\", origin = { kind = \"http\", url = \"http://o/{key}\" } }]")
        .env("GAOCACHE__NODE__ZONE", "zone-b")
        .env("GAOCACHE_PORT", "tcp://10.0.0.1:7070")
        .env("POD_NAME", "gaocache-7")
        .output()
        .expect("runs");
    let shown = text(&shown.stdout);
    let line = |name: &str| {
        let found = shown
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")));
        found
            .unwrap_or_else(|| panic!("{name} is missing:\n{shown}"))
            .to_owned()
    };
    assert!(line("node.zone").ends_with("# environment variable GAOCACHE__NODE__ZONE"));
    assert!(
        line("node.id").contains("\"gaocache-7\"")
            && line("node.id").ends_with("# environment variable POD_NAME")
    );
    assert!(line("registry.kind").ends_with("# flag --set"));
    assert!(line("grpc.listen").contains("\"0.0.0.0:7070\""));
}

#[test]
fn a_setting_of_one_group_is_taken_from_flags_and_variables() {
    let ttl = |sets: &[&str], variables: &[(&str, &str)]| {
        lines(&shown(GOOD, sets, variables), "ttl_seconds")
    };
    assert_eq!(
        ttl(&["groups[0].ttl_seconds=5"], &[]),
        ["ttl_seconds = 5.0 # flag --set"]
    );
    for variable in [
        "GAOCACHE__GROUPS__0__TTL_SECONDS",
        "GAOCACHE__GROUPS[0]__TTL_SECONDS",
    ] {
        let expected = format!("ttl_seconds = 5.0 # environment variable {variable}");
        assert_eq!(ttl(&[], &[(variable, "5")]), [expected]);
    }
    let kind = shown(GOOD, &["groups[0].origin.retries=7"], &[]);
    assert_eq!(
        lines(&kind, "origin.retries"),
        ["origin.retries = 7 # flag --set"]
    );
    for (set, reason) in [
        (
            "groups[7].ttl_seconds=5",
            "there is no such group: the only one is groups[0]",
        ),
        ("groups[0].ttl=5", "did you mean 'groups[0].ttl_seconds'?"),
        ("groups[0].ttl_seconds=soon", "expected: seconds from 0"),
        ("groups[x].ttl_seconds=5", "with the number of the group"),
        ("groups[0]=5", "with the number of the group"),
    ] {
        let told = refused(GOOD, &[set], &[]);
        assert!(
            told.contains("[flag --set]") && told.contains(reason),
            "{set}: {told}"
        );
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let toml = r#"
[cahce]
capacity = "1GiB"
[node]
wieght = 5
[registry]
kind = "etcd"
service = "a/"
[registry.etcd]
endpoints = ["http://etcd:2379"]
lease_ttl_seconds = 1
username = "root"
[registry.etcd.tls]
ca = "/no/such/ca.pem"
"#;
    let told = refused(
        toml,
        &["http.listen=127.0.0.1:7070", "groups[0].ttl=5"],
        &[],
    );
    for part in [
        "8 wrong settings:",
        "cahce  [file ",
        "no such section; did you mean 'cache'?",
        "did you mean 'node.weight'?",
        "registry.service = \"a/\"",
        "registry.etcd.lease_ttl_seconds = 1",
        "username and password_file must be set together",
        "registry.etcd.tls.ca = \"/no/such/ca.pem\"",
        "the file can't be read: No such file",
        "http.listen = \"127.0.0.1:7070\"",
        "another listener already uses this port",
        "there is no such group: the settings have none",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // What follows only from another wrong setting is not reported.
    let told = refused(GOOD, &["registry.kind=zookeeper"], &[]);
    assert!(told.starts_with("gaocache: 1 wrong setting:"), "{told}");
}

/// Finding what is wrong takes seeing what is right, and where it came from.
#[test]
fn config_prints_what_it_can_and_tells_what_is_wrong() {
    let (shown, told, code) = config(GOOD, &["node.weight=0", "node.zone=b"], &[]);
    assert_eq!(code, Some(64), "{told}");
    assert!(told.contains("node.weight = \"0\""), "{told}");
    assert_eq!(
        lines(&shown, "node.zone"),
        ["node.zone = \"b\" # flag --set"]
    );
    assert_eq!(lines(&shown, "node.weight"), Vec::<String>::new());
    assert_eq!(lines(&shown, "ttl_seconds").len(), 1, "{shown}");
    let (_folder, path) = file(&format!("{GOOD}\n[node]\nweight = 0"));
    let output = run(PROGRAM, &["config", "--json", "--config", &path]);
    let settings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(settings.iter().any(|it| it["name"] == "node.zone"));
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn what_a_node_would_refuse_at_its_start_is_told_by_config() {
    let file_origin = "groups=[{ name = \"f\", origin = { kind = \"file\", path = \"/\" } }]";
    for (sets, reason) in [
        (
            &["cache.in_flight=1MiB"][..],
            "a value of the largest max_value needs",
        ),
        (&["node.advertise_host=a:1"], "without a port"),
        (&["node.advertise_host=0.0.0.0"], "no client can reach"),
        (&["node.advertise_host=a b"], "a host name or an address"),
        (&["log.level=gaocahe=debug"], "nothing logs as 'gaocahe'"),
        (
            &["log.level=info,gaocache::rcp=debug"],
            "there is no module 'gaocache::rcp'",
        ),
        (
            &["groups[0].origin.path=/files"],
            "an origin of kind \"http\" has no such setting",
        ),
        (
            &[file_origin, "groups[0].origin.retries=9"],
            "an origin of kind \"file\" has no such setting",
        ),
        (
            &["groups[0].origin.headers={ A = \"a\\nb\" }"],
            "the value of 'A' has a line break in it",
        ),
    ] {
        let told = refused(GOOD, sets, &[]);
        assert!(told.contains(reason), "{sets:?}: {told}");
        assert!(told.starts_with("gaocache: 1 wrong setting:"), "{told}");
    }
    for good in [
        "node.advertise_host=::1",
        "node.advertise_host=[::1]",
        "node.advertise_host=gaocache-0.gaocache.svc",
        "log.level=warn,gaocache::rpc=debug,h2=off",
        "cache.in_flight=64MiB",
        // As the chart has it, from a Secret that was made from a file.
        "groups[0].origin.headers={ A = '''Bearer x\n''' }",
    ] {
        shown(GOOD, &[good], &[]);
    }
}

#[test]
fn a_port_in_use_is_no_wrong_setting() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let grpc = format!("grpc.listen={}", holder.local_addr().expect("bound"));
    let (_folder, path) = file(GOOD);
    let output = run(PROGRAM, &["serve", "--config", &path, "--set", &grpc]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("Address already in use"), "{told}");
}

#[test]
fn config_refuses_what_serve_refuses() {
    let (folder, path) = file("no certificate");
    for setting in ["registry.etcd.tls.ca", "trace.ca"] {
        let told = refused(GOOD, &[&format!("{setting}={path}")], &[]);
        assert!(
            told.contains("contains no certificate in PEM format"),
            "{told}"
        );
        let folder = folder.path().display();
        let told = refused(GOOD, &[&format!("{setting}={folder}")], &[]);
        assert!(told.contains("the file can't be read"), "{told}");
    }
}

#[test]
fn a_level_that_is_none_is_refused_before_anything_starts() {
    for wrong in ["inof", "info,,warn", "info,gaocache"] {
        let told = refused(GOOD, &[&format!("log.level={wrong}"), "node.weight=0"], &[]);
        assert!(told.starts_with("gaocache: 2 wrong settings:"), "{told}");
        assert!(
            told.contains("is not a log level; use off, error, warn, info, debug or trace"),
            "{told}"
        );
    }
    assert!(shown(GOOD, &["log.level=info,gaocache::rpc=debug"], &[]).contains("rpc=debug"));
}

#[test]
fn a_name_that_was_meant_is_suggested() {
    for (set, meant) in [
        ("cahce.capacity=1GiB", "cache"),
        ("cahce=1GiB", "cache"),
        ("cache.capcity=1GiB", "cache.capacity"),
        ("groups[0].ttl=5", "groups[0].ttl_seconds"),
        ("groups[0].url=http://o/{key}", "groups[0].origin.url"),
        ("capacity=1GiB", "cache.capacity"),
    ] {
        let told = refused(GOOD, &[set], &[]);
        assert!(
            told.contains(&format!("did you mean '{meant}'?")),
            "{set}: {told}"
        );
    }
}

#[test]
fn a_size_may_be_a_number_of_bytes() {
    let toml = format!("{GOOD}\n[cache]\ncapacity = 1073741824");
    let capacity = lines(&shown(&toml, &[], &[]), "cache.capacity");
    assert!(
        capacity[0].starts_with("cache.capacity = \"1073741824B\" # file"),
        "{capacity:?}"
    );
    let told = refused(&format!("{GOOD}\n[cache]\ncapacity = -1"), &[], &[]);
    assert!(told.contains("or a number of bytes"), "{told}");
}

#[test]
fn what_config_prints_can_be_loaded() {
    let toml = format!(
        "{GOOD}\n[[groups]]\nname = \"b\"\norigin.kind = \"http\"\norigin.url = \"http://b/{{key}}\""
    );
    let values = |shown: &str| {
        let values = shown
            .lines()
            .map(|line| line.split("  # ").next().unwrap_or_default().trim());
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let first = shown(&toml, &["groups[1].ttl_seconds=1.5", "node.id=a"], &[]);
    let again = shown(&first, &[], &[]);
    assert_eq!(values(&first), values(&again));
    assert_eq!(lines(&again, "name").len(), 2);
}

#[test]
fn config_speaks_json() {
    let (_folder, path) = file(GOOD);
    let output = run(PROGRAM, &["config", "--json", "--config", &path]);
    let settings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let find = |name: &str| {
        let found = settings.iter().find(|setting| setting["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {settings:?}"))
    };
    assert_eq!(find("groups[0].ttl_seconds")["value"], 300.0);
    assert_eq!(find("node.weight")["value"], 100);
    assert_eq!(find("node.weight")["source"], "default");
    assert_eq!(
        find("groups[0].origin.honour_cache_control")["value"],
        false
    );
}

#[test]
fn a_variable_with_a_single_underscore_between_section_and_name_is_told() {
    let told = refused(GOOD, &[], &[("GAOCACHE__CACHE_CAPACITY", "1GiB")]);
    assert!(
        told.contains("did you mean 'GAOCACHE__CACHE__CAPACITY'?"),
        "{told}"
    );
    shown(GOOD, &[], &[("GAOCACHE__CACHE__CAPACITY", "1GiB")]);
}
