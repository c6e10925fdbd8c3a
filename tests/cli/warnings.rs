//! Settings that are valid, but have no effect or make no sense: a node starts with them, and
//! warns.

use serde_json::Value;

use super::{mounted::group, serve::Serve, settings::GOOD, *};

/// Exit code and standard error of `gaocache config` with these settings on top of good ones.
fn config(sets: &[&str], further: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gaocache.toml");
    fs::write(&file, GOOD).expect("written");
    let mut command = Command::new(PROGRAM);
    command
        .args(["config", "--config"])
        .arg(&file)
        .args(further);
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().expect("runs");
    (output.status.code(), text(&output.stderr))
}

fn warns(sets: &[&str], name: &str, reason: &str) {
    let (code, told) = config(sets, &[]);
    assert_eq!(code, Some(0), "{told}");
    let about = told.contains(&format!("\n  {name}")) && told.contains(reason);
    assert!(
        about && told.starts_with("gaocache: 1 warning:"),
        "{sets:?}: {told}"
    );
    let (code, told) = config(sets, &["--strict"]);
    assert!(
        code == Some(64) && told.contains(reason),
        "{sets:?}: {told}"
    );
}

#[test]
fn a_grant_that_nobody_can_have_or_that_is_for_nothing_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    let (hash, lines) = ("0".repeat(64), "1".repeat(64));
    let lines = format!("ci {hash} read users\nops {lines} purge ghosts\n");
    fs::write(&tokens, lines).expect("written");
    let tokens = format!("auth.token_file={}", tokens.display());
    warns(
        &[&tokens],
        "auth.token_file",
        "'ops': there is no group 'ghosts'",
    );
    let grant = |grant: &str| format!("auth.grants=[\"{grant}\"]");
    let jwt = "nobody can have the grant of 'jwt:a': no JWT is accepted";
    warns(&[&grant("jwt:a read users")], "auth.grants", jwt);
    let certificate = "nobody can have the grant of 'certificate:b': no listener asks";
    warns(&[&grant("certificate:b read")], "auth.grants", certificate);
    let url = "auth.jwt.jwks_url=https://issuer/keys";
    let keys = [url, "auth.jwt.issuer=i", "auth.jwt.audience=a"];
    let wrong = grant("jwt:a read uesrs");
    let meant = "'jwt:a': there is no group 'uesrs'; did you mean 'users'?";
    warns(&[&keys[..], &[&wrong]].concat(), "auth.grants", meant);
    let right = grant("jwt:a read users");
    assert_eq!(
        config(&[&keys[..], &[&right]].concat(), &["--strict"]),
        (Some(0), String::new())
    );
}

#[test]
fn a_setting_without_an_effect_is_warned_of() {
    for (set, reason) in [
        (
            "registry.etcd.endpoints=http://e:2379",
            "unless registry.kind is \"etcd\"",
        ),
        (
            "registry.static.peers=a=b:1",
            "unless registry.kind is \"static\"",
        ),
        ("peer.allowed_peers=a", "without peer.tls"),
        ("cache.replicate=hot", "unless cache.replicas is 2"),
        (
            "auth.jwt.issuer=i",
            "without auth.jwt.jwks_file or auth.jwt.jwks_url",
        ),
        (
            "admin.insecure=true",
            "unless auth.anonymous contains \"admin\"",
        ),
        ("log.slow_seconds=2", "unless log.requests is \"slow\""),
        (
            "log.max_requests_per_second=5",
            "while log.requests is \"off\"",
        ),
        ("trace.sample_ratio=1", "while no spans are recorded"),
        (
            "groups[0].origin.breaker_slow_seconds=2",
            "while breaker_slow_ratio is 0",
        ),
        (
            "groups[0].origin.breaker_min_loads=2",
            "while breaker_failure_ratio and",
        ),
    ] {
        let name = set.split('=').next().unwrap_or_default();
        warns(&[set], name, &format!("has no effect {reason}"));
    }
    let endless = "groups[0].ttl_seconds=0";
    for set in [
        "ttl_jitter=0.1",
        "refresh_ahead=true",
        "stale_if_error_seconds=9",
    ] {
        let set = format!("groups[0].{set}");
        let name = set.split('=').next().unwrap_or_default();
        warns(
            &[endless, &set],
            name,
            "has no effect while values never expire",
        );
        assert_eq!(config(&[&set], &["--strict"]).0, Some(0), "{set}");
    }
    let off = ["http.enabled=false", "http.allowed_hosts=a.example"];
    warns(
        &off,
        "http.allowed_hosts",
        "has no effect while http.enabled is false",
    );
}

