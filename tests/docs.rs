//! The reference tables in `docs/` are generated from the code and checked against it. `make docs`
//! regenerates them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fmt::Write, fs, path::Path};

use clap::CommandFactory;
use gaocache::{
    ErrorKind,
    internal::{Cli, codes, names, redis_code, redis_commands, schema},
};

fn root(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Compares the part between a file's markers with what the code generates. With
/// `GAOCACHE_WRITE_DOCS` set, replaces that part instead.
fn check(file: &str, generated: &str) {
    let path = root(file);
    let text = fs::read_to_string(&path).expect("the file is there");
    let (begin, end) = ("<!-- generated -->\n", "<!-- end of the generated part -->");
    let (before, rest) = text.split_once(begin).expect("a begin marker");
    let (standing, after) = rest.split_once(end).expect("an end marker");
    if std::env::var_os("GAOCACHE_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{begin}{generated}{end}{after}")).expect("written");
    } else {
        assert!(
            standing == generated,
            "{file} is not what the code says; run `make docs`"
        );
    }
}

#[test]
fn configuration() {
    check("docs/configuration.md", &schema::reference());
}

/// The chart accepts every setting, except those that it must decide itself.
#[test]
fn the_charts_schema_has_every_setting() {
    const OF_THE_CHART: [&str; 8] = [
        "node.id",
        "node.advertise_host",
        "grpc.listen",
        "http.listen",
        "redis.listen",
        "peer.listen",
        "admin.listen",
        "registry.kind",
    ];
    let text = include_str!("../charts/gaocache/values.schema.json");
    let chart: serde_json::Value = serde_json::from_str(text).expect("JSON");
    for setting in schema::SETTINGS {
        let (mut place, path) = match setting.name.strip_prefix("groups[].") {
            Some(path) => (&chart["properties"]["groups"]["items"], path),
            None => (&chart["properties"]["settings"], setting.name),
        };
        for part in path.split('.') {
            place = &place["properties"][part];
        }
        assert_eq!(
            place.is_object(),
            !OF_THE_CHART.contains(&setting.name),
            "{}: run `make docs`",
            setting.name
        );
    }
}

#[test]
fn command_line() {
    let mut out = String::new();
    let mut program = Cli::command().term_width(100);
    program.build();
    let names: Vec<String> = program
        .get_subcommands()
        .map(|it| it.get_name().to_owned())
        .collect();
    for name in names.iter().filter(|name| *name != "help") {
        let command = program.find_subcommand_mut(name).expect("listed").clone();
        let help = command.term_width(100).render_long_help().to_string();
        let help: String = help
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        let _ = writeln!(out, "## gaocache {name}\n\n```text\n{}\n```\n", help.trim());
    }
    check("docs/cli.md", &out);
}

#[test]
fn metrics() {
    let mut out = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in names::ALL {
        let labels = metric.labels.join(", ");
        let _ = writeln!(
            out,
            "| `{}` | {} | {labels} | {} |",
            metric.name, metric.kind, metric.help
        );
    }
    check("docs/metrics.md", &out);
}

#[test]
fn errors() {
    let mut out = String::from(
        "| kind | gRPC | HTTP | Redis | at fault | retryable |\n|---|---|---|---|---|---|\n",
    );
    for &kind in ErrorKind::ALL {
        let (code, http) = codes(kind);
        // That there is no such key is an answer.
        let redis = match kind {
            ErrorKind::NotFound => "nil",
            kind => redis_code(kind),
        };
        let again = if kind.retryable() { "yes" } else { "no" };
        let _ = writeln!(
            out,
            "| `{}` | {code:?} | {http} | {redis} | {:?} | {again} |",
            kind.name(),
            kind.fault()
        );
    }
    check("docs/api.md", &out);
}

#[test]
fn redis_commands_are_told() {
    check("docs/redis.md", &redis_commands());
}

/// Every file that a document links to exists, and so does every `make` target that it names.
#[test]
fn links_and_targets() {
    let makefile = fs::read_to_string(root("Makefile")).expect("there");
    let mut documents = vec![
        "README.md".to_owned(),
        "ARCHITECTURE.md".to_owned(),
        "CHANGELOG.md".to_owned(),
    ];
    for entry in fs::read_dir(root("docs")).expect("there") {
        let name = entry
            .expect("readable")
            .file_name()
            .into_string()
            .expect("text");
        if name.ends_with(".md") {
            documents.push(format!("docs/{name}"));
        }
    }
    for document in documents {
        let text = fs::read_to_string(root(&document)).expect("there");
        let folder = Path::new(&document).parent().expect("a folder");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|it| it.split_once(')'))
            .map(|it| it.0)
        {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !link.contains("://") {
                let target = Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join(folder)
                    .join(file);
                assert!(target.exists(), "{document} links to {link}");
            }
        }
        for target in text
            .split("`make ")
            .skip(1)
            .filter_map(|it| it.split(['`', ' ']).next())
        {
            assert!(
                makefile.contains(&format!("\n{target}:")),
                "{document} names `make {target}`"
            );
        }
    }
}

