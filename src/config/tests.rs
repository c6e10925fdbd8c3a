use std::fs;

use super::{schema::Takes, *};

fn sources(toml: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gaocache.toml");
    fs::write(&file, toml).expect("written");
    let sources = Sources {
        file: Some(file),
        platform: vec![("node.id".into(), "host".into(), "host name".into())],
        ..Sources::default()
    };
    (folder, sources)
}

const GOOD: &str = r#"
    [registry]
    kind = "memory"
    [[groups]]
    name = "users"
    ttl_seconds = 1.5
    [groups.origin]
    kind = "http"
    url = "http://origin:8000/users/{key}"
"#;

fn problems(sources: &Sources) -> Vec<problem::Problem> {
    load(sources).expect_err("wrong settings").0
}

#[test]
fn flags_come_before_variables_before_the_file_before_defaults() {
    let (_folder, mut sources) = sources(&format!("{GOOD}\n[node]\nzone = \"file\"\nweight = 7"));
    let zone = |sources: &Sources| {
        let loaded = load(sources).expect("good settings");
        let shown = loaded
            .in_force
            .into_iter()
            .find(|it| it.name == "node.zone");
        (loaded.settings.node.zone, shown.expect("listed").source)
    };
    let (value, source) = zone(&sources);
    assert_eq!(value, "file");
    assert!(
        source.starts_with("file ") && source.ends_with("gaocache.toml"),
        "{source}"
    );
    sources.environment = vec![
        ("GAOCACHE__NODE__ZONE".into(), "variable".into()),
        ("GAOCACHE_PORT".into(), "tcp://10.0.0.1:7070".into()),
    ];
    let expected = "environment variable GAOCACHE__NODE__ZONE";
    assert_eq!(zone(&sources), ("variable".into(), expected.into()));
    sources.overrides = vec!["node.zone=flag".into()];
    assert_eq!(zone(&sources), ("flag".into(), "flag --set".into()));
    let settings = load(&sources).expect("good settings").settings;
    assert_eq!(
        (settings.node.weight, settings.node.id.as_str()),
        (7, "host")
    );
    assert_eq!(settings.cache.capacity, 512 << 20);
    assert_eq!(settings.groups[0].max_value, 8 << 20);
}

#[test]
fn every_wrong_setting_is_told_at_once_with_its_source_and_what_is_allowed() {
    let (_folder, mut sources) = sources(&GOOD.replace("ttl_seconds", "tll_seconds"));
    sources.environment = vec![
        ("GAOCACHE__CACHE__CAPACITY".into(), "lots".into()),
        ("GAOCACHE__REGISTRY__KIND".into(), "zookeeper".into()),
        ("GAOCACHE_NODE_ZONE".into(), "a".into()),
    ];
    sources.overrides = vec!["node.weight=0".into(), "grpc.listen=here".into()];
    let text = load(&sources).expect_err("wrong").to_string();
    let found = problems(&sources);
    assert_eq!(found.len(), 6, "{text}");
    for (name, value, source, allowed) in [
        (
            "groups[0].tll_seconds",
            "",
            "gaocache.toml",
            "did you mean 'groups[0].ttl_seconds'?",
        ),
        (
            "cache.capacity",
            "\"lots\"",
            "GAOCACHE__CACHE__CAPACITY",
            "a number of bytes",
        ),
        (
            "registry.kind",
            "\"zookeeper\"",
            "GAOCACHE__REGISTRY__KIND",
            "\"etcd\", \"static\", \"memory\"",
        ),
        (
            "GAOCACHE_NODE_ZONE",
            "",
            "environment variable",
            "did you mean 'GAOCACHE__NODE__ZONE'?",
        ),
        ("node.weight", "\"0\"", "flag --set", "from 1 to 1000000"),
        ("grpc.listen", "\"here\"", "flag --set", "\"0.0.0.0:7070\""),
    ] {
        let problem = found.iter().find(|it| it.name == name).expect(name);
        assert_eq!(problem.value.as_deref().unwrap_or_default(), value);
        assert!(
            problem.source.as_ref().expect("a source").contains(source),
            "{problem:?}"
        );
        assert!(problem.reason.contains(allowed), "{problem:?}");
        assert!(text.contains(&problem.reason));
    }
}