#[test]
fn a_limit_that_forbids_all_or_is_never_reached_is_warned_of() {
    for (set, reason) in [
        (
            "limits.max_connections_per_address=10001",
            "is never reached, since limits.max_connections is 10000",
        ),
        (
            "limits.max_admin_connections_per_address=257",
            "since limits.max_admin_connections is 256",
        ),
        (
            "limits.reserved_descriptors=0",
            "clients may take all file descriptors",
        ),
        ("node.drain_timeout_seconds=0", "hands no entries over"),
        ("node.shutdown_timeout_seconds=0", "are cut off"),
        (
            "groups[0].max_ttl_seconds=60",
            "is never reached, since max_ttl_seconds is 60",
        ),
        (
            "groups[0].origin.max_queue=0",
            "as soon as 64 loads are under way",
        ),
        (
            "groups[0].max_value=6MiB",
            "only 85 values of this size fit into cache.capacity",
        ),
        (
            "cache.capacity=1000000TiB",
            "is more than the memory of this ",
        ),
        (
            "cache.capacity=79MiB",
            "only 9 values of the size that max_value allows fit",
        ),
    ] {
        let name = match set.split('=').next().unwrap_or_default() {
            "groups[0].max_ttl_seconds" => "groups[0].ttl_seconds",
            name => name,
        };
        warns(&[set], name, reason);
    }
    let few = ["cache.in_flight=12MiB", "limits.max_misses_per_client=4097"];
    warns(
        &few,
        "limits.max_misses_per_client",
        "which is 4096 requests",
    );
    let alone = [
        "registry.kind=static",
        "node.id=a",
        "registry.static.peers=a=127.0.0.1:1",
        "peer.insecure=true",
        "cache.replicas=2",
    ];
    warns(
        &alone,
        "cache.replicas",
        "there are not so many nodes: registry.static.peers has 1",
    );
}

#[test]
fn what_no_value_no_load_and_no_client_can_meet_is_warned_of() {
    let alone = "groups[0].origin.max_concurrency=1";
    for (sets, reason) in [
        (
            &["groups[0].origin.compress_min_bytes=9MiB"][..],
            "since no value is that large (max_value is 8388608)",
        ),
        (
            &["groups[0].origin.hedge=true", alone],
            "has no effect while max_concurrency is 1",
        ),
        (
            &["groups[0].memory_limit=0.01"],
            "and max_value is 8388608: values beyond that are not kept",
        ),
        (&["auth.anonymous=remove"], "nobody else has the role read"),
    ] {
        let name = sets[0].split('=').next().unwrap_or_default();
        warns(sets, name, reason);
    }
}

/// What nobody has set is not warned of, be it as strange as it may.
#[test]
fn good_settings_are_not_warned_of() {
    for good in [
        &[][..],
        &[
            "limits.max_connections=10",
            "limits.max_admin_connections=10",
        ],
        &["cache.capacity=80MiB", "groups[0].max_value=512KiB"],
        &["cache.replicas=2", "cache.replicate=hot"],
        &["log.requests=slow", "log.slow_seconds=2"],
        &["log.slow_seconds=1"],
        &["groups[0].origin.hedge=true"],
        &["groups[0].memory_limit=0.5"],
        &["groups[0].origin.compress_min_bytes=8MiB"],
    ] {
        assert_eq!(
            config(good, &["--strict"]),
            (Some(0), String::new()),
            "{good:?}"
        );
    }
    // Of every program on the machine.
    let mut command = Command::new(PROGRAM);
    command.args([
        "config",
        "--strict",
        "--set",
        "registry.kind=memory",
        "--set",
    ]);
    command
        .arg("groups=[{ name = \"g\", origin = { kind = \"http\", url = \"http://o/{key}\" } }]");
    let output = command.env("OTEL_SERVICE_NAME", "shop").output();
    assert!(output.expect("runs").status.success());
}

#[test]
fn a_node_warns_when_it_starts_and_when_it_reads_settings_again() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = format!("grpc.listen={}", holder.local_addr().expect("bound"));
    let start = ["serve", "--set", "registry.kind=memory", "--set", &busy];
    let log = text(&run(PROGRAM, &start).stdout);
    let line = "WARN check this setting setting=\"groups\" reason=\"there are none: every get";
    assert!(log.contains(line), "{log}");

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gaocache.toml");
    let memory = "[registry]\nkind = \"memory\"\n";
    let users = group("users", 60, "http://127.0.0.1:1/{key}");
    fs::write(&file, format!("{memory}{users}")).expect("written");
    let mut serve = Serve::with_file(&file, &[]);
    fs::write(&file, format!("{memory}{users}max_ttl_seconds = 5\n")).expect("written");
    let admin = serve.admin.clone();
    let reload = ["reload", "--admin", &admin];
    let shown = text(&run(PROGRAM, &reload).stdout);
    let told = "groups[0].ttl_seconds: is never reached, since max_ttl_seconds is 5";
    assert!(shown.contains(&format!("\nwarning: {told}\n")), "{shown}");
    let logged = serve.logs("check this setting");
    assert!(logged.contains("groups[0].ttl_seconds"), "{logged}");
    let shown = run(PROGRAM, &[&reload[..], &["--json"]].concat());
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["warnings"][0]["name"], "groups[0].ttl_seconds");
}
