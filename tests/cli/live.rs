//! Whether each setting applies when the reference says: the column `change` of
//! docs/configuration.md, row by row; and certificates that change together with settings.

use std::sync::Arc;

use gaocache_testing::{Authority, PemFolder};
use serde_json::{Value, json};
use toml::Table;

use super::{
    mounted::{Asked, Load, Mounted, group},
    serve::Serve,
    *,
};
use common::{CountingOrigin, within};

/// A row of the reference.
struct Row {
    name: String,
    takes: String,
    default: String,
    applies: String,
}

fn rows() -> Vec<Row> {
    let reference = include_str!("../../docs/configuration.md");
    let rows = reference.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|line| {
        let cells: Vec<&str> = line.trim_start_matches("| ").split(" | ").collect();
        let [name, takes, default, applies, ..] = cells[..] else {
            panic!("{line}");
        };
        let bare = |text: &str| text.trim_matches('`').to_owned();
        Row {
            name: bare(name),
            takes: takes.into(),
            default: bare(default),
            applies: applies.into(),
        }
    });
    rows.collect()
}

/// The settings that are changed to change one: as TOML, or `None` to leave it out.
type Changes = Vec<(String, Option<String>)>;

fn all(given: &[(&str, &str)]) -> Changes {
    let given = given.iter();
    let given = given.map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())));
    given.collect()
}

/// What changes a setting. Where others have to change with it, they are named.
fn changes(row: &Row, files: &PemFolder) -> Changes {
    if let Some((section, setting)) = row.name.split_once(".tls.") {
        return of_tls(section, setting, files);
    }
    if row.name.starts_with("auth.") {
        return of_auth(row, files);
    }
    let one = |value: &str| all(&[(&row.name, value)]);
    let file = |name: &str| format!("{:?}", files.text(name));
    match &*row.name {
        "registry.static.peers" => one("[\"n0=127.0.0.1:7071\"]"),
        "registry.kind" => all(&[
            ("registry.kind", "\"etcd\""),
            ("registry.etcd.endpoints", "[\"http://127.0.0.1:1\"]"),
        ]),
        "registry.etcd.username" | "registry.etcd.password_file" => all(&[
            ("registry.etcd.username", "\"root\""),
            ("registry.etcd.password_file", &file("text")),
        ]),
        "registry.etcd.endpoints" => one("[\"http://127.0.0.1:1\"]"),
        "node.advertise_host" => one("\"127.0.0.2\""),
        "node.zone_file" => one(&file("text")),
        "peer.allowed_peers" => one("[\"*\"]"),
        "cache.in_flight" => one("\"64MiB\""),
        "log.level" => one("\"debug\""),
        "log.format" => one("\"text\""),
        "log.audit" => one("\"stdout\""),
        "trace.ca" | "groups[].origin.ca" => one(&file("ca.pem")),
        "groups[].max_value" => one("\"1MiB\""),
        "groups[].soft_timeout_seconds" => all(&[
            ("groups[].soft_timeout_seconds", "1.0"),
            ("groups[].stale_if_error_seconds", "60.0"),
        ]),
        "groups[].origin.url" => one("\"http://127.0.0.1:1/{key}\""),
        "groups[].origin.kind" | "groups[].origin.path" => {
            let mut changed = all(&[
                ("groups[].origin.kind", "\"file\""),
                ("groups[].origin.path", "\"/\""),
            ]);
            changed.push(("groups[].origin.url".into(), None));
            changed
        }
        "groups[].origin.keep_headers" => one("[\"x-one\"]"),
        "groups[].origin.header_files" => one(&format!("{{ x-one = {} }}", file("text"))),
        _ => one(&another(row)),
    }
}

fn of_tls(section: &str, setting: &str, files: &PemFolder) -> Changes {
    let name = |rest: &str| format!("{section}.tls.{rest}");
    let file = |name: &str| Some(format!("{:?}", files.text(name)));
    let ca = file("ca.pem");
    if (section, setting) == ("registry.etcd", "ca") {
        return vec![(name("ca"), ca)];
    }
    let mut changed = vec![
        (name("cert"), file("node.pem")),
        (name("key"), file("node.key")),
    ];
    if section == "peer" {
        changed.push((name("ca"), ca));
        changed.push(("peer.allowed_peers".into(), Some("[\"*\"]".into())));
    } else if setting.starts_with("client_") {
        changed.push((name("client_ca"), ca));
        changed.push((name("client_auth"), Some("\"optional\"".into())));
    }
    changed
}

