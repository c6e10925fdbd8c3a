//! What README and docs show: every command that can run here runs as it is written there, and does
//! what the page says; every other one of this program is at least one that it takes.

use clap::CommandFactory;
use gaocache::internal::Cli;

use super::*;

/// What needs a cluster, a network, or minutes.
const CANNOT_RUN_HERE: [&str; 6] = ["cargo", "grpcurl", "helm", "kubectl", "make", "redis-cli"];

/// A fenced block of a page: its language, and its lines.
struct Block {
    page: String,
    language: String,
    lines: Vec<String>,
}

fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("there");
    let docs = docs.map(|it| format!("docs/{}", it.expect("readable").file_name().display()));
    let mut pages: Vec<String> = docs.filter(|name| name.ends_with(".md")).collect();
    pages.push("README.md".into());
    pages.sort();
    let read = |name: String| {
        let text = fs::read_to_string(root.join(&name)).expect("a page");
        (name, text)
    };
    pages.into_iter().map(read).collect()
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (page, text) in pages() {
        let mut open: Option<Block> = None;
        for line in text.lines() {
            match (line.strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    open = Some(Block {
                        page: page.clone(),
                        language: language.into(),
                        lines: Vec::new(),
                    });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.lines.push(line.into()),
                (None, None) => {}
            }
        }
    }
    blocks
}

/// A command without the remark behind it, and the remark.
fn command(line: &str) -> (&str, &str) {
    let (command, remark) = line.split_once("  #").unwrap_or((line, ""));
    (command.trim(), remark.trim())
}

fn program(command: &str) -> &str {
    let word = command.split_whitespace().next().unwrap_or_default();
    word.rsplit('/').next().unwrap_or_default()
}

/// Whether the program takes these arguments, as a shell would split them.
fn is_taken(page: &str, line: &str) {
    let line = line.split(" >").next().unwrap_or_default();
    let line = line.split(" | ").next().unwrap_or_default();
    let split = run("sh", &["-c", &format!("printf '%s\\n' {line}")]);
    let words = text(&split.stdout);
    let parsed = Cli::command().try_get_matches_from(words.lines());
    if let Err(error) = parsed {
        let harmless = [
            clap::error::ErrorKind::DisplayHelp,
            clap::error::ErrorKind::DisplayVersion,
        ];
        assert!(harmless.contains(&error.kind()), "{page}: {line}: {error}");
    }
}

#[test]
fn every_command_of_a_page_that_can_run_here_runs() {
    let root = env!("CARGO_MANIFEST_DIR");
    let docs = format!("{root}/docs");
    let dev = Dev::start(Path::new(&docs));
    let here = |command: &str| {
        command
            .replace("http://127.0.0.1:8080", &dev.http[0])
            .replace("http://127.0.0.1:9090", &dev.admin[0])
            .replace("target/quick/gaocache", PROGRAM)
    };
    let mut ran = 0;
    for block in blocks().iter().filter(|it| it.language == "sh") {
        let commands = block.lines.iter().map(|line| command(line));
        let commands: Vec<_> = commands.filter(|(it, _)| !it.is_empty()).collect();
        for (command, _) in commands.iter().filter(|it| program(it.0) == "gaocache") {
            is_taken(&block.page, command);
        }
        let mut programs = commands.iter().map(|(command, _)| program(command));
        // A placeholder is for the reader to fill in.
        let open = commands.iter().any(|(it, _)| it.contains("NAME"));
        if open || programs.any(|it| CANNOT_RUN_HERE.contains(&it)) {
            continue;
        }
        for (command, remark) in commands {
            if command.contains(" serve ") {
                continue; // Its file is checked below.
            }
            ran += 1;
            shows_what_it_says(&here(command), remark, &dev);
        }
    }
    assert!(ran >= 4, "only {ran} commands ran");
}

fn shows_what_it_says(command: &str, remark: &str, dev: &Dev) {
    let admin = dev.admin[0].trim_start_matches("http://");
    // What watches goes on for ever.
    let once = command.replace(" --watch", "");
    let output = Command::new("sh")
        .args(["-c", &once])
        .env("GAOCACHE_TARGET", &dev.grpc[0])
        .env("GAOCACHE_ADMIN", admin)
        .output()
        .expect("runs");
    let shown = text(&output.stdout);
    assert!(
        output.status.success(),
        "{command}: {}",
        text(&output.stderr)
    );
    match once.split_whitespace().collect::<Vec<_>>()[..] {
        ["curl", "-i", ..] => {
            assert!(shown.starts_with("HTTP/1.1 200 "), "{command}: {shown}");
            let (header, values) = remark.split_once(": ").expect("a header");
            let line = format!("{}: ", header.to_lowercase());
            let value = shown.lines().find_map(|it| it.strip_prefix(&line));
            let value = value.unwrap_or_else(|| panic!("{line}: {shown}"));
            assert!(
                values.contains(value),
                "{command}: {value} is not one of: {values}"
            );
        }
        ["curl", "-s", url] if url.ends_with("/ring") => {
            let ring: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
            assert_eq!(ring["members"].as_array().expect("a list").len(), 3);
        }
        [_, "ring", ..] => {
            assert!(
                shown.starts_with("3 members, revision "),
                "{command}: {shown}"
            );
        }
        [_, "get", group, key] => {
            assert_eq!(group, "files");
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(key);
            assert_eq!(shown, fs::read_to_string(file).expect("a page"));
        }
        _ => panic!("nothing is known of what this shows: {command}"),
    }
}

#[test]
fn every_settings_file_of_a_page_is_one_that_a_node_takes() {
    let mut checked = 0;
    for block in blocks().iter().filter(|it| it.language == "toml") {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gaocache.toml");
        let mut toml = block.lines.join("\n");
        if toml.contains("[contexts.") {
            continue; // Of the command line; see the contexts' tests.
        }
        if !toml.contains("[[groups]]") {
            toml += "\n[[groups]]\nname = \"g\"\norigin = { kind = \"file\", path = \"/\" }\n";
        }
        if !toml.contains("[registry") {
            toml += "\n[registry]\nkind = \"memory\"\n";
        }
        fs::write(&file, toml).expect("written");
        let output = Command::new(PROGRAM)
            .args(["config", "--config"])
            .arg(&file)
            .output();
        let output = output.expect("runs");
        let told = text(&output.stderr);
        // Files of certificates are the reader's.
        let mut reasons = told.lines().filter(|line| line.starts_with("    "));
        let missing = |it: &str| it.contains("No such file") || it.contains("readable directory");
        assert!(reasons.all(missing), "{}: {told}", block.page);
        checked += 1;
    }
    assert!(checked >= 2, "only {checked} files were checked");
}

#[test]
fn every_command_that_a_text_names_is_one_that_the_program_takes() {
    let mut named = 0;
    for (page, text) in pages() {
        let mut fenced = false;
        for line in text.lines() {
            fenced ^= line.starts_with("```");
            if fenced {
                // An example of a command's help.
                if let Some(example) = line.strip_prefix("  gaocache ") {
                    is_taken(&page, &format!("gaocache {example}"));
                    named += 1;
                }
                continue;
            }
            for span in line.split('`').skip(1).step_by(2) {
                if let Some(rest) = span.strip_prefix("gaocache ") {
                    let word = rest.split_whitespace().next().unwrap_or_default();
                    assert!(
                        Cli::command().find_subcommand(word).is_some(),
                        "{page}: `{span}`"
                    );
                    named += 1;
                }
            }
        }
    }
    assert!(named > 30, "only {named} commands are named");
}
