//! `get`, `remove`, `purge` and `ring` against a node.

use super::*;

/// A command against that node.
pub(super) fn on(arguments: &[&str], target: &str) -> std::process::Output {
    let flag = match arguments[0] {
        "ring" => "--admin",
        _ => "--target",
    };
    run(PROGRAM, &[arguments, &[flag, target]].concat())
}

#[test]
fn the_other_commands_talk_to_a_node() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let get = on(&["get", "files", "a.txt", "-v"], &dev.grpc[0]);
    assert_eq!(
        (text(&get.stdout).as_str(), get.status.code()),
        ("first", Some(0))
    );
    assert!(
        text(&get.stderr).contains("source origin"),
        "{}",
        text(&get.stderr)
    );

    fs::write(folder.path().join("a.txt"), "changed").expect("written");
    assert_eq!(
        text(&on(&["get", "files", "a.txt"], &dev.grpc[1]).stdout),
        "first"
    );
    assert_eq!(
        on(&["remove", "files", "a.txt"], &dev.grpc[1])
            .status
            .code(),
        Some(0)
    );
    assert_eq!(
        text(&on(&["get", "files", "a.txt"], &dev.grpc[2]).stdout),
        "changed"
    );
    let purge = on(&["purge", "files"], &dev.grpc[2]);
    assert!(
        text(&purge.stdout).starts_with("removed "),
        "{}",
        text(&purge.stdout)
    );

    let missing = on(&["get", "files", "no-such-file"], &dev.grpc[0]);
    assert_eq!(missing.status.code(), Some(3));
    assert_eq!(
        on(&["get", "no-such-group", "k"], &dev.grpc[0])
            .status
            .code(),
        Some(1)
    );
    let nobody = on(&["get", "files", "a.txt"], "127.0.0.1:1");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("127.0.0.1:1"));
}

#[test]
fn answers_come_as_tables_as_json_and_as_files() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let admin: Vec<&str> = dev
        .admin
        .iter()
        .map(|it| it.trim_start_matches("http://"))
        .collect();
    let table = text(&on(&["ring", "--key", "a.txt"], admin[0]).stdout);
    assert!(
        table.contains("3 members")
            && table.contains("dev-2")
            && table.contains("owner in group files: dev-"),
        "{table}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&on(&["ring", "--json"], admin[1]).stdout).expect("JSON");
    assert_eq!(json["members"].as_array().expect("a list").len(), 3);

    let got = on(&["get", "files", "deep/b.txt", "--json"], &dev.grpc[0]);
    let got: serde_json::Value = serde_json::from_slice(&got.stdout).expect("JSON");
    assert_eq!(
        (&got["value"], &got["bytes"]),
        (&"second".into(), &6.into())
    );
    assert!(
        got["owner"].as_str().expect("text").starts_with("dev-"),
        "{got}"
    );
    let removed = on(&["remove", "files", "a.txt", "--json"], &dev.grpc[0]);
    let removed: serde_json::Value = serde_json::from_slice(&removed.stdout).expect("JSON");
    assert_eq!(removed["removed"], true);
    let purged = on(&["purge", "files", "--json"], &dev.grpc[0]);
    let purged: serde_json::Value = serde_json::from_slice(&purged.stdout).expect("JSON");
    assert!(purged["entries"].is_u64(), "{purged}");
    let file = folder.path().join("written");
    let path = file.to_str().expect("text");
    let written = on(&["get", "files", "deep/b.txt", "-o", path], &dev.grpc[0]);
    assert_eq!(
        (written.stdout.as_slice(), written.status.code()),
        (&b""[..], Some(0))
    );
    assert_eq!(fs::read_to_string(&file).expect("there"), "second");
}

/// What a command that must fail with this exit code says.
fn refused(arguments: &[&str], code: i32) -> String {
    let output = run(PROGRAM, arguments);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    told
}

#[test]
fn a_wrong_target_is_told_in_words_that_help() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let get = |target: &str| refused(&["get", "files", "a.txt", "--target", target], 1);
    let told = get("no-such-host.invalid:7070");
    assert!(
        told.contains("the host 'no-such-host.invalid' can't be found"),
        "{told}"
    );
    for other in [&dev.http[0], &dev.admin[0]] {
        let told = get(other);
        let address = other.trim_start_matches("http://");
        assert!(told.contains(address), "{told}");
        assert!(
            told.contains("is this the gRPC listener of a gaocache node"),
            "{told}"
        );
        assert!(!told.contains("compression flag"), "{told}");
    }
    for other in [&dev.http[0], &dev.grpc[0]] {
        let told = refused(&["ring", "--admin", other], 1);
        assert!(
            told.contains("is this the admin listener of a gaocache node"),
            "{told}"
        );
    }
    let told = refused(&["ring", "--admin", "no-such-host.invalid:9090"], 1);
    assert!(
        told.contains("the host 'no-such-host.invalid' can't be found"),
        "{told}"
    );
    for wrong in ["nonsense", "ftp://127.0.0.1:7070", "127.0.0.1:"] {
        let told = refused(&["get", "files", "a.txt", "--target", wrong], 2);
        assert!(told.contains("write HOST:PORT"), "{told}");
    }
    let told = refused(&["ring", "--admin", "localhost"], 2);
    assert!(told.contains("such as 127.0.0.1:9090"), "{told}");
}