fn of_auth(row: &Row, files: &PemFolder) -> Changes {
    let name = &*row.name;
    let file = |name: &str| format!("{:?}", files.text(name));
    let (jwks, ca, text) = (file("jwks.json"), file("ca.pem"), file("text"));
    let url = ("auth.jwt.jwks_url", "\"http://127.0.0.1:1/keys\"");
    let jwt = |further: &[(&str, &str)]| {
        let needed = [("auth.jwt.issuer", "\"i\""), ("auth.jwt.audience", "\"a\"")];
        all(&[&needed, further].concat())
    };
    match name {
        "auth.anonymous" => all(&[(name, "[\"read\", \"admin\"]")]),
        "auth.grants" => all(&[(name, "[\"certificate:web remove users\"]")]),
        "auth.token_file" => all(&[(name, &file("tokens"))]),
        "auth.jwt.jwks_url" => jwt(&[url]),
        "auth.jwt.ca" => jwt(&[url, (name, &ca)]),
        "auth.jwt.bearer_file" => jwt(&[url, (name, &text)]),
        "auth.jwt.jwks_file" | "auth.jwt.issuer" | "auth.jwt.audience" => {
            jwt(&[("auth.jwt.jwks_file", &jwks)])
        }
        _ => all(&[(name, &another(row))]),
    }
}

/// Another value than the default, by the type alone.
fn another(row: &Row) -> String {
    let number = || row.default.parse::<f64>().unwrap_or(0.0);
    let most = || {
        row.takes
            .rsplit(' ')
            .next()
            .and_then(|it| it.parse::<f64>().ok())
    };
    match &*row.takes {
        "true or false" => (row.default != "true").to_string(),
        "string" => "\"other\"".into(),
        "list of strings" => "[\"other.example\"]".into(),
        "ratio from 0 to 1" => "0.5".into(),
        "table of strings" => "{ x-one = \"1\" }".into(),
        it if it.starts_with("integer") || it.starts_with("seconds") => {
            let step = if most().is_some_and(|most| number() < most) {
                1.0
            } else {
                -1.0
            };
            let value = number() + step;
            if it.starts_with("integer") {
                format!("{value:.0}")
            } else {
                format!("{value:?}")
            }
        }
        it if it.starts_with("one of") => {
            let words = it.split('"').skip(1).step_by(2);
            let other = words
                .map(|word| format!("{word:?}"))
                .find(|it| *it != row.default);
            other.expect("two words")
        }
        it if it.starts_with("size") => "\"48MiB\"".into(),
        it if it.starts_with("address:port") => "\"127.0.0.1:1\"".into(),
        it if it.starts_with("list of URLs") => "[\"http://127.0.0.1:1\"]".into(),
        it if it.starts_with("URL") => "\"http://127.0.0.1:1\"".into(),
        it => panic!("{}: a type that this test doesn't know: {it}", row.name),
    }
}

/// The settings with these changes.
fn changed(base: &str, changes: &[(String, Option<String>)]) -> String {
    let mut settings: Table = base.parse().expect("TOML");
    for (name, value) in changes {
        let (mut at, rest) = match name.strip_prefix("groups[].") {
            Some(rest) => (settings["groups"][0].as_table_mut().expect("a group"), rest),
            None => (&mut settings, name.as_str()),
        };
        let mut path: Vec<&str> = rest.split('.').collect();
        let last = path.pop().expect("a name");
        for section in path {
            let section = at.entry(section).or_insert(Table::new().into());
            at = section.as_table_mut().expect("a section");
        }
        match value {
            Some(value) => {
                let value: Table = format!("it = {value}").parse().expect("TOML");
                at.insert(last.into(), value["it"].clone());
            }
            None => drop(at.remove(last)),
        }
    }
    settings.to_string()
}

/// What `/config` should show, if the value isn't shown in another form.
fn shown(row: &Row, changes: &[(String, Option<String>)]) -> Option<Value> {
    let (_, value) = changes.iter().find(|(name, _)| *name == row.name)?;
    let value: Table = format!("it = {}", value.as_ref()?).parse().expect("TOML");
    // The values of tables are masked.
    let plain = !row.takes.starts_with("size") && row.takes != "table of strings";
    plain.then(|| json!(value["it"]))
}

fn same(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().is_some_and(|it| Some(it) == other.as_f64())
}

fn files() -> PemFolder {
    let (files, authority) = (PemFolder::new(), Authority::new());
    files.write("ca.pem", &authority.pem);
    files.write_identity("node", &authority.issue(&["127.0.0.1", "n0"]));
    files.write("text", "secret");
    files.write("tokens", &format!("ci {} read\n", "ab".repeat(32)));
    // The key of RFC 8037, A.2.
    let key = r#"{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    files.write("jwks.json", &format!("{{\"keys\":[{key}]}}"));
    files
}