#[test]
fn what_does_not_fit_together_is_told_too() {
    for (change, name) in [
        ("registry.kind=etcd", "registry.etcd.endpoints"),
        ("http.listen=0.0.0.0:7070", "http.listen"),
        ("cache.capacity=4MiB", "groups[0].max_value"),
        ("registry.etcd.username=root", "registry.etcd.username"),
        ("registry.etcd.tls.cert=/a", "registry.etcd.tls.cert"),
        ("registry.service=", "registry.service"),
        ("peer.tls.ca=/a", "peer.tls.cert"),
        ("peer.tls.cert=/a", "peer.tls.ca"),
        ("peer.tls.key=/a", "peer.allowed_peers"),
        ("node.id=a/b", "node.id"),
    ] {
        let (_folder, mut sources) = sources(GOOD);
        sources.overrides = vec![change.into()];
        let found = problems(&sources);
        assert!(
            found.iter().any(|it| it.name == name),
            "{change}: {found:?}"
        );
    }
    let twice = format!(
        "{GOOD}\n{}",
        GOOD.split_once("kind = \"memory\"").expect("there").1
    );
    assert!(
        problems(&sources(&twice).1)
            .iter()
            .any(|it| it.name == "groups[1].name")
    );
    for (wrong, name) in [
        (GOOD.replace("/{key}", ""), "groups[0].origin.url"),
        (
            GOOD.replace("\"http\"", "\"file\""),
            "groups[0].origin.path",
        ),
        (GOOD.replace("\"users\"", "\"a/b\""), "groups[0].name"),
        (GOOD.replace("kind = \"http\"", ""), "groups[0].origin.kind"),
    ] {
        let (_folder, sources) = sources(&wrong);
        assert!(
            problems(&sources).iter().any(|it| it.name == name),
            "{wrong}"
        );
    }
}

#[test]
fn shares_of_memory_that_can_t_be_are_told() {
    let with = |memory: &str| GOOD.replace("ttl_seconds = 1.5", memory);
    let (_, more) = GOOD.split_once("[[groups]]").expect("there");
    let more = more.replace("users", "more");
    let both =
        |memory: &str| with(memory) + "[[groups]]" + &more.replace("ttl_seconds = 1.5", memory);
    for (wrong, name) in [
        (
            with("memory_share = 0.5\nmemory_limit = 0.4"),
            "groups[0].memory_limit",
        ),
        (both("memory_share = 0.6"), "groups"),
    ] {
        let (_folder, sources) = sources(&wrong);
        let found = problems(&sources);
        assert!(found.iter().any(|it| it.name == name), "{wrong} {found:?}");
    }
    let (_folder, all) = sources(&both("memory_share = 0.6"));
    let told = format!("{:?}", problems(&all));
    let named = "(groups[].memory_share: users 0.6, more 0.6)";
    assert!(told.contains(named), "{told}");
    for good in [with("memory_share = 0.5"), both("memory_share = 0.5")] {
        let (_folder, sources) = sources(&good);
        assert!(load(&sources).is_ok(), "{good}");
    }
}

