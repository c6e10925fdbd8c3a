//! What README and docs show: every command that can run here runs as it is written there, and does
//! what the page says. Of every other one, what it names is there: the targets of make, the files
//! of the repository, the examples, and the commands and flags of this program.

use clap::CommandFactory;
use gaocache::internal::Cli;

use super::{serve::Serve, *};

/// What needs a cluster, a network, or minutes.
const CANNOT_RUN_HERE: [&str; 4] = ["cargo", "helm", "kubectl", "make"];
/// Clients that are not ours; they run if they are installed.
const FOREIGN: [&str; 2] = ["grpcurl", "redis-cli"];

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
        let elsewhere = |it: &str| CANNOT_RUN_HERE.contains(&it) || FOREIGN.contains(&it);
        // A placeholder is for the reader to fill in.
        let open = commands.iter().any(|(it, _)| it.contains("NAME"));
        if open || programs.any(elsewhere) || makes_a_token(block) {
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

/// Whether these are lines of a script that makes a token.
fn makes_a_token(block: &Block) -> bool {
    block.lines.iter().any(|line| line.ends_with(">>tokens"))
}

fn is_installed(program: &str) -> bool {
    let found = run("sh", &["-c", &format!("command -v {program}")]);
    if !found.status.success() {
        eprintln!("{program} is not installed, so nothing is run with it");
    }
    found.status.success()
}

/// A node with a group `users`, which has the keys of the pages.
fn users(folder: &Path, further: &[&str]) -> Serve {
    for key in ["42", "alice"] {
        fs::write(folder.join(key), "first").expect("written");
    }
    let groups = format!(
        "groups=[{{ name = \"users\", origin = {{ kind = \"file\", path = {folder:?} }} }}]"
    );
    let all = [&["registry.kind=memory", &groups], further].concat();
    let mut serve = Serve::start(&all, &[]);
    serve.logs("\"ready\"");
    serve
}

#[test]
fn clients_that_are_not_ours_get_a_value_as_a_page_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let serve = users(folder.path(), &["redis.listen=127.0.0.1:0"]);
    let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
    let blocks = blocks();
    let lines = blocks.iter().filter(|it| it.language == "sh");
    let lines = lines.flat_map(|it| &it.lines).map(|line| command(line).0);
    let mut shown = 0;
    for line in lines.filter(|it| FOREIGN.contains(&program(it))) {
        shown += 1;
        if !is_installed(program(line)) {
            continue;
        }
        let here = line.replace("localhost:7070", &serve.grpc);
        let here = here.replace("-p 6379", &format!("-p {}", port(&serve.redis)));
        let output = run("sh", &["-c", &here]);
        let got = text(&output.stdout);
        // In JSON, bytes are written as base64.
        let is_got = got.trim() == "first" || got.contains("\"Zmlyc3Q=\"");
        assert!(is_got, "{line}: {got}{}", text(&output.stderr));
    }
    assert!(shown >= 2, "only {shown} commands are shown");
}

#[test]
fn the_script_that_makes_a_token_makes_one_that_counts() {
    let blocks = blocks();
    let scripts: Vec<&Block> = blocks.iter().filter(|it| makes_a_token(it)).collect();
    assert_eq!(scripts.len(), 1);
    if !is_installed("openssl") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = scripts[0].lines.join("\n") + "\nprintf %s \"$token\"";
    let mut made = Command::new("sh");
    made.args(["-ec", &script]).current_dir(folder.path());
    let token = text(&made.output().expect("runs").stdout);
    let tokens = format!("auth.token_file={}/tokens", folder.path().display());
    let serve = users(folder.path(), &["auth.anonymous=read", &tokens]);
    let remove = ["remove", "users", "42", "--target", &serve.grpc];
    assert_eq!(run(PROGRAM, &remove).status.code(), Some(1));
    let removed = run(PROGRAM, &[&remove[..], &["--token", &token]].concat());
    assert!(removed.status.success(), "{}", text(&removed.stderr));
}

#[test]
fn what_commands_name_that_can_t_run_here_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let makefile = fs::read_to_string(root.join("Makefile")).expect("there");
    let mut held = 0;
    for block in blocks().iter().filter(|it| it.language == "sh") {
        for (line, _) in block.lines.iter().map(|line| command(line)) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if program(line) == "make" {
                for target in &words[1..] {
                    assert!(makefile.contains(&format!("\n{target}:")), "{line}");
                    held += 1;
                }
            }
            if let Some((_, inner)) = line.split_once(" -- gaocache ") {
                is_taken(&block.page, &format!("gaocache {inner}"));
                held += 1;
            }
            let of_flag = |flag: &str| {
                let at = words.iter().position(|it| *it == flag)?;
                words.get(at + 1).copied()
            };
            if let Some(example) = of_flag("--example") {
                let package = of_flag("-p").unwrap_or_default();
                let folder = match package.strip_prefix("gaocache-") {
                    Some(name) => root.join("crates").join(name),
                    None => root.to_owned(),
                };
                let file = folder.join("examples").join(format!("{example}.rs"));
                assert!(file.exists(), "{line}");
                held += 1;
            }
            let ours = ["charts/", "k8s/", "tests/"];
            let files = words
                .iter()
                .filter(|it| ours.iter().any(|of| it.starts_with(of)));
            for file in files {
                assert!(root.join(file).exists(), "{line}");
                held += 1;
            }
        }
    }
    assert!(
        held >= 15,
        "only {held} names were held against what is there"
    );
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
