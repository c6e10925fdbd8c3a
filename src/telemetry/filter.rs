//! Which lines the log shows: a filter in the syntax of `EnvFilter`, which is bounded, and refused
//! if it would show nothing because of a typing error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use gaocache_core::error::{Error, ErrorKind, Result};

/// Bounds on a filter. Every event of the process is held against each directive.
const MAX_FILTER_BYTES: usize = 1024;
const MAX_DIRECTIVES: usize = 32;

/// Reads a filter. Values of fields are compared as text: a regular expression of a few hundred
/// bytes may take seconds and gigabytes to compile.
pub(super) fn filter(text: &str) -> Result<EnvFilter> {
    let wrong = |what: String| Error::new(ErrorKind::Configuration, what);
    if text.len() > MAX_FILTER_BYTES {
        return Err(wrong(format!("at most {MAX_FILTER_BYTES} bytes")));
    }
    let directives = || text.split(',');
    if directives().count() > MAX_DIRECTIVES {
        return Err(wrong(format!("at most {MAX_DIRECTIVES} directives")));
    }
    // To `EnvFilter`, a word that is not a log level is a target of which everything is shown. So a
    // level with a typing error would silence the log.
    let bare = directives().find(|it| {
        !it.contains(['=', '[']) && (it.is_empty() || it.parse::<LevelFilter>().is_err())
    });
    if let Some(word) = bare {
        return Err(wrong(format!(
            "'{word}' is not a log level; use off, error, warn, info, debug or trace, and for one \
             module MODULE=LEVEL"
        )));
    }
    if let Some(reason) = directives().find_map(|it| unknown_module(it).err()) {
        return Err(wrong(reason));
    }
    let parsed = EnvFilter::builder().with_regex(false).parse(text);
    parsed.map_err(|error| wrong(error.to_string()).with_source(error))
}

/// Crates whose lines the log can have. A filter for another one would match nothing, and if it is
/// all there is, the log would be silent.
const CRATES: [&str; 16] = [
    "axum",
    "etcd_client",
    "gaocache",
    "gaocache_core",
    "gaocache_discovery",
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "reqwest",
    "rustls",
    "tokio",
    "tonic",
    "tower",
];

/// The modules of the crate `gaocache`.
const MODULES: [&str; 30] = [
    "admin",
    "answer",
    "auth",
    "backoff",
    "cache",
    "cli",
    "client",
    "clock",
    "coding",
    "config",
    "fairness",
    "fuzzing",
    "group",
    "http",
    "http_client",
    "internal",
    "main",
    "members",
    "node",
    "origin",
    "redis",
    "registry",
    "rpc",
    "service",
    "settings",
    "status",
    "telemetry",
    "tls",
    "traffic",
    "wire",
];

/// Refuses a directive for a module that isn't there.
fn unknown_module(directive: &str) -> Result<(), String> {
    let target = directive.split(['=', '[']).next().unwrap_or_default();
    let is_level = !directive.contains(['=', '[']);
    let mut parts = target.split("::");
    let (Some(krate), module) = (parts.next(), parts.next()) else {
        return Ok(());
    };
    if is_level || krate.is_empty() {
        return Ok(());
    }
    if !CRATES.contains(&krate) {
        return Err(format!(
            "nothing logs as '{krate}'; use one of {}",
            CRATES.join(", ")
        ));
    }
    match module {
        Some(module) if krate == "gaocache" && !MODULES.contains(&module) => Err(format!(
            "there is no module '{krate}::{module}'; use one of {}",
            MODULES.join(", ")
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_level_that_is_no_filter_is_told_with_its_cause() {
        let error = filter("h2=loud").expect_err("no level");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.source().is_some());
    }

    #[test]
    fn a_filter_is_bounded_and_a_word_that_is_no_level_is_none() {
        for good in [
            "info",
            "OFF",
            "warn,gaocache::rpc=debug",
            "info,h2=off",
            "info,[span]=debug",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        let many = vec!["info"; MAX_DIRECTIVES + 1].join(",");
        let long = format!("{}=info", "a".repeat(MAX_FILTER_BYTES));
        for wrong in [
            "bogus",
            "inof",
            "",
            "info,,warn",
            "info,gaocache",
            "gaocahe=debug",
            "info,gaocache::rcp=debug",
            &many,
            &long,
        ] {
            let error = filter(wrong).expect_err(wrong);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
            assert!(error.message().len() < 400, "{error}");
        }
    }

    #[test]
    fn the_modules_that_a_filter_may_name_are_those_of_the_crate() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = std::fs::read_dir(folder).expect("there");
        let names = files.map(|file| file.expect("readable").path());
        let stems = names.map(|path| path.file_stem().expect("a name").to_os_string());
        let stems = stems.map(|stem| stem.into_string().expect("text"));
        let mut modules: Vec<String> = stems.filter(|stem| stem != "lib").collect();
        modules.sort();
        // A module may have a file and a folder.
        modules.dedup();
        assert_eq!(modules, MODULES);
    }
}