#[test]
fn one_flag_means_one_listener_in_all_commands() {
    let told = refused(&["ring", "--target", "127.0.0.1:9090"], 2);
    assert!(told.contains("unexpected argument '--target'"), "{told}");
    let told = refused(&["get", "files", "a.txt", "--admin", "127.0.0.1:7070"], 2);
    assert!(told.contains("unexpected argument '--admin'"), "{told}");
    for command in ["get", "remove", "purge", "ring"] {
        let help = text(&run(PROGRAM, &[command, "--help"]).stdout);
        let (flag, listener) = match command {
            "ring" => ("--admin <HOST:PORT>", "The admin address"),
            _ => ("--target <HOST:PORT>", "The gRPC address"),
        };
        let (_, about) = help.split_once(flag).expect(command);
        assert!(about.trim_start().starts_with(listener), "{about}");
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_failure() {
    let folder = folder();
    // More than a pipe holds.
    fs::write(folder.path().join("big"), "0123456789".repeat(100_000)).expect("written");
    let dev = Dev::start(folder.path());
    let get = format!("{PROGRAM} get files big --target {}", dev.grpc[0]);
    let output = run(
        "bash",
        &["-c", &format!("set -o pipefail; {get} | head -c 10")],
    );
    assert_eq!(text(&output.stdout), "0123456789");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_terminal_gets_text_and_no_binary() {
    let folder = folder();
    fs::write(folder.path().join("binary"), b"\x7fELF\0\xff\x1b[2J").expect("written");
    let dev = Dev::start(folder.path());
    let on_terminal = |key: &str| {
        let get = format!("{PROGRAM} get files {key} --target {}", dev.grpc[0]);
        let output = run("script", &["-qec", &get, "/dev/null"]);
        (output.status.code(), text(&output.stdout))
    };
    let (code, shown) = on_terminal("binary");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("the value is binary (10 bytes)"), "{shown}");
    assert!(
        !shown.contains('\u{1b}') && !shown.contains("ELF"),
        "{shown:?}"
    );
    assert_eq!(on_terminal("a.txt"), (Some(0), "first\r\n".into()));
    let target = ["--target", &dev.grpc[0]];
    let json = run(
        PROGRAM,
        &[&["get", "files", "binary", "--json"][..], &target].concat(),
    );
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["value_base64"], "f0VMRgD/G1sySg==");
    let piped = run(
        PROGRAM,
        &["get", "files", "binary", "--target", &dev.grpc[0]],
    );
    assert_eq!(piped.stdout, b"\x7fELF\0\xff\x1b[2J");
}

#[test]
fn help_fits_a_narrow_terminal() {
    let widest = |columns: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["get", "--help"]).env("COLUMNS", columns);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let shown = text(&output.expect("runs").stdout);
        let widths = shown.lines().map(|line| line.chars().count());
        widths.max().expect("lines")
    };
    for (columns, most) in [("60", 60), ("300", 100)] {
        let widest = widest(columns);
        assert!(widest <= most && widest > most - 20, "{columns}: {widest}");
    }
}