const ALONE: &str = r#"
node = { id = "n0", worker_threads = 2 }
grpc.listen = "127.0.0.1:0"
http.listen = "127.0.0.1:0"
peer.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
registry.kind = "memory"
log.format = "json"
auth.anonymous = ["read", "remove", "purge", "admin"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_setting_applies_when_the_reference_says() {
    let (origin, files) = (CountingOrigin::start().await, files());
    let base = ALONE.to_owned() + &group("users", 600, &origin.url());
    let mut mounted = Mounted::new(&base);
    let serve = tokio::task::block_in_place(|| Serve::with_only(&mounted.path()));
    let asked = Asked::of(&serve, None);
    let (mut live, mut waiting) = (0, 0);
    for row in rows() {
        let name = row.name.replace("[]", "[0]");
        let changes = changes(&row, &files);
        let before = asked.setting(&name).await;
        mounted.change(&changed(&base, &changes));
        let (status, answer) = asked.reload().await;
        assert_eq!(status, 200, "{name}: {changes:?}: {answer}");
        let names = |field: &str| {
            answer[field]
                .as_array()
                .is_some_and(|it| it.contains(&json!(name)))
        };
        let after = asked.setting(&name).await;
        match &*row.applies {
            "live" => {
                assert!(names("changed") && after != before, "{name}: {answer}");
                let wanted = shown(&row, &changes);
                assert!(wanted.is_none_or(|it| same(&it, &after)), "{name}: {after}");
                live += 1;
            }
            "restart" | "restart; content: live" => {
                assert!(names("requires_restart"), "{name}: {answer}");
                assert_eq!(after, before, "{name}");
                waiting += 1;
            }
            other => panic!("{name}: {other}"),
        }
        mounted.change(&base);
        assert_eq!(asked.reload().await.0, 200, "{name}");
        assert_eq!(asked.setting(&name).await, before, "{name}");
    }
    assert!(live > 40 && waiting > 60, "{live} live, {waiting} restart");
    assert_eq!(asked.get("users", "k").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_groups_and_origins_change_under_one_load_and_no_get_fails() {
    let (one, other) = (CountingOrigin::start().await, CountingOrigin::start().await);
    let (files, authority) = (PemFolder::new(), Authority::new());
    files.write_identity("node", &authority.issue(&["127.0.0.1"]));
    let tls = format!(
        "http.tls = {{ cert = {:?}, key = {:?} }}\n",
        files.text("node.pem"),
        files.text("node.key")
    );
    let of = |ttl, origin: &str| format!("{ALONE}{tls}{}", group("users", ttl, origin));
    let mut mounted = Mounted::new(&of(600, &one.url()));
    let serve = tokio::task::block_in_place(|| Serve::with_only(&mounted.path()));
    let https = || common::tls::https(common::tls::trusting(&[&authority.pem], None));
    let asked = Arc::new(Asked::of(&serve, Some(https())));
    let load = Load::start(&asked);
    load.goes_on().await;
    let ends = "gaocache_certificate_not_after_timestamp_seconds";
    for round in 0..3_i32 {
        let before = asked.metric(ends, "listener=\"http\"").await;
        let issued = authority.issue_until(&["127.0.0.1"], 3000 + round);
        files.write_identity("node", &issued);
        let (origin, others) = if round % 2 == 0 {
            (&other, &one)
        } else {
            (&one, &other)
        };
        let more = group(&format!("more{round}"), 600, &others.url());
        mounted.change(&(of(60 + round as u32, &origin.url()) + &more));
        let (status, answer) = asked.reload().await;
        assert_eq!(status, 200, "{answer}");
        within("the new certificate", async {
            // In between, the key doesn't fit the certificate.
            while asked.metric(ends, "listener=\"http\"").await == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // A connection that is made now, and one from before.
        let fresh = Asked::of(&serve, Some(https()));
        assert_eq!(fresh.get(&format!("more{round}"), "k").await.0, 200);
        load.goes_on().await;
    }
    // A bad file changes nothing, neither of settings nor of certificates.
    files.write("node.pem", "no certificate");
    mounted.change("[[groups");
    assert_eq!(asked.reload().await.0, 500);
    within("the unusable file", async {
        let unusable = "gaocache_certificate_files_unusable";
        while asked.metric(unusable, "listener=\"http\"").await != 1.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let fresh = Asked::of(&serve, Some(https()));
    assert_eq!(fresh.get("users", "after").await.0, 200);
    assert_eq!(asked.setting("groups[0].ttl_seconds").await, 62.0);
    load.goes_on().await;
    load.ended().await;
}
