//! `get`, `remove`, `purge` and `ring` against a node.

use super::*;

#[test]
fn the_other_commands_talk_to_a_node() {
    let folder = folder();
    let dev = Dev::start(folder.path());
    let on = |arguments: &[&str], target: &str| {
        let mut arguments = arguments.to_vec();
        arguments.extend([
            if arguments[0] == "ring" {
                "--admin"
            } else {
                "--target"
            },
            target,
        ]);
        run(PROGRAM, &arguments)
    };
    let get = on(&["get", "files", "a.txt", "-v"], &dev.grpc[0]);
    assert_eq!(
        (text(&get.stdout).as_str(), get.status.code()),
        ("first", Some(0))
    );
    assert!(
        text(&get.stderr).contains("source Origin"),
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
    for wrong in ["nonsense", "https://127.0.0.1:7070", "127.0.0.1:"] {
        let told = refused(&["get", "files", "a.txt", "--target", wrong], 2);
        assert!(told.contains("write HOST:PORT"), "{told}");
    }
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
    let piped = run(
        PROGRAM,
        &["get", "files", "binary", "--target", &dev.grpc[0]],
    );
    assert_eq!(piped.stdout, b"\x7fELF\0\xff\x1b[2J");
}