/// Who has only the README can get the program.
#[test]
fn the_readme_begins_with_how_to_get_the_program() {
    let read = |path: &str| fs::read_to_string(root(path)).expect("there");
    let (readme, manifest, makefile) = (read("README.md"), read("Cargo.toml"), read("Makefile"));
    let begin = readme.split("\n- **").next().expect("paragraphs");
    let begin = begin.split_whitespace().collect::<Vec<_>>().join(" ");
    for (said, is_so) in [
        (
            "`cargo build --release` (the program is `target/release/gaocache`)",
            manifest.contains("[[bin]]\nname = \"gaocache\"\n"),
        ),
        (
            "the container image `gaocache:dev` with `make image`",
            makefile.contains("\nimage:")
                && makefile.contains(
                    "docker build --build-arg REVISION=$$(git rev-parse HEAD) -t gaocache:dev .",
                ),
        ),
        (
            "needs Rust 1.95 and a C compiler, but no `protoc`, because `tools/protoc` stands in",
            manifest.contains("rust-version = \"1.95\"")
                && read(".cargo/config.toml").contains("\"tools/protoc/protoc\""),
        ),
    ] {
        assert!(begin.contains(said) && is_so, "{said}");
    }
}

/// The descriptors that replace protoc's output belong to the locked version of etcd-client.
#[test]
fn the_descriptors_fit_the_locked_etcd_client() {
    let lock = fs::read_to_string(root("Cargo.lock")).expect("there");
    let version = lock
        .split("name = \"etcd-client\"\nversion = \"")
        .nth(1)
        .and_then(|it| it.split('"').next());
    let noted = fs::read_to_string(root("tools/protoc/etcd-client.version")).expect("there");
    assert_eq!(
        version,
        Some(noted.trim()),
        "run `make etcd-descriptor`, then note the version"
    );
}

/// The names of gaocache's own metrics in a text, before a selector or within a function's
/// parentheses.
fn metrics_in(text: &str) -> Vec<String> {
    let names = text.match_indices("gaocache_").map(|(at, _)| {
        let rest = text[at..].chars();
        rest.take_while(|it| it.is_ascii_alphanumeric() || *it == '_')
            .collect::<String>()
    });
    names.collect()
}

#[test]
fn dashboards_and_alerts_name_only_metrics_that_exist_and_dashboards_name_all() {
    let dashboard = include_str!("../charts/gaocache/dashboards/gaocache.json");
    let alerts = include_str!("../charts/gaocache/alerts/gaocache.yaml");
    let known = |name: &str| {
        let of = |suffix: &str| name.strip_suffix(suffix).unwrap_or(name).to_owned();
        let base = [of("_bucket"), of("_sum"), of("_count")];
        let mut metrics = names::ALL.iter();
        metrics.any(|metric| base.iter().any(|base| base == metric.name))
    };
    for (what, text) in [("dashboard", dashboard), ("alerts", alerts)] {
        for name in metrics_in(text) {
            assert!(known(&name), "{name} is on the {what} and not in the code");
        }
    }
    let shown = metrics_in(dashboard).join("\n");
    for metric in names::ALL {
        assert!(
            shown.contains(metric.name),
            "{} is on no dashboard",
            metric.name
        );
    }
}

#[test]
fn every_panel_has_a_description_and_every_alert_a_runbook() {
    let dashboard = include_str!("../charts/gaocache/dashboards/gaocache.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
    // A row that is collapsed has its panels inside it.
    let top = dashboard["panels"].as_array().expect("panels");
    let inner = top
        .iter()
        .filter_map(|it| it["panels"].as_array())
        .flatten();
    let mut described = 0;
    for panel in top.iter().chain(inner).filter(|it| it["type"] != "row") {
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(description.ends_with('.'), "{}", panel["title"]);
        described += 1;
    }
    assert!(described > 40, "only {described} panels were found");
    let runbook = include_str!("../docs/alerts.md");
    let alerts = include_str!("../charts/gaocache/alerts/gaocache.yaml");
    let schema = include_str!("../charts/gaocache/values.schema.json");
    let named = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in named {
        assert!(
            runbook.contains(&format!("\n## {alert}\n")),
            "{alert} has no runbook"
        );
        assert!(
            schema.contains(&format!("\"{alert}\"")),
            "{alert} can't be switched off"
        );
    }
}