#[test]
fn lists_and_groups_can_come_from_variables() {
    let (_folder, mut sources) = sources("");
    let groups = r#"[{ name = "g", origin = { kind = "http", url = "http://o/{key}", headers = { A = "b" } } }]"#;
    sources.environment = vec![
        (
            "GAOCACHE__REGISTRY__ETCD__ENDPOINTS".into(),
            "http://a:1, http://b:2".into(),
        ),
        ("GAOCACHE__GROUPS".into(), groups.into()),
    ];
    let loaded = load(&sources).expect("good settings");
    assert_eq!(
        loaded.settings.registry.etcd.endpoints,
        ["http://a:1", "http://b:2"]
    );
    assert_eq!(loaded.settings.groups[0].origin.headers["A"], "b");
    let shown = loaded
        .in_force
        .iter()
        .find(|it| it.name.ends_with("origin.headers"))
        .expect("listed");
    assert_eq!(shown.value, "{ A = \"***\" }", "a header may be a secret");
    sources.environment[0].1 = r#"["http://c:3"]"#.into();
    let loaded = load(&sources).expect("good settings");
    assert_eq!(loaded.settings.registry.etcd.endpoints, ["http://c:3"]);
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let (_folder, mut broken) = sources("[node\nid");
    let name = broken.file.as_ref().expect("given").display().to_string();
    assert_eq!(problems(&broken)[0].name, name);
    broken.file = Some("/no/such/file.toml".into());
    assert_eq!(problems(&broken)[0].name, "/no/such/file.toml");
}

#[test]
fn every_default_is_a_value_that_its_setting_takes() {
    let loaded = load(&sources(GOOD).1).expect("good settings");
    let groups = schema::SETTINGS
        .iter()
        .filter(|it| it.name.starts_with("groups[]"));
    assert_eq!(loaded.in_force.len(), schema::SETTINGS.len());
    assert!(groups.count() > 5);
}

/// A value that the setting takes and that isn't its default.
fn another(setting: &schema::Setting) -> String {
    let default = setting.default.map(|it| it().trim_matches('"').to_owned());
    let candidates: Vec<String> = match setting.takes {
        Takes::Text => vec!["another".into()],
        Takes::Integer { min, max } => vec![min.to_string(), max.to_string()],
        Takes::Seconds { min, max } => vec![min.to_string(), max.to_string()],
        Takes::Ratio => vec!["0".into(), "1".into()],
        Takes::Boolean => vec!["true".into(), "false".into()],
        Takes::Bytes | Takes::BytesOrZero => vec!["65MiB".into(), "66MiB".into()],
        Takes::Socket | Takes::SocketOrNone => vec!["127.0.0.1:1".into()],
        Takes::OneOf(words) => words.iter().map(ToString::to_string).collect(),
        Takes::Url => vec!["http://another".into()],
        Takes::Urls => vec!["[\"http://another\"]".into()],
        Takes::Texts => vec!["[\"another\"]".into()],
        Takes::Table => vec!["{ another = \"another\" }".into()],
    };
    let mut candidates = candidates.into_iter();
    candidates
        .find(|it| Some(it) != default.as_ref())
        .expect("another value")
}

/// Whether settings fit together is of no matter here.
fn read_with(overrides: &[String]) -> Loaded {
    let reading = read_all(&Sources {
        overrides: overrides.to_vec(),
        ..Sources::default()
    });
    Loaded {
        in_force: reading.in_force,
        numbered: reading.numbered,
        warnings: Vec::new(),
        settings: reading.settings.expect("settings"),
    }
}

#[test]
fn a_reload_changes_exactly_the_settings_that_the_table_calls_live() {
    let shown = |it: &Loaded| format!("{:?}", it.settings);
    let group =
        |of: &str| format!("groups=[{{ name = \"{of}\", origin = {{ kind = \"file\" }} }}]");
    let before = read_with(&[group("a")]);
    for setting in schema::SETTINGS {
        let is_live = setting.applies() == Applies::Live;
        let after = if setting.name.starts_with("groups[]") {
            read_with(&[group("b")])
        } else {
            let given = format!("{}={}", setting.name, another(setting));
            read_with(&[group("a"), given])
        };
        assert_ne!(shown(&before), shown(&after), "{}", setting.name);
        let wanted = if is_live { &after } else { &before };
        let reloaded = before.reloaded(after.clone());
        assert!(shown(&reloaded) == shown(wanted), "{}", setting.name);
        assert_eq!(reloaded.in_force, wanted.in_force, "{}", setting.name);
    }
}