#[test]
fn shells_complete_the_commands_and_each_has_a_man_page() {
    for (shell, part) in [
        ("bash", "complete -F _gaocache"),
        ("zsh", "#compdef gaocache"),
        ("fish", "complete -c gaocache"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = text(&run(PROGRAM, &["completions", shell]).stdout);
        assert!(
            script.contains(part) && script.contains("purge"),
            "{shell}: {script}"
        );
    }
    let script = text(&run(PROGRAM, &["completions", "bash"]).stdout);
    let complete = format!(
        "{script}\nCOMP_WORDS=(gaocache pur); COMP_CWORD=1; _gaocache gaocache pur gaocache; echo ${{COMPREPLY[@]}}"
    );
    assert_eq!(text(&run("bash", &["-c", &complete]).stdout), "purge\n");
    let folder = tempfile::tempdir().expect("a folder");
    let pages = folder.path().join("new/man");
    let man = run(PROGRAM, &["man", pages.to_str().expect("text")]);
    assert!(man.status.success(), "{}", text(&man.stderr));
    for page in ["gaocache.1", "gaocache-get.1", "gaocache-serve.1"] {
        let page = fs::read_to_string(pages.join(page)).expect(page);
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
        assert!(!page.contains(".SH EXTRA"), "{page}");
    }
    for page in ["gaocache-get.1", "gaocache-serve.1"] {
        let page = fs::read_to_string(pages.join(page)).expect(page);
        assert!(page.contains(".SH EXAMPLES\n.nf\n  gaocache "), "{page}");
    }
}

#[test]
fn every_command_shows_examples_that_it_takes() {
    let help = text(&run(PROGRAM, &["--help"]).stdout);
    let (_, commands) = help.split_once("Commands:\n").expect("a list");
    let commands = commands.lines().take_while(|line| !line.is_empty());
    // What is indented further goes on with the line above.
    let commands = commands.filter(|line| !line.starts_with("   "));
    let names = commands.filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| *name != "help") {
        let help = text(&run(PROGRAM, &[name, "--help"]).stdout);
        let (_, examples) = help.split_once("Examples:\n").expect(name);
        for example in examples.lines().filter(|line| !line.trim().is_empty()) {
            // Every flag is one of the command.
            assert!(
                example.starts_with(&format!("  gaocache {name}")),
                "{example}"
            );
            for flag in example
                .split_whitespace()
                .filter(|word| word.starts_with("--"))
            {
                assert!(
                    help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
                    "{example}"
                );
            }
        }
    }
}

/// Arguments are bytes, and standard error may be full: neither is a reason to panic.
#[test]
fn odd_arguments_and_a_full_standard_error_change_no_exit_code() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let odd = OsStr::from_bytes(b"\xff.toml");
    let full = || {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        Stdio::from(full.expect("there"))
    };
    let code = |arguments: &[&OsStr], errors: Stdio| {
        let output = Command::new(PROGRAM)
            .args(arguments)
            .stderr(errors)
            .output()
            .expect("runs");
        (output.status.code(), text(&output.stderr))
    };
    fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
        words.iter().map(|word| OsStr::new(*word)).collect()
    }
    let get = words(&["get", "g", "k", "--target", "127.0.0.1:1", "-o"]);
    let (status, told) = code(&[&get[..], &[odd]].concat(), Stdio::piped());
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("127.0.0.1:1: can't connect"), "{told}");
    let config = words(&["config", "--config"]);
    let (status, told) = code(&[&config[..], &[odd]].concat(), Stdio::piped());
    assert_eq!(status, Some(64), "{told}");
    assert!(told.contains("No such file"), "{told}");

    assert_eq!(code(&words(&["get", "--nope"]), full()).0, Some(2));
    assert_eq!(code(&words(&["config", "--set", "x"]), full()).0, Some(64));
    let away = words(&["get", "g", "k", "--json", "--target", "127.0.0.1:1"]);
    assert_eq!(code(&away, full()).0, Some(1));
    let folder = folder();
    let dev = Dev::start(folder.path());
    let told = ["get", "files", "a.txt", "-v", "--target"];
    let there = words(&told);
    let there = [&there[..], &[OsStr::new(&dev.grpc[0])]].concat();
    assert_eq!(code(&there, full()).0, Some(0));
}

/// A disk that is full must not cost the value that was there.
#[test]
fn a_file_that_can_t_be_written_is_as_it_was() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let there = tempfile::tempdir().expect("a folder");
    let file = there.path().join("value");
    fs::write(&file, "before").expect("written");
    let path = file.to_str().expect("text");
    let get = [
        "get",
        "files",
        "a.txt",
        "--target",
        &dev.grpc[0],
        "-o",
        path,
    ];
    let limited = "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"";
    let failed = run("sh", &[&["-c", limited, PROGRAM], &get[..]].concat());
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert_eq!(fs::read_to_string(&file).expect("there"), "before");
    assert_eq!(run(PROGRAM, &get).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&file).expect("there"), "first");
    let left = fs::read_dir(there.path()).expect("a folder").count();
    assert_eq!(left, 1, "nothing is left beside it");
    // What is no ordinary file stays what it is.
    let link = there.path().join("link");
    std::os::unix::fs::symlink("/proc/self/fd/1", &link).expect("linked");
    let link = link.to_str().expect("text");
    let pipe = [
        "get",
        "files",
        "a.txt",
        "--target",
        &dev.grpc[0],
        "-o",
        link,
    ];
    assert_eq!(text(&run(PROGRAM, &pipe).stdout), "first");
    assert!(fs::symlink_metadata(link).expect("there").is_symlink());
}
