//! Settings: TOML, variables and flags.

use std::{cell::RefCell, fs, path::PathBuf};

use gaocache::fuzzing::{InForce, Sources, read_all};
use tempfile::TempDir;

use crate::memory::bounded;

thread_local! {
    static FOLDER: RefCell<TempDir> = RefCell::new(tempfile::tempdir().expect("a folder"));
}

/// What no output may have in it.
const SECRET: &str = "hunter2-hunter2";
/// A group whose origin has secrets.
const GROUP: &str = "\n[[groups]]\nname = \"secret\"\norigin.kind = \"http\"\n\
    origin.url = \"http://u:hunter2-hunter2@o.test/{key}\"\n\
    origin.headers.authorization = \"hunter2-hunter2\"\n";

fn file(name: &str, content: &str) -> PathBuf {
    FOLDER.with_borrow(|folder| {
        let file = folder.path().join(name);
        fs::write(&file, content).expect("written");
        file
    })
}

/// A file, and behind a line `---` variables and flags, one a line as `NAME=VALUE`. What is shown
/// of settings can be read again and is then the same, and shows no secret.
pub fn settings(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let (toml, given) = input.split_once("\n---\n").unwrap_or((&input, ""));
    // Behind an open quote, a secret is no secret; nor is one that stands elsewhere.
    let open = ["\"\"\"", "'''", SECRET]
        .iter()
        .any(|it| input.contains(it));
    let hides = !open;
    let toml = match hides {
        true => format!("{toml}{GROUP}"),
        false => toml.to_owned(),
    };
    let mut sources = Sources {
        file: Some(file("settings.toml", &toml)),
        ..Sources::default()
    };
    for line in given.lines().take(16) {
        match line.split_once('=') {
            Some((name, value)) if name.starts_with("GAOCACHE") => {
                sources.environment.push((name.into(), value.into()));
            }
            _ => sources.overrides.push(line.into()),
        }
    }
    let reading = bounded(input.len(), 256, 2 << 20, || read_all(&sources));
    let shown: Vec<InForce> = reading.in_force.clone();
    let secret = |it: &InForce| it.value.contains(SECRET) || it.source.contains(SECRET);
    assert!(!hides || !shown.iter().any(secret), "{shown:?}");
    let problems = reading.checked().err();
    let told = problems
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(!hides || !told.contains(SECRET), "{told}");
    if problems.is_none() && !toml.contains(SECRET) {
        let again = read_all(&Sources {
            file: Some(file("again.toml", &written(&shown))),
            ..Sources::default()
        });
        let pairs = |all: &[InForce]| -> Vec<(String, String)> {
            let pair = |it: &InForce| (it.name.clone(), it.value.clone());
            all.iter().map(pair).collect()
        };
        if !shown.iter().any(|it| it.value.contains("***")) {
            assert_eq!(pairs(&again.in_force), pairs(&shown));
        }
    }
}

/// As `gaocache config` prints them.
fn written(shown: &[InForce]) -> String {
    let (mut toml, mut before) = (String::new(), None);
    for setting in shown {
        let (group, name) = match setting.name.split_once("].") {
            Some((group, name)) => (Some(group), name),
            None => (None, &*setting.name),
        };
        if group.is_some() && group != before {
            toml += "[[groups]]\n";
            before = group;
        }
        toml += &format!("{name} = {}\n", setting.value);
    }
    toml
}
